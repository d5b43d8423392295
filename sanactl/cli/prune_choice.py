"""Which blocks `prune` keeps: from importance records, a list, or what to drop."""

from __future__ import annotations

from pathlib import Path

from sanactl.cli.streams import note
from sanactl.errors import InputError, UsageError
from sanactl.io.checkpoint import Checkpoint
from sanactl.io.journal import Journal
from sanactl.io.records import Record, load_records
from sanactl.surgery.prune import choose_blocks
from sanactl.surgery.select import blocks_for_bytes, blocks_for_parameters, complement, parse_blocks

__all__ = ["choose"]


def choose(
    parent: Checkpoint,
    records: list[Record],
    importance: Path | None,
    asked: dict[str, str | None],
    *,
    protect: tuple[int, int],
) -> list[list[int]]:
    """One list of kept blocks for each depth that was asked for.

    Args:
        parent: what is pruned.
        records: those that came with it.
        importance: a file of block records, or None.
        asked: each option that says what stays, to its value; one of them is not None.
        protect: first and last blocks that stay in any case.

    Raises:
        UsageError: none or several of the options; a number that is none.
        InputError: no importance records, or those of another checkpoint.
    """
    given = [(option, value) for option, value in asked.items() if value is not None]
    if len(given) != 1:
        raise UsageError(f"prune needs one of {', '.join(asked)}", hint="for example --keep 30")
    option, value = given[0]
    if option == "--blocks":
        return [parse_blocks(value, parent.num_blocks)]
    if option == "--drop":
        return [complement(parse_blocks(value, parent.num_blocks), parent.num_blocks)]
    if option == "--parameters":
        depths = [blocks_for_parameters(parent, value)]
    elif option == "--size":
        depths = [blocks_for_bytes(parent, value)]
    else:
        depths = _depths(value)
    values = _importance(parent, records, importance)
    chosen = [choose_blocks(values, depth, *protect) for depth in depths]
    total = sum(values) or 1.0
    for kept in chosen:
        gone = [i for i in range(parent.num_blocks) if i not in set(kept)]
        share = 100 * sum(values[i] for i in gone) / total
        note(
            f"keeping {len(kept)} of {parent.num_blocks} blocks; those that go hold {share:.1f} % of the importance"
        )
    return chosen


def _depths(keep: str) -> list[int]:
    try:
        return [int(part) for part in keep.split(",")]
    except ValueError:
        raise UsageError(
            f"--keep {keep} is no number of blocks", hint="for example --keep 30 or 40,30,20"
        ) from None


def _importance(parent: Checkpoint, records: list[Record], file: Path | None) -> list[float]:
    """The importance of each block of `parent`."""
    found = load_records(file, kinds=("block",)) if file else [r for r in records if r["kind"] == "block"]
    where = str(file) if file else "the records"
    if not found:
        path = _remembered(parent)
        if path is not None:
            found, where = load_records(path, kinds=("block",)), str(path)
            note(f"using {path}, the newest importance of {parent.name} in this folder's journal")
    if not found:
        raise InputError(
            f"no importance records of {parent.path}",
            hint=f"make them: sanactl importance {parent.path} --prompts calib.txt, or name blocks with --blocks",
        )
    other = next((r for r in found if r["digest"] != parent.digest), None)
    if other is not None:
        raise InputError(
            f"{where}: the importance is of another checkpoint ({other['checkpoint']}), not of {parent.path}",
            hint="measure this one with sanactl importance",
        )
    values: dict[int, float] = {}
    for record in found:
        try:
            values[int(record["block"])] = float(record["importance"])
        except (TypeError, ValueError):
            raise InputError(
                f"{where}: block {record['block']!r} has importance {record['importance']!r}"
            ) from None
    missing = [i for i in range(parent.num_blocks) if i not in values]
    if missing or len(values) != parent.num_blocks:
        what = f"block {missing[0]} is missing" if missing else f"{len(values)} blocks"
        raise InputError(f"{where}: not one record for each of {parent.num_blocks} blocks ({what})")
    return [values[i] for i in range(parent.num_blocks)]


def _remembered(parent: Checkpoint) -> Path | None:
    """The newest file of this checkpoint's importance that the folder's journal knows."""
    for run in reversed(list(Journal().runs())):
        for output in run["outputs"]:
            if (
                isinstance(output, dict)
                and output.get("kind") == "block"
                and output.get("of") == parent.digest
            ):
                path = Path(str(output.get("path")))
                if path.exists():
                    return path
    return None
