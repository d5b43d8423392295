"""`sample`: images for prompts, in GenEval's folder layout, resumable and independent of how the work is divided.

FOLDER/settings.json            what the images are a function of, besides prompt and seed
FOLDER/00000/metadata.jsonl     the prompt record
FOLDER/00000/samples/0000.png
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import OutputExistsError
from sanactl.io.atomic import atomic_path
from sanactl.io.images import write_png
from sanactl.io.progress import SILENT, Progress
from sanactl.io.records import Record, dumps
from sanactl.stages.conditioning import SamplingSettings, Sana, lot_size
from sanactl.stages.processes import open_processes

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint

__all__ = ["find_folder", "folder_settings", "open_folder", "sample_images"]

SETTINGS = "settings.json"


def folder_settings(
    checkpoint: Checkpoint, settings: SamplingSettings, seed: int, dtype: torch.dtype
) -> dict[str, Any]:
    """What the images of a folder are a function of, besides their prompts: the contents of its settings.json."""
    return {"digest": checkpoint.digest, "seed": seed, "dtype": str(dtype), **asdict(settings)}


def find_folder(stem: str, wanted: dict[str, Any]) -> Path:
    """STEM, STEM-2 and so on: the first that is not there yet, or that holds images of the same settings."""
    number = 1
    while True:
        folder = Path(stem if number == 1 else f"{stem}-{number}")
        if not folder.exists() or _settings_of(folder) == wanted:
            return folder
        number += 1


def open_folder(folder: Path, wanted: dict[str, Any], *, force: bool) -> None:
    """Makes the folder, or sees that the one there holds images of the same checkpoint, seed and settings.

    Raises:
        OutputExistsError: it holds something else, and `force` was not given.
    """
    there = _settings_of(folder)
    if folder.exists() and not force:
        if not folder.is_dir():
            raise OutputExistsError(f"{folder} is a file", hint="name a folder with -o")
        if there == wanted:
            return
        if there is not None:
            raise OutputExistsError(
                f"{folder} holds images of another checkpoint, seed or settings",
                hint="give another folder with -o, or --force to write over them",
            )
        if any(folder.iterdir()):
            raise OutputExistsError(
                f"{folder} is there and holds something else", hint="name another with -o"
            )
    folder.mkdir(parents=True, exist_ok=True)
    if force:
        for old in folder.glob("*/samples/*.png"):
            old.unlink()
    with atomic_path(folder / SETTINGS, force=True) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _settings_of(folder: Path) -> Any:
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sample_images(
    checkpoint: Checkpoint,
    prompts: Sequence[Record],
    folder: Path,
    settings: SamplingSettings,
    *,
    count: int,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Draws `count` images of each prompt and yields their records in order, prompt by prompt.

    Images that are there already are kept, so a run that was stopped goes on where it was. Under several processes
    each draws every n-th lot, and the first yields all records when the last is done.

    Args:
        prompts: prompt records, each with an `id`; their other fields are passed on.
        folder: opened by `open_folder`, by the first process.
        batch_size: images that a process takes on at once, rounded up to whole lots; it does not change them (see
            `conditioning`).
    """
    state = open_processes()
    if state.is_main_process:
        _write_metadata(prompts, folder)
    work = [(p, i) for p in range(len(prompts)) for i in range(count)]
    records = [_record(checkpoint, prompts[p], p, i, count, folder, settings, seed) for p, i in work]
    done = sum(_is_there(record) for record in records)
    if done:
        progress.note(f"{done} of {len(work)} images are there already")
    # Nobody draws before everybody has counted, and the folder is as the first process made it.
    state.wait_for_everyone()
    world, rank = state.num_processes, state.process_index
    lot = lot_size(checkpoint, settings)
    mine = list(_share(len(work), lot, rank, world))
    batch_size = -(-batch_size // lot) * lot
    sana: Sana | None = None
    emitted = 0
    progress.start(len(work), "sampling", done=done)
    try:
        for start in range(0, len(mine), batch_size):
            missing = [w for w in mine[start : start + batch_size] if not _is_there(records[w])]
            if not missing:
                continue
            if sana is None:
                sana = Sana(checkpoint, settings, device=device, dtype=dtype)
            for w in _draw(sana, records, missing, progress, world):
                # What is there goes out at once, in order: the reader may have started already.
                if world == 1:
                    yield from records[emitted : w + 1]
                    emitted = w + 1
    except KeyboardInterrupt:
        progress.note("stopped; what is drawn stays, and the same command goes on from there")
        raise
    finally:
        progress.close()
    state.wait_for_everyone()
    if state.is_main_process:
        yield from records[emitted:]


def _share(count: int, lot: int, rank: int, world: int) -> Iterator[int]:
    """The places, out of `count`, that are this process's: every `world`-th run of `lot`."""
    for start in range(rank * lot, count, world * lot):
        yield from range(start, min(start + lot, count))


def _is_there(record: Record) -> bool:
    return Path(record["path"]).exists()


def _draw(
    sana: Sana, records: list[Record], places: list[int], progress: Progress, world: int
) -> Iterator[int]:
    """Draws and writes the images at these places; yields the place up to which all are written, lot by lot."""
    chosen = [records[w] for w in places]
    at = 0
    for pixels in sana.draw([r["prompt"] for r in chosen], [r["seed"] for r in chosen]):
        for record, image in zip(chosen[at:], pixels, strict=False):
            write_png(image, Path(record["path"]))
        at += len(pixels)
        progress.advance(len(pixels) * world)
        yield places[at - 1]


def _record(
    checkpoint: Checkpoint,
    prompt: Record,
    place: int,
    index: int,
    count: int,
    folder: Path,
    settings: SamplingSettings,
    seed: int,
) -> Record:
    from sanactl.diffusion.sampler import image_seed

    known = {k: v for k, v in prompt.items() if k not in ("kind", "id")}
    return {
        "kind": "image",
        "path": str(folder / f"{place:05d}" / "samples" / f"{index:04d}.png"),
        "prompt_id": str(prompt["id"]),
        **known,
        "index": index,
        "samples": count,
        "seed": image_seed(seed, prompt["prompt"], index),
        "checkpoint": str(checkpoint.path),
        "digest": checkpoint.digest,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "height": settings.height,
        "width": settings.width,
    }


def _write_metadata(prompts: Sequence[Record], folder: Path) -> None:
    """A metadata.jsonl for each prompt, as GenEval's own evaluation reads it.

    Raises:
        OutputExistsError: the folder holds images of another prompt in the same place.
    """
    for place, prompt in enumerate(prompts):
        there = folder / f"{place:05d}"
        with contextlib.suppress(OSError, ValueError):
            if (
                json.loads((there / "metadata.jsonl").read_text(encoding="utf-8"))["prompt"]
                == prompt["prompt"]
            ):
                continue
            if any(there.glob("samples/*.png")):
                raise OutputExistsError(
                    f"{there} holds images of another prompt",
                    hint="give another folder with -o, or --force to write over them",
                )
    for place, prompt in enumerate(prompts):
        (folder / f"{place:05d}" / "samples").mkdir(parents=True, exist_ok=True)
        file = folder / f"{place:05d}" / "metadata.jsonl"
        text = dumps({k: v for k, v in prompt.items() if k != "kind"})
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            with atomic_path(file, force=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
