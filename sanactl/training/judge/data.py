"""Labelled images for a judge: which it learns from, and which are kept for the measurement."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sanactl.errors import InputError
from sanactl.files.images import image_bytes, image_size
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.audit.gather import Gathered, label_of
from sanactl.prompts.meaning import meaning, refuse_evaluation_prompts
from sanactl.records.batches import batches
from sanactl.records.records import Record

__all__ = ["JudgeData", "split_records"]

_READERS, _READ_TOGETHER = 8, 1024
_MADE = "sanactl sample | sanactl eval geneval | sanactl train-judge --model VLM"


@dataclass(frozen=True)
class JudgeData:
    """Labelled images, each a record with `path` and `prompt`.

    Attributes:
        train, held_out: the records; no prompt of one means the same as one of the other.
        label: the field with the truth.
        sources: the detectors that found it, where records name them.
        identity: a digest of the images to learn from, their prompts and labels, wherever the files lie.
    """

    train: list[Record]
    held_out: list[Record]
    label: str
    sources: tuple[str, ...]
    identity: str

    def truth(self, record: Record) -> bool:
        """Whether an image is right."""
        return bool(label_of(record, self.label))


def split_records(
    records: Sequence[Record],
    held_out: Sequence[Record] | None,
    *,
    label: str,
    share: float,
    progress: Progress = SILENT,
) -> JudgeData:
    """Labelled images to learn from, and others of other prompts.

    Args:
        records: image records.
        held_out: image records to measure on; None keeps some prompts of `records`, chosen by their meaning alone
            (`sanactl.prompts.meaning`).
        label: the field with the truth: true or false, 0 or 1, yes or no. Records without it are left out.
        share: of the prompts that is kept, without `held_out`.

    Raises:
        InputError: no record has a label, all have the same one, a label is none, a prompt means one of an evaluation set
            (of those that are in `held_out` nothing is asked), or an image is missing or no image.
    """
    gathered = Gathered(label)
    mine = _labelled(records, gathered, progress.note)
    meant = {id(record): meaning(record) for record in mine}
    if held_out is None:
        chosen = _held_out_meanings(meant.values(), share)
        kept = [r for r in mine if meant[id(r)] in chosen]
    else:
        kept = _labelled(held_out, Gathered(label), progress.note)
        chosen = {meaning(record) for record in kept}
    learned = [r for r in mine if meant[id(r)] not in chosen]
    if held_out is not None and len(learned) < len(mine):
        progress.note(f"{len(mine) - len(learned):,} images of held-out prompts are not trained on")
    refuse_evaluation_prompts(mine if held_out is None else learned, "a judge")
    _check_classes(learned, label, "to learn from", hint="draw more images, or of other prompts")
    _check_classes(
        kept, label, "to measure on", hint="draw more images, raise --held-out-share, or name --held-out FILE"
    )
    digest = _digest([*learned, *kept], len(learned), label, progress)
    return JudgeData(learned, kept, label, tuple(gathered.sources), digest)


def _labelled(records: Sequence[Record], gathered: Gathered, tell: Callable[[str], None]) -> list[Record]:
    """The records with a label, each image with its prompt once."""
    label = gathered.label
    found: dict[tuple[str, str], Record] = {}
    without = 0
    for record in records:
        gathered.add(record)
        if label_of(record, label) is None:
            without += 1
        else:
            found.setdefault((str(record["prompt"]), str(record["path"])), record)
    if not found:
        raise InputError(
            f"no record has a label in {label!r}" if records else "no image records to train a judge on",
            hint=f"{_MADE}; --label names another field",
        )
    if without:
        tell(f"{without:,} of {len(records):,} records have no {label!r}, and are left out")
    return list(found.values())


def _held_out_meanings(meanings: Iterable[str], share: float) -> set[str]:
    """Those with the lowest hashes: whether one is among them hardly depends on the others."""
    ranked = sorted(set(meanings), key=lambda m: hashlib.sha256(f"judge held out|{m}".encode()).digest())
    return set(ranked[: math.ceil(share * len(ranked))])


def _check_classes(records: Sequence[Record], label: str, what: str, *, hint: str) -> None:
    right = sum(bool(label_of(record, label)) for record in records)
    if not 0 < right < len(records):
        some = "right" if right else "wrong"
        raise InputError(
            f"the {len(records):,} images {what} are all {some}; a judge needs right and wrong ones"
            if records
            else f"no image is left {what}",
            hint=hint,
        )


def _digest(records: Sequence[Record], learned: int, label: str, progress: Progress) -> str:
    """Reads every image's file once: it is there, and has the header of an image. The digest is of the first `learned`."""
    from concurrent.futures import ThreadPoolExecutor

    whole = hashlib.sha256()
    progress.start(len(records), "reading images")
    with ThreadPoolExecutor(_READERS) as pool:
        for some in batches(enumerate(records), _READ_TOGETHER):  # not all at once: there may be millions
            for (number, record), content in zip(
                some, pool.map(_content, [r["path"] for _, r in some]), strict=True
            ):
                if number < learned:
                    whole.update(hashlib.sha256(str(record["prompt"]).encode()).digest() + content)
                    whole.update(b"1" if label_of(record, label) else b"0")
                progress.advance(1)
    progress.close()
    return whole.hexdigest()


def _content(name: str) -> bytes:
    """The sha256 of an image's file."""
    path = Path(name)
    data = image_bytes(path)
    try:
        image_size(io.BytesIO(data))
    except InputError as error:
        raise InputError(f"{path}: {error.message.partition(': ')[2]}", hint=error.hint) from error
    return hashlib.sha256(data).digest()
