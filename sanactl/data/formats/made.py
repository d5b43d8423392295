"""Formats of data that sanactl makes: the built-in world, outputs of `encode` and `sample`, image records."""

from __future__ import annotations

from pathlib import Path

from sanactl.data.encoded import EncodedData, is_encoded
from sanactl.data.formats.base import DataFormat
from sanactl.data.metadata import METADATA, has_kinds
from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.sources import TrainingData
from sanactl.data.tables import Examples, RecordTable, ShapesTable
from sanactl.errors import InputError, UsageError

__all__ = ["BUILTIN", "BuiltinShapes", "EncodedShards", "GenevalFolder", "ImageRecords"]

BUILTIN = "builtin:shapes"


class BuiltinShapes(DataFormat):
    """The built-in world: pictures without end, rendered when they are asked for."""

    name = BUILTIN
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        return BUILTIN if reference.name == BUILTIN else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        return ShapesTable(settings.seed, max(settings.height, settings.width), settings.captions)


class EncodedShards(DataFormat):
    """A folder that `encode` made: latents and embeddings, which only training can use."""

    name = "latents and embeddings"
    scored = True
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        return reference.name if reference.kind == "folder" and is_encoded(reference.root) else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        raise InputError(f"{reference.name}: is encoded already", hint="finetune takes it as it is")

    def open_for_training(self, reference: Reference, settings: DataSettings) -> TrainingData:
        if settings.min_clip_score is not None:
            raise UsageError(
                f"{reference.name}: --min-clip-score is for encode",
                hint="encode leaves images out, with --caption-choice; finetune takes all that were encoded",
            )
        return EncodedData(reference.root, settings.seed, captions=settings.captions, rule=settings.rule)


class GenevalFolder(DataFormat):
    """A folder in GenEval's layout, which `sample` writes: `00000/metadata.jsonl` and `00000/samples/`."""

    name = "GenEval's layout"
    scored = True
    certain = True

    def recognises(self, reference: Reference) -> str | None:
        from sanactl.records.geneval_folder import is_geneval_folder

        root = reference.root
        if reference.kind != "folder":
            return None
        # `sample` writes a metadata.csv beside its settings.json, for `datasets`: the records say more.
        drawn = (root / "settings.json").is_file() and (root / "images.jsonl").is_file()
        if not drawn and any((root / name).exists() for name in METADATA):
            return None
        if not is_geneval_folder(root):
            return None
        numbered = (folder for folder in root.iterdir() if folder.name.isdigit())
        return next((folder.name for folder in numbered if (folder / "samples").is_dir()), None)

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        from sanactl.records.geneval_folder import read_geneval_folder

        records = list(read_geneval_folder(reference.root))
        return RecordTable(records, settings.captions, origin=reference.name, rule=settings.rule)


class ImageRecords(DataFormat):
    """A `.jsonl` of `image` records, which `sample` and `judge` write."""

    name = "image records"
    scored = True
    suffixes = (".jsonl",)

    def recognises(self, reference: Reference) -> str | None:
        files = reference.ending(".jsonl") if reference.kind == "files" else ()
        return files[0] if files and has_kinds(reference.root / files[0]) else None

    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        from sanactl.records.records import load_records

        records = load_records(Path(reference.name), kinds=("image",))
        return RecordTable(records, settings.captions, origin=reference.name, rule=settings.rule)
