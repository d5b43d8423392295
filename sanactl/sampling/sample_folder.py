"""The folder that `sample` fills: GenEval's layout, of one list of prompts, with every image knowing what it is.

FOLDER/settings.json            what the images are a function of, and which list of prompts they are for
FOLDER/images.jsonl             the image records of the last run
FOLDER/00000/metadata.jsonl     the prompt's record
FOLDER/00000/samples/0000.png   its text chunk `sanactl` says of which prompt, index, seed and settings it is

A folder holds the images of one list: whoever scores the folder scores these and no others. Prompt folders are made
when their first image is drawn, so a long list costs nothing before it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import OutputExistsError
from sanactl.files.atomic import atomic_path
from sanactl.files.images import write_png
from sanactl.records.records import Record, dumps

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.conditioning import SamplingSettings

__all__ = [
    "LISTING",
    "SampleFolder",
    "folder_settings",
    "open_folder",
    "prompts_digest",
]

SETTINGS, LISTING = "settings.json", "images.jsonl"
# The keyword of the PNG text chunk.
MARK = "sanactl"
_MAX_SETTINGS = 2**20  # bytes


def prompts_digest(prompts: Iterable[Record]) -> str:
    """A fingerprint of a list of prompts: their texts, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(prompt["prompt"]).encode() + b"\n")
    return "sha256:" + digest.hexdigest()


def folder_settings(
    checkpoint: Checkpoint,
    settings: SamplingSettings,
    seed: int,
    dtype: torch.dtype,
    prompts: Sequence[Record],
) -> dict[str, Any]:
    """The contents of a folder's settings.json: what its images are a function of, and the list of prompts."""
    return {
        "digest": checkpoint.digest,
        "seed": seed,
        "dtype": str(dtype),
        **asdict(settings),
        **_given(checkpoint),
        "prompts": {"count": len(prompts), "digest": prompts_digest(prompts)},
    }


def _given(checkpoint: Checkpoint) -> dict[str, str]:
    """Components that are not the checkpoint's own make other images."""
    return {} if checkpoint.given is None else {"components": checkpoint.given}


@contextlib.contextmanager
def opened_folder(folder: Path | None, stem: str, wanted: dict[str, Any], *, force: bool) -> Iterator[Path]:
    """A folder for the images, from now on this run's; should the run fail before its first image, none is left behind.

    Args:
        folder: the one that is asked for, or None for STEM, STEM-2 and so on: the first that is not there yet, is empty,
            or holds images of these settings and prompts.
        wanted: see `folder_settings`.
        force: it may hold other images of sanactl's; `renew_folder` removes them when the first new one is due.

    Raises:
        OutputExistsError: see `open_folder`.
    """
    number, made = 1, False
    chosen = folder or Path(stem)
    while True:
        try:
            made = open_folder(chosen, wanted, force=force)
            break
        except OutputExistsError:
            if folder is not None or force:
                raise
            number += 1
            chosen = Path(f"{stem}-{number}")
    try:
        yield chosen
    except BaseException:
        with contextlib.suppress(OSError):
            if made and [p.name for p in chosen.iterdir()] == [SETTINGS]:
                (chosen / SETTINGS).unlink()
                chosen.rmdir()
        raise


def open_folder(folder: Path, wanted: dict[str, Any], *, force: bool) -> bool:
    """Makes the folder, or sees that the one there holds images of the same settings and the same list of prompts.

    Args:
        folder: it and its parents are made where they are missing.
        wanted: see `folder_settings`.
        force: images that sanactl drew before may be in it. They stay until `renew_folder` is called.

    Returns:
        whether the folder was made.

    Raises:
        OutputExistsError: it holds something else; images of other settings or prompts, and `force` was not given; or
            files that sanactl did not write, where the new images have to lie.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file", hint="name a folder with -o")
    there = _settings_of(folder)
    if there is not None:
        if force:
            _removable(folder, there)
        elif there != wanted:
            raise OutputExistsError(
                f"{folder} holds images of {_difference(there, wanted)}",
                hint="give another folder with -o, or --force to replace them",
            )
        return False
    if folder.exists() and any(folder.iterdir()):
        raise OutputExistsError(
            f"{folder} holds something else than samples; sanactl removes no files of others",
            hint="name another folder with -o",
        )
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_settings(folder, wanted, force=False)
    except OutputExistsError:
        # Another process opened the folder meanwhile: for the same images that is no trouble.
        if _settings_of(folder) != wanted:
            raise
        return False
    return made


def renew_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Removes what sanactl wrote into an opened folder before, and nothing else, and makes it one of `wanted`.

    Raises:
        OutputExistsError: see `open_folder`.
    """
    there = _settings_of(folder)
    images, prompts = _removable(folder, there) if there else ([], [])
    for image in images:
        image.unlink()
    for place in prompts:
        (place / "metadata.jsonl").unlink(missing_ok=True)
        for empty in (place / "samples", place):
            with contextlib.suppress(OSError):  # it holds files of others, which stay
                empty.rmdir()
    (folder / LISTING).unlink(missing_ok=True)
    _write_settings(folder, wanted, force=True)


def _write_settings(folder: Path, wanted: dict[str, Any], *, force: bool) -> None:
    with atomic_path(folder / SETTINGS, force=force) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1, ensure_ascii=False), encoding="utf-8")


