"""What can be bought: checkpoints with a number of steps and a judge, as scored images or scaling scores know them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.records.records import Record
from sanactl.scoring.geneval.pools import Pools, read_pools

__all__ = ["SCALING", "Setup", "depth_of", "on_the_same_prompts", "read_setups"]

SCALING = ("scaling", "first_hit")
# What tells one setup from another; images of two settings are never one pool.
_KEY = ("checkpoint", "digest", "steps", "guidance_scale", "height", "width", "judge")
_NEEDED = (
    *_KEY, "path", "prompt", "prompt_id", "id", "tag", "samples", "correct", "rank", "judge_score", "verdict", "flops",
    "judge_flops",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """A checkpoint, its number of steps, and a judge.

    Attributes:
        about: `checkpoint`, `digest`, `steps`, `judge`, as far as they are known.
        pools: its images; None where only scores are known.
        scores: its scaling scores, where its images are not known.
        folders: where its images are.
        blocks: transformer blocks of the checkpoint; None where it is gone.
    """

    about: Mapping[str, Any]
    pools: Pools | None = None
    scores: Sequence[Record] = ()
    folders: Mapping[str, int] | None = None
    blocks: int | None = None

    @property
    def prompts(self) -> str:
        """A fingerprint of the prompts that it was measured on."""
        if self.pools is not None:
            return self.pools.digest()
        return str(self.scores[0].get("prompts_digest") or f"{self.scores[0].get('prompts')} prompts")

    def __str__(self) -> str:
        steps = self.about.get("steps")
        return f"{self.about.get('checkpoint') or 'a checkpoint'}{f', {steps} steps' if steps else ''}"


def read_setups(records: Iterable[Record], tell: Callable[[str], None]) -> list[Setup]:
    """The setups of scored images; of scaling scores where the images of a setup are not among the records.

    Args:
        records: image and score records, in any order. Of images only the fields that are needed are held.
        tell: called with a line about what is left out.

    Raises:
        InputError: there is no scored image and no scaling score.
    """
    images: dict[tuple[Any, ...], dict[str, Record]] = {}
    scores: dict[tuple[Any, ...], dict[str, Record]] = {}
    unscored = 0
    for record in records:
        if record["kind"] == "image" and isinstance(record.get("correct"), bool):
            kept = {field: record[field] for field in _NEEDED if record.get(field) is not None}
            images.setdefault(tuple(kept.get(f) for f in _KEY), {})[record["path"]] = kept
        elif record["kind"] == "image":
            unscored += 1
        elif record["metric"] in SCALING and isinstance(record.get("curves"), dict):
            key = tuple(record.get(f) for f in ("checkpoint", "digest", "steps", "judge"))
            scores.setdefault(key, {})[record["metric"]] = record
    setups = [found for mine in images.values() if (found := _of_images(list(mine.values()), tell))]
    known = {tuple(s.about.get(f) for f in ("checkpoint", "digest", "steps", "judge")) for s in setups}
    setups += [
        Setup(_about(next(iter(mine.values()))), scores=list(mine.values()))
        for key, mine in scores.items()
        if key not in known
    ]
    if not setups:
        raise InputError(
            "no scored images and no scaling scores" + (", only images without scores" if unscored else ""),
            hint="sanactl sample -n 16 | sanactl judge --all | sanactl eval geneval -o scaling.jsonl",
        )
    return setups


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    return {f: record[f] for f in ("checkpoint", "digest", "steps", "judge") if record.get(f) is not None}


def _of_images(records: list[Record], tell: Callable[[str], None]) -> Setup | None:
    from sanactl.scoring.geneval.scores import unselected

    if not unselected(records):
        tell(
            f"{Setup(_about(records[0]))}: not all images of each prompt are here, and the best of fewer cannot be told"
            " from winners; left out (judge --all passes all on)"
        )
        return None
    folders: dict[str, int] = {}
    for record in records:
        # A sample folder's images are FOLDER/PROMPT/samples/NAME.
        parents = Path(record["path"]).parents
        if len(parents) > 2:
            folders[str(parents[2])] = folders.get(str(parents[2]), 0) + 1
    return Setup(_about(records[0]), pools=read_pools(records), folders=folders)


def on_the_same_prompts(setups: Sequence[Setup], tell: Callable[[str], None]) -> list[Setup]:
    """The setups on the prompts that all of them have.

    Raises:
        InputError: they have none in common, or scores without images are of other prompts.
    """
    pools = [s.pools for s in setups if s.pools is not None]
    if pools:
        names = [{(pool.tag, pool.name) for pool in each.pools} for each in pools]
        common = set.intersection(*names)
        if not common:
            raise InputError(
                "the images are of different prompts, and scores of different prompts do not compare",
                hint="sample each checkpoint with the same prompts",
            )
        if any(len(each) > len(common) for each in names):
            tell(f"compared on the {len(common)} prompts that all have; the others are left out")
        setups = [s if s.pools is None else replace(s, pools=s.pools.only(common)) for s in setups]
    for setup in setups[1:]:
        if setup.prompts != setups[0].prompts:
            raise InputError(
                f"{setup} and {setups[0]} were scored on different prompts, which does not compare",
                hint="score each checkpoint on the same prompts",
            )
    return list(setups)


def depth_of(checkpoint: object) -> int | None:
    """Blocks of a checkpoint, from its header; None where it is not there."""
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.errors import SanactlError

    if not isinstance(checkpoint, str) or not Path(checkpoint).exists():
        return None
    try:
        return open_checkpoint(checkpoint, native=True).num_blocks
    except (SanactlError, OSError):
        return None
