"""Reading images in GenEval's folder layout: for each prompt `NNNNN/metadata.jsonl` and `NNNNN/samples/NNNN.png`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.regular import open_regular
from sanactl.records.fields import FIELDS, REQUIRED, check_fields
from sanactl.records.jsonl import parse_json
from sanactl.records.records import MAX_HELD, stream_records

__all__ = ["is_geneval_folder", "read_geneval_folder"]

MAX_METADATA = 2**20
# Python's isdigit() also accepts digits of other scripts, and some that int() cannot read (a superscript two).
_NUMBER = re.compile("[0-9]+")


def is_geneval_folder(path: Path) -> bool:
    """Whether a folder has prompt folders and no metadata.jsonl of its own (with one, it is an imagefolder)."""
    if not path.is_dir() or (path / "metadata.jsonl").exists():
        return False
    return any(_NUMBER.fullmatch(p.name) and (p / "metadata.jsonl").is_file() for p in path.iterdir())


def read_geneval_folder(path: Path, *, missing: str = "prompts") -> Iterator[dict[str, Any]]:
    """Image records of a folder that a GenEval generation script has written, prompts and images in order.

    The order is that of the numbers; the official scorer's is that of the file system, and it skips unknown files.

    Args:
        path: the folder.
        missing: what is an error. "prompts": a prompt folder without images, or a folder of `sanactl sample` that lacks
            prompts, because a score over the others would look complete. "images": also a prompt with fewer images than
            another, an image's number that is left out, and a prompt folder's. "nothing".

    Yields:
        {"kind": "image", "path", "prompt", "prompt_id", "index": the image's number, "samples": images of
        this prompt, "tag", "include", ...}. `prompt_id` is the metadata's `id`, else the folder's name. The metadata's
        other fields are kept.

    Raises:
        InputError: there is no such folder, it has no prompt folders, something is missing, or metadata cannot be read.
    """
    try:
        folders = sorted(
            (p for p in path.iterdir() if _NUMBER.fullmatch(p.name) and p.is_dir()), key=lambda p: int(p.name)
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a folder ({error.strerror})") from None
    if not folders:
        raise InputError(
            f"{path}: no prompt folders (00000, 00001, ...) in it",
            hint="GenEval's layout is NNNNN/metadata.jsonl and NNNNN/samples/NNNN.png",
        )
    if missing != "nothing" and len(folders) < (promised := _promised(path)):
        raise InputError(
            f"{path}: images of {len(folders)} of its {promised} prompts; its sampling has not ended",
            hint="run the same sanactl sample again; it draws the others",
        )
    found = {folder: _images(folder) for folder in folders}
    listed = _listed(path)
    if missing == "images":
        _check_numbers(path, found)
    for folder, images in found.items():
        metadata = _metadata(folder / "metadata.jsonl")
        if not images and missing != "nothing":
            raise InputError(
                f"{folder / 'samples'}: no images (0000.png, ...) in it",
                hint="sample this prompt, or remove it",
            )
        known = {key: value for key, value in metadata.items() if key not in ("kind", "id")}
        name = metadata.get("id")
        known["prompt_id"] = str(folder.name if name is None else name)
        for image in images:
            record = {"path": str(image), "index": int(image.stem), "samples": len(images)}
            # What `sample` wrote of it: checkpoint, seed and settings. A file of another list of prompts says nothing.
            said = listed.get((folder.name, image.name), {})
            if said.get("prompt") != known["prompt"]:
                said = {}
            yield {"kind": "image", **said, **known, **record}


def _listed(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The image records of a folder that `sample` filled, by folder and file name; {} for other folders."""
    listing = path / "images.jsonl"
    if not (path / "settings.json").is_file() or not listing.is_file():
        return {}
    try:
        records = stream_records(listing, kinds=("image",), most=MAX_HELD)
        return {(Path(r["path"]).parts[-3], Path(r["path"]).name): r for r in records}
    except (InputError, IndexError):
        return {}


def _images(folder: Path) -> list[Path]:
    """The images of a prompt folder by number."""
    images = (folder / "samples").glob("*.png")
    return sorted((p for p in images if _NUMBER.fullmatch(p.stem) and p.is_file()), key=lambda p: int(p.stem))


def _check_numbers(path: Path, found: dict[Path, list[Path]]) -> None:
    """Raises InputError unless prompts are numbered without a gap, and each has the same numbers of images from 0."""
    hint = "sample what is missing, or score what is there with --allow-missing"
    numbers = [int(folder.name) for folder in found]
    known, begin = {*numbers}, min(numbers[0], 1)
    # Counted, not listed: a folder's name may be a number of 40 digits.
    gaps = numbers[-1] - begin - len({n for n in known if begin <= n < numbers[-1]})
    if gaps > 0:
        first = next(n for n in itertools.count(begin) if n not in known)
        raise InputError(f"{path}: {gaps:,} prompt folders are missing, the first {first:05d}", hint=hint)
    most = max((int(images[-1].stem) + 1 for images in found.values() if images), default=0)
    short = [folder for folder, images in found.items() if len(images) < most]
    if short:
        lacking = sum(most - len(found[folder]) for folder in short)
        has = len(found[short[0]])
        raise InputError(
            f"{path}: {lacking:,} images are missing; {short[0].name} has {has} of {most}", hint=hint
        )


def _promised(path: Path) -> int:
    """The number of prompts planned for a folder of `sanactl sample`; 0 for a folder of another program."""
    try:
        if not (path / "settings.json").is_file() or (path / "settings.json").stat().st_size > MAX_METADATA:
            return 0
        count = parse_json((path / "settings.json").read_text(encoding="utf-8"))["prompts"]["count"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return count if type(count) is int else 0


def _metadata(path: Path) -> dict[str, Any]:
    with open_regular(path, most=MAX_METADATA) as stream:
        try:
            metadata = parse_json(stream.read(MAX_METADATA + 1).decode("utf-8-sig"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise InputError(f"{path}: not one line of JSON ({error})") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("prompt"), str):
        raise InputError(f"{path}: no 'prompt' in it")
    try:
        # Fields that belong to images come from this folder, not from the prompt's metadata.
        check_fields({**FIELDS["image"], **FIELDS["prompt"]}, metadata, REQUIRED["prompt"])
    except ValueError as error:
        raise InputError(f"{path}: metadata {error}") from None
    return metadata
