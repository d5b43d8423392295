"""The whole method on the built-in world, as in recipes/quickstart.sh but with longer trainings: grow, train, measure, prune,
recover, sample, judge, score. Each step gives a row; a run that was cut goes on after the last step that it finished.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from sanactl.bench.rows import Rows, read_rows

__all__ = ["SMALL_WORLD", "World", "measure_world", "provide_packages"]

T = TypeVar("T")
TABLE = "the built-in world"
# Packages that stand in for accelerate, psutil and pyarrow where these are not installed.
_STAND_INS = Path(__file__).parents[2] / "recipes" / "gpu_check"


@dataclass(frozen=True)
class World:
    """How much is done.

    Attributes:
        blocks: of the grown model; the base has 10.
        prompts: of each score, one image each.
        batch: images a training step.
        train_seconds: of the training of the grown model, and of the longer recovery.
        most_steps: of such a training.
        recovery: steps of the short recovery; the paper's are 100.
        choice: prompts, and images of each, for choosing the best by the judge.
        sampling_steps: denoising steps; None is the checkpoint's own number.
    """

    blocks: int = 30
    prompts: int = 360
    batch: int = 64
    train_seconds: float = 45
    most_steps: int = 2000
    recovery: int = 100
    choice: tuple[int, int] = (48, 16)
    sampling_steps: int | None = None


SMALL_WORLD = World(12, prompts=2, batch=2, train_seconds=0, recovery=1, choice=(1, 2), sampling_steps=2)
# Steps of a training that only shows the pace.
_TRIAL = 8


def provide_packages() -> None:
    """Let packages for one process be found that are not installed (see recipes/gpu_check)."""
    if str(_STAND_INS) not in sys.path and _STAND_INS.is_dir():
        sys.path.append(str(_STAND_INS))


def measure_world(rows: Rows, device: torch.device, folder: Path, world: World) -> None:
    """Adds rows to the table "the built-in world".

    Scores are GenEval's, by the built-in detector, on the built-in evaluation prompts, with the 95 % interval. The detector
    needs scipy; without it `images` names a file for `sanactl eval geneval` on another machine. `judge` is the mean of
    the built-in judge's probability that an image fits its prompt, which needs no other package.

    Args:
        folder: of checkpoints and images.
    """
    provide_packages()
    import sanactl
    from sanactl.checkpoint.builtin import asset

    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(rows, device, folder, world)
    base = asset("base.st")
    run.score("base", base)
    grown = run.make("grow", "grown.st", lambda out: sanactl.grow(base, to=world.blocks, output=out))
    trained = run.train("train the grown model", grown, "trained.st", optimizer="adamw", lr=5e-4)
    run.score("grown and trained", trained)
    blocks = run.make(
        "importance",
        "importance.jsonl",
        lambda out: sanactl.importance(trained, output=out, device=device, steps=world.sampling_steps),
    )
    pruned = run.make(
        "prune", "pruned.st", lambda out: sanactl.prune(trained, keep=10, importance=blocks, output=out)
    )
    run.score("pruned", pruned)
    short = run.train("recover", pruned, "recovered.st", steps=world.recovery)
    run.score(f"recovered, {world.recovery} steps", short)
    run.score("recovered longer", run.train("recover longer", pruned, "longer.st"))
    run.choose(short)


class _Run:
    """The steps of one run."""

    def __init__(self, rows: Rows, device: torch.device, folder: Path, world: World) -> None:
        self.rows, self.device, self.folder, self.world = rows, device, folder, world

    def make(self, step: str, name: str, write: Callable[[Path], Any]) -> Path:
        """The file, written by `write` if it is not there yet."""
        path = self.folder / name
        if not path.exists():
            began = time.perf_counter()
            write(path)
            self.rows.add(TABLE, step=step, seconds=time.perf_counter() - began)
        return path

    def train(self, step: str, source: Path, name: str, *, steps: int | None = None, **settings: Any) -> Path:
        """The trained checkpoint. Without a number of steps it trains as many as fit in `World.train_seconds`."""
        import sanactl

        path = self.folder / name
        if path.exists():
            return path
        common = {"batch_size": self.world.batch, "device": self.device, **settings}
        if steps is None:
            pace = self._pace(source, common)
            steps = min(self.world.most_steps, max(1, int(self.world.train_seconds * pace)))
        losses: list[float] = []
        began = time.perf_counter()
        sanactl.finetune(
            source,
            steps=steps,
            output=path,
            save_every=500,
            on_step=lambda point: losses.append(float(point["loss"])),
            **common,
        )
        seconds = time.perf_counter() - began
        self.rows.add(
            TABLE,
            step=f"{step}, {steps} steps of {self.world.batch}",
            seconds=seconds,
            images_per_second=steps * self.world.batch / seconds,
            loss=statistics.fmean(losses[-50:]),
        )
        return path

    def _pace(self, source: Path, settings: Mapping[str, Any]) -> float:
        """Steps a second, without those of the start."""
        import sanactl

        times: list[float] = []
        sanactl.finetune(
            source,
            steps=_TRIAL,
            output=self.folder / "trial.st",
            force=True,
            on_step=lambda point: times.append(time.perf_counter()),
            **settings,
        )
        half = _TRIAL // 2
        return (_TRIAL - 1 - half) / (times[-1] - times[half])

    def score(self, name: str, checkpoint: Path) -> None:
        """Draw an image of each prompt, judge and score them."""
        self._scored(name, checkpoint, self.world.prompts, 1)

    def choose(self, checkpoint: Path) -> None:
        """Draw several images of each prompt; score all of them, and those that the judge takes."""
        prompts, count = self.world.choice
        self._scored(f"{count} images a prompt", checkpoint, prompts, count)

    def _scored(self, name: str, checkpoint: Path, prompts: int, count: int) -> None:
        import sanactl

        step = f"{name}: {prompts * count} images"
        if any(row.get("step") == step for row in read_rows(self.rows.file)):
            return
        out = self.folder / f"{name.replace(' ', '-').replace(',', '')}-images"
        began = time.perf_counter()
        images = sanactl.sample(
            checkpoint,
            limit=prompts,
            count=count,
            device=self.device,
            output=out,
            steps=self.world.sampling_steps,
        )
        drawn = time.perf_counter()
        judged = sanactl.judge(
            images, all=True, device=self.device, no_cache=True, output=out / "judged.jsonl", force=True
        )
        seconds = time.perf_counter() - drawn
        self.rows.add(
            TABLE,
            step=step,
            seconds=drawn - began,
            images_per_second=len(images) / (drawn - began),
            judge_seconds=seconds,
            judge=_mean(judged),
            **_geneval(judged, out),
        )
        if count > 1:
            best = [record for record in judged if record["rank"] == 0]
            self.rows.add(
                TABLE, step=f"the judge's choice of {count}", judge=_mean(best), **_geneval(best, out)
            )


def _mean(judged: Sequence[Mapping[str, Any]]) -> float:
    return statistics.fmean(float(record["calibrated"]) for record in judged)


def _geneval(records: Sequence[Any], folder: Path) -> dict[str, Any]:
    """The score and its interval, or where the images are."""
    import sanactl

    if importlib.util.find_spec("scipy") is None:
        return {"images": f"{folder.name}/judged.jsonl"}
    score: Any = next(r for r in sanactl.evaluate(list(records), "geneval") if r["kind"] == "score")
    low, high = score["ci"] or (None, None)
    return {"geneval": float(score["value"]), "low": low, "high": high}
