"""Measuring `grow` and `prune` on the published shapes, compared with `cp` and the usual scripts; and the start-up.

All contenders of a task in turn write one output of the same size. The time ends when the output's bytes are on the disk
(`fsync`), as sanactl guarantees. Two rows are "not flushed": plain `cp`, and sanactl without its flush and without direct
writes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sanactl.bench.surgery_scripts import DIFFUSERS, SAFETENSORS, UNFLUSHED
from sanactl.bench.synthetic import SANA_1_6B, compare, measure, remove, synthetic_plan
from sanactl.checkpoint.write import PlannedTensor, Zeros, write_checkpoint
from sanactl.errors import SanactlError
from sanactl.files.atomic import scratch_folder
from sanactl.files.progress import SILENT, Progress
from sanactl.records.scores import new_score

__all__ = ["Shape", "bench_surgery"]

Command = Callable[[Path], Sequence[str]]


@dataclass(frozen=True)
class Shape:
    """Blocks of each checkpoint; at scale 1 those of SANA 1.6B (20) and SANA-1.5 4.8B (60), pruned to 30.

    Attributes:
        base: number of blocks of the checkpoint that is grown.
        dropped: number of its last blocks that are removed first: a tenth, as in the paper.
        deep: number of blocks after growing, and before pruning.
        pruned: number of blocks after pruning.
    """

    base: int
    dropped: int
    deep: int
    pruned: int

    @classmethod
    def at(cls, scale: float) -> Shape:
        base = max(2, round(20 * scale))
        return cls(base, round(base / 10), 3 * base, max(1, round(1.5 * base)))


def bench_surgery(
    folder: Path,
    scale: float = 1.0,
    rounds: int = 3,
    diffusers: bool = True,
    config: Mapping[str, Any] = SANA_1_6B,
    progress: Progress = SILENT,
) -> Iterator[dict[str, Any]]:
    """Measure the start-up, then `grow` and `prune` at half of `scale` and at `scale`, in bf16.

    The files take up to about four times the grown checkpoint's 9.4 GB x `scale`. They are in a new folder inside
    `folder`, which is always removed at the end.

    Args:
        folder: a folder on the disk to be measured.
        scale: a factor for the numbers of blocks.
        rounds: number of runs of each contender; start-up has five times as many.
        diffusers: also measure the diffusers script, which loads the whole model.
        config: of the transformer; its number of blocks is ignored.
        progress: gets each run.

    Yields:
        a score record for each contender: metric "bench_surgery", task, contender, blocks [before, after], output_bytes,
        seconds (median), fastest, cpu_seconds, peak_mb, gb_per_second, and value: the median over the rounds of its time
        divided by the time of the task's first contender.

    Raises:
        SanactlError: there is not enough space, or a contender failed.
    """
    shapes = [Shape.at(scale / 2), Shape.at(scale)]
    if shapes[0] == shapes[1]:
        del shapes[0]
    _check_space(folder, synthetic_plan({**config, "num_layers": shapes[-1].deep}, "BF16").nbytes)
    progress.start(None, "measuring")
    try:
        with scratch_folder(folder / "bench") as place:
            yield from _start_up(place, rounds * 5, config, progress)
            for shape in shapes:
                whole = shape == shapes[-1]
                yield from _surgery(place, shape, rounds, config, diffusers and whole, whole, progress)
    finally:
        progress.close()


def _check_space(folder: Path, deep: int) -> None:
    free, need = shutil.disk_usage(folder).free, int(4.2 * deep)
    if need > free:
        raise SanactlError(
            f"no space left in {folder}: {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free",
            hint="choose a smaller --scale, or another disk with --folder",
        )


def _start_up(
    place: Path, rounds: int, config: Mapping[str, Any], progress: Progress
) -> Iterator[dict[str, Any]]:
    plan = synthetic_plan({**config, "num_layers": 60}, "BF16")
    holes = {name: PlannedTensor(t.dtype, t.shape, Zeros()) for name, t in plan.tensors.items()}
    deep = write_checkpoint(replace(plan, tensors=holes), place / "holes.st")
    python = sys.executable
    contenders = {
        "import typer, rich": [python, "-c", "import typer, rich"],
        "sanactl --help": [python, "-m", "sanactl", "--help"],
        "sanactl inspect, 60 blocks": [python, "-m", "sanactl", "inspect", str(deep)],
    }
    for command in contenders.values():
        measure(command, place)  # the first run compiles
    for row in compare(
        {name: partial(_same, c) for name, c in contenders.items()}, place / "none", rounds, _tick(progress)
    ):
        del row["gb_per_second"], row["bytes"]
        yield _record("start-up", row)
    remove(deep)


def _surgery(
    place: Path,
    shape: Shape,
    rounds: int,
    config: Mapping[str, Any],
    diffusers: bool,
    every: bool,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Both tasks at one size; `every` contender, or only `cp` and sanactl."""
    base, deep = place / "base", place / "deep"
    for source, blocks in ((base, shape.base), (deep, shape.deep)):
        plan = synthetic_plan({**config, "num_layers": blocks}, "BF16")
        write_checkpoint(plan, source, shard_size="1TB")
    weights = "diffusion_pytorch_model.safetensors"
    kept = ",".join(str(number * shape.deep // shape.pruned) for number in range(shape.pruned))
    grow = ["grow", "--to", str(shape.deep), "--drop-last", str(shape.dropped), str(base)]
    prune = ["prune", "--blocks", kept, str(deep)]
    for task, arguments, source, to, dense in (
        ("grow", grow, base, shape.deep, deep / weights),
        ("prune", prune, deep, shape.pruned, place / "pruned.st"),
    ):
        made = place / ("grown.st" if task == "grow" else "pruned.st")
        measure(_sanactl(arguments, made), place)
        contenders: dict[str, Command] = {"cp": partial(_cp, dense), "sanactl": partial(_sanactl, arguments)}
        if every:
            if task == "grow":
                contenders["cp of the output, holes kept"] = partial(_cp, made)
            contenders["cp, not flushed"] = partial(_cp, dense, flush=False)
            contenders["sanactl, not flushed"] = partial(_script, UNFLUSHED, arguments)
            numbers = [task, str(source), str(to), str(shape.dropped), kept]
            contenders["safetensors script"] = partial(_script, SAFETENSORS, numbers)
            if diffusers:
                contenders["diffusers script"] = partial(_script, DIFFUSERS, numbers)
        before = shape.base if task == "grow" else shape.deep
        for row in compare(contenders, place / "target.st", rounds, _tick(progress)):
            yield _record(task, row, blocks=[before, to], output_bytes=row.pop("bytes"))
        remove(made)
    remove(base)
    remove(deep)


def _record(task: str, row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    rounded = {key: round(value, 4) for key, value in row.items() if isinstance(value, float)}
    ratio = rounded.pop("ratio")
    return new_score("bench_surgery", ratio, task=task, contender=row["name"], **fields, **rounded)


def _tick(progress: Progress) -> Callable[[str], None]:
    return lambda name: progress.advance(1)


def _same(command: Sequence[str], target: Path) -> Sequence[str]:
    return command


def _cp(source: Path, target: Path, flush: bool = True) -> list[str]:
    return ["sh", "-c", 'cp "$0" "$1"' + (' && sync "$1"' if flush else ""), str(source), str(target)]


def _sanactl(arguments: Sequence[str], target: Path) -> list[str]:
    return [sys.executable, "-m", "sanactl", *arguments, "-o", str(target)]


def _script(code: str, arguments: Sequence[str], target: Path) -> list[str]:
    return [sys.executable, "-c", code, *arguments, "-o", str(target)]
