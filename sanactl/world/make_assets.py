"""Makes the checked-in prompt lists: `python -m sanactl.world.make_assets` writes them into `assets/`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sanactl.shapes.prompts import Record, all_prompts
from sanactl.shapes.vocabulary import TASKS

ASSETS = Path(__file__).parents[1] / "shapes/assets"
EVAL_PER_TASK = 60
CALIB_PROMPTS = 100


def eval_prompts(seed: int = 43) -> list[Record]:
    """The evaluation prompts: 60 a task, drawn without replacement from the eval split, with ids in order."""
    rng = np.random.default_rng(seed)
    records: list[Record] = []
    for tag in TASKS:
        choices = list(all_prompts("eval", tag))
        records += [choices[i] for i in np.sort(rng.permutation(len(choices))[:EVAL_PER_TASK])]
    return [{"id": f"shapes-{i:05d}", **record} for i, record in enumerate(records)]


def calib_prompts(seed: int = 44) -> list[str]:
    """The calibration prompts: 100 of the calib split, an equal share a task where it suffices, shuffled."""
    rng = np.random.default_rng(seed)
    pools = [[r["prompt"] for r in all_prompts("calib", tag)] for tag in TASKS]
    for pool in pools:
        rng.shuffle(pool)
    texts: list[str] = []
    while len(texts) < CALIB_PROMPTS:
        texts += [pool.pop() for pool in pools if pool][: CALIB_PROMPTS - len(texts)]
    rng.shuffle(texts)
    return texts


def write(folder: Path = ASSETS) -> None:
    """Writes `eval.jsonl` and `calib.txt`, UTF-8 with a newline after every line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in eval_prompts()]
    (folder / "eval.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    (folder / "calib.txt").write_bytes(("\n".join(calib_prompts()) + "\n").encode())


if __name__ == "__main__":
    write()
