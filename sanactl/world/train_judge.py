"""Trains the built-in world's judge: a small LLaVA that answers SaVILA's dialogue (SANA-1.5, section 2.5, appendix B).

The labels are the detector's under GenEval's rules, as in the paper, and no prompt of the evaluation set occurs. What
differs is the scale: the paper fine-tunes a pretrained vision-language model, this one is trained from random weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, TrainingError
from sanactl.files.paths import utf8_name
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record, dumps
from sanactl.world.judge_settings import JudgeTraining

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from sanactl.training.state import TrainingState
    from sanactl.world.judge_network import JudgeNetwork
    from sanactl.world.judge_pool import Pool

__all__ = ["new_judge", "train_judge"]

# The share of the prompts of labelled records that is kept from training and measured at the end.
HELD_OUT = 0.15
# The share of labelled records in a batch, where there are any. The rest are faulty renderings, so that the judge does not
# learn only the faults of one sampler.
SAMPLED_SHARE = 0.6
# Weight of an image's own prompt among its questions once images are sampled: it is what the judge will be asked.
OWN_WEIGHT = 3.0
_HELD_OUT_RENDERED = 1000  # pictures for the measurement where there are no records


def new_judge(seed: int = 0, **sizes: int) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A judge with random weights, and its processor; `sizes` are those of `judge_config`."""
    import torch
    from transformers import LlavaForConditionalGeneration

    from sanactl.judging.dialogue import AFTER_PROMPT, ANSWERS, BEFORE_IMAGE, BEFORE_PROMPT
    from sanactl.world.judge_model import build_processor, build_tokenizer, judge_config

    torch.manual_seed(seed)
    tokenizer = build_tokenizer((BEFORE_IMAGE, BEFORE_PROMPT, AFTER_PROMPT), ANSWERS)
    model = LlavaForConditionalGeneration(judge_config(len(tokenizer), **sizes))
    return model, build_processor(tokenizer)