def _difference(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    same = {**there, "prompts": None} == {**wanted, "prompts": None}
    return "another list of prompts" if same else "another checkpoint, seed or settings"


def _settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings of a folder that `sample` fills; None for any other folder."""
    path = folder / SETTINGS
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_SETTINGS:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if type(found["prompts"]["count"]) is int and "digest" in found else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _removable(folder: Path, there: dict[str, Any]) -> tuple[list[Path], list[Path]]:
    """The images of an earlier run, and their prompts' folders.

    Raises:
        OutputExistsError: a prompt folder or an image that sanactl did not write: whoever scores the folder would
            take it for one of the new ones.
    """
    images: list[Path] = []
    prompts = sorted(p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())
    for place in prompts:
        number = int(place.name)
        if place.name != f"{number:05d}" or number >= there["prompts"]["count"]:
            raise _not_ours(place)
        for image in (p for p in place.glob("samples/*.png") if p.stem.isdecimal()):
            if _mark_of(image) is None:
                raise _not_ours(image)
            images.append(image)
    return images, prompts


def _not_ours(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path} was not made by sanactl, which removes no files of others",
        hint="move it away, or name another folder with -o",
    )


def _mark_of(path: Path) -> dict[str, Any] | None:
    """What a PNG says that it is, or None: no image of sanactl's. Only the chunks before the pixels are read."""
    from PIL import Image

    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = json.loads(image.info[MARK])
    except (
        OSError,
        SyntaxError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        Image.DecompressionBombError,
    ):
        return None
    return found if isinstance(found, dict) else None


class SampleFolder:
    """The images of one run in an opened folder: their records, which are there, and how they are written.

    Args:
        folder: see `open_folder`.
        checkpoint, settings, seed, dtype: what the images are a function of, besides prompt and index.
        prompts: prompt records, each with an `id`; their other fields are passed on.
        count: images of each prompt.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        prompts: Sequence[Record],
        *,
        count: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.folder, self.prompts, self.count, self.seed = folder, prompts, count, seed
        self.checkpoint, self.settings, self.dtype = checkpoint, settings, dtype
        self._common = {
            "checkpoint": str(checkpoint.path),
            "digest": checkpoint.digest,
            "steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "height": settings.height,
            "width": settings.width,
            "negative_prompt": settings.negative_prompt,
            "complex_human_instruction": settings.complex_human_instruction,
        }
        if settings.instruction is not None:
            # The text itself is in the folder's settings.json and in each image.
            self._common["instruction"] = (
                "sha256:" + hashlib.sha256(settings.instruction.encode()).hexdigest()[:16]
            )
        self._function = {
            "digest": checkpoint.digest,
            "dtype": str(dtype),
            **asdict(settings),
            **_given(checkpoint),
        }

    def __len__(self) -> int:
        return len(self.prompts) * self.count

    @property
    def identity(self) -> dict[str, Any]:
        """What the folder's settings.json says: see `folder_settings`."""
        return folder_settings(self.checkpoint, self.settings, self.seed, self.dtype, self.prompts)

    def record(self, number: int) -> Record:
        """The record of image `number`, counted prompt by prompt from 0."""
        from sanactl.model.sampler import image_seed

        place, index = divmod(number, self.count)
        prompt = self.prompts[place]
        return {
            "kind": "image",
            "path": str(self.folder / f"{place:05d}" / "samples" / f"{index:04d}.png"),
            "prompt_id": str(prompt["id"]),
            # A prompt's record must not say where its image lies.
            **{k: v for k, v in prompt.items() if k not in ("kind", "id", "path", "prompt_id")},
            "index": index,
            "samples": self.count,
            "seed": image_seed(self.seed, prompt["prompt"], index),
            **self._common,
        }

    def missing(self, records: Iterable[Record]) -> Iterator[int]:
        """The positions among these records of the images that are yet to be drawn.

        Raises:
            OutputExistsError: in an image's place lies another image.
        """
        for position, record in enumerate(records):
            path = Path(record["path"])
            if not path.exists():
                yield position
            elif _mark_of(path) != self._mark(record):
                raise OutputExistsError(
                    f"{path} is of another prompt, seed or settings, or not drawn by sanactl",
                    hint="move it away, or give another folder with -o",
                )

    def write(self, pixels: NDArray[np.uint8], record: Record) -> None:
        """Writes an image, uint8 [height, width, 3], whole or not at all."""
        path = Path(record["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(pixels, path, text={MARK: json.dumps(self._mark(record), ensure_ascii=False)})

    def describe(self, numbers: Iterable[int]) -> None:
        """Writes the metadata.jsonl of these images' prompts, as GenEval's own evaluation reads it."""
        for place in sorted({number // self.count for number in numbers}):
            file = self.folder / f"{place:05d}" / "metadata.jsonl"
            text = dumps({k: v for k, v in self.prompts[place].items() if k != "kind"})
            with contextlib.suppress(OSError, ValueError):
                if file.is_file() and file.read_text(encoding="utf-8") == text:
                    continue
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file, force=True) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _mark(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What an image is a function of."""
        return {
            "prompt": record["prompt"],
            "index": record["index"],
            "seed": record["seed"],
            **self._function,
        }
