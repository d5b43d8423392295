"""The checkpoints of a report: lineages, digests and sizes, from records, else from their headers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import SanactlError
from sanactl.records.journal import Journal

__all__ = ["Facts", "Lineages", "read_lineages"]

Record = dict[str, Any]
MAX_CHECKPOINTS = 24


@dataclass(frozen=True)
class Facts:
    """What a checkpoint is: transformer blocks, parameters, bytes of its tensors, its dtypes. None is unknown."""

    blocks: int | None = None
    parameters: int | None = None
    bytes: int | None = None
    dtypes: str = ""


@dataclass
class Lineages:
    """The checkpoints of a report by name: lineages, digests, sizes; `faults` has the reason where one is unknown."""

    entries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read_lineages(checkpoints: Iterable[Record], names: Iterable[str], journal: Journal | None) -> Lineages:
    """The lineages of checkpoints, from their records, else from their headers.

    Args:
        checkpoints: checkpoint records.
        names: of all checkpoints that any records name.
        journal: names more of them.
    """
    found = Lineages()
    for record in checkpoints:
        found.facts[record["path"]] = Facts(
            _count(record.get("blocks")), _count(record.get("parameters")), _count(record.get("bytes"))
        )
        if record.get("lineage") is not None:
            found.entries[record["path"]] = record["lineage"]
            if record.get("digest") is not None:
                found.digests[record["path"]] = record["digest"]
    wanted = dict.fromkeys(names)
    for run in journal.runs() if journal is not None else ():
        wanted.update((o["path"], None) for o in run["outputs"] if o.get("kind") == "checkpoint")
    unknown = [name for name in wanted if name not in found.entries]
    for name in unknown[-MAX_CHECKPOINTS:]:
        _read_header(name, journal.folder if journal is not None else Path.cwd(), found)
    return found


def _count(value: object) -> int | None:
    """A record's number of something, None for what is none."""
    return value if isinstance(value, int) and 0 < value < 10**18 else None


def _read_header(name: str, folder: Path, found: Lineages) -> None:
    from sanactl.checkpoint.open import open_checkpoint

    try:
        # What is not here may be a Hub's repository: a report downloads nothing.
        if not os.path.exists(folder / name):
            found.faults[name] = "not here"
            return
        checkpoint = open_checkpoint(folder / name)
        found.entries[name], found.digests[name] = checkpoint.lineage, checkpoint.digest
        dtypes = ", ".join(checkpoint.dtypes)
        found.facts[name] = Facts(checkpoint.num_blocks, checkpoint.num_parameters, checkpoint.nbytes, dtypes)
    except SanactlError as error:
        found.faults[name] = error.message
    except (OSError, ValueError):  # a name that is no path: a null character, 300 letters
        found.faults[name] = "no name of a file"