def train_judge(
    records: Sequence[Record] | None,
    target: Path,
    settings: JudgeTraining,
    *,
    restart: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Trains a judge and writes its folder (model in bfloat16, and processor).

    First the vision tower alone learns to say what is where; then all of it, on several questions an image. A run
    that was stopped goes on where its last saved state is, and ends as it would have.

    Args:
        records: `image` records of the built-in world with GenEval's `tag` and `include`, the samples that the judge
            is for; or None to learn from rendered pictures with faults alone.
        target: the folder to write.
        restart: forget a stopped run's state.
        force: replace a target that is there.

    Returns:
        On held-out images of held-out prompts: `balanced_accuracy`, `auc`, `accuracy` and the accuracy of each task
        (on own prompts where there are records, else on all questions); with records also `one`, `best` and `ceiling`:
        the share of right images if one is taken at random, if the judge picks, and if the detector does, and
        `gap_closed`, the judge's share of the way from the first to the last.

    Raises:
        InputError: a record is not usable, or holds a prompt that is not for training.
        TrainingError: the loss became NaN.
        OutputExistsError: the target is there and `force` is false.
        InputError: another run makes the same target right now, or all saved states are damaged.
    """
    from sanactl.files.atomic import atomic_dir, check_target

    check_target(target, force)
    import torch

    from sanactl.judging.backends.labels import LABELS
    from sanactl.model.saving import rewrite_weights
    from sanactl.shapes.detector import DETECTOR_VERSION
    from sanactl.training.lock import TargetLock
    from sanactl.training.state import TrainingState, identity_key
    from sanactl.world.judge_measure import measure
    from sanactl.world.judge_network import JudgeNetwork

    with TargetLock(target):
        check_target(target, force)
        start = settings.start
        model, processor = new_judge(settings.seed, **settings.sizes) if start is None else _load(start)
        pools = _pools(records, settings, progress)
        network = JudgeNetwork(model, processor.tokenizer)
        state = TrainingState(target, identity_key(settings.identity(pools.images)))
        if restart:
            state.clear()
        _train(network, pools, settings, state, progress)
        network.eval()
        figures = measure(network, pools.held_out, own=pools.sampled is not None, seed=settings.seed)
        with atomic_dir(target, force=force) as folder:
            network.model.config.update({LABELS: DETECTOR_VERSION})
            network.model.to(torch.bfloat16).save_pretrained(folder)
            with utf8_name(folder) as place:
                processor.save_pretrained(place)
            rewrite_weights(folder)
        state.clear()
        return figures


@dataclass(frozen=True)
class _Pools:
    """What a judge learns from: rendered pictures, sampled images or None, and what is kept for the measurement.

    `images` is a digest of the labelled images, None without them.
    """

    rendered: Pool
    sampled: Pool | None
    held_out: Pool
    images: str | None


def _pools(records: Sequence[Record] | None, settings: JudgeTraining, progress: Progress) -> _Pools:
    from sanactl.world.judge_pool import flawed_pool, record_pool

    sampled = None if records is None else record_pool(records, progress)
    size = settings.pool_size
    rendered = flawed_pool(size + _HELD_OUT_RENDERED, settings.seed, progress)
    first, last = rendered.part(range(size)), rendered.part(range(size, len(rendered)))
    if sampled is None:
        return _Pools(first, None, last, None)
    held = [i for i, r in enumerate(sampled.records) if _held_out(r)]
    kept = [i for i, r in enumerate(sampled.records) if not _held_out(r)]
    if not held or not kept:
        raise InputError(
            "too few prompts among the image records to keep some from training", hint="sample more"
        )
    return _Pools(first, sampled.part(kept), sampled.part(held), _pool_digest(sampled))


def _train(
    network: JudgeNetwork, pools: _Pools, settings: JudgeTraining, state: TrainingState, progress: Progress
) -> None:
    """Does the steps that are left, and saves the state from time to time."""
    import torch

    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    done = state.load(network, optimizer, None)
    for line in state.damaged:
        progress.note(f"{line}; that after step {done} is used")
    total = settings.warmup_steps + settings.steps
    progress.start(total, "judge", done=done)
    network.train()
    for step in range(done, total):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        loss, fields = _step_loss(network, pools, settings, step)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the judge's loss is {loss.item()} at step {step}", hint="lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        progress.advance(1, loss=f"{loss.item():.3f}", **fields)
        if (step + 1) % settings.save_every == 0 or step + 1 == total:
            state.save(step + 1, network, optimizer, None)
    progress.close()


def _step_loss(
    network: JudgeNetwork, pools: _Pools, settings: JudgeTraining, step: int
) -> tuple[torch.Tensor, dict[str, str]]:
    """The loss of a step and what to show of it; a function of the step and the seed."""
    import numpy as np
    import torch

    from sanactl.world.judge_network import pixels
    from sanactl.world.judge_questions import ask

    rng = np.random.default_rng([settings.seed, step, 0x3D6E])
    sampled = pools.sampled
    from_samples = 0 if sampled is None else round(SAMPLED_SHARE * settings.batch_size)
    views = []
    for pool, count in ((pools.rendered, settings.batch_size - from_samples), (sampled, from_samples)):
        if pool is not None:
            views += [pool.view(int(rng.integers(len(pool))), bool(rng.random() < 0.5)) for _ in range(count)]
    # bf16 takes a fifth of the time where the CPU has AMX; weights, the losses and the optimizer are fp32.
    with torch.autocast("cpu", torch.bfloat16):
        patches = network.see(pixels(views))
        dense = network.dense_loss(patches, views)
        if step < settings.warmup_steps:
            return dense, {}
        asked = [ask(view, settings.questions, rng) for view in views]
        loss, right = network.question_loss(patches, asked, 1.0 if sampled is None else OWN_WEIGHT)
    return loss + 0.3 * dense, {"right": f"{right:.2f}"}


def _held_out(record: Record) -> bool:
    digest = hashlib.sha256(f"judge held out|{record['prompt']}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT


def _pool_digest(pool: Pool) -> str:
    """What images and prompts a run learns from, wherever their files lie."""
    digest = hashlib.sha256(pool.images.tobytes())
    for record in pool.records:
        known = {key: value for key, value in record.items() if key not in ("path", "checkpoint")}
        digest.update(dumps(known).encode() + b"\n")
    return digest.hexdigest()


def _load(folder: Path) -> tuple[Any, Any]:
    """A judge that this module has written, in float32."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from sanactl.model.tensors import own_memory

    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no judge to start from", hint="give a folder that train-judge has written"
        )
    model = LlavaForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32)
    own_memory(model)
    with utf8_name(folder) as place:
        return model, AutoProcessor.from_pretrained(place)
