"""Trains the built-in world's judge: a small LLaVA that answers SaVILA's dialogue (SANA-1.5, section 2.5, appendix B).

The labels are the detector's under GenEval's rules, as in the paper, and no prompt of the evaluation set occurs. What
differs is the scale: the paper fine-tunes a model that can see; this one learns to see first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, TrainingError, UsageError
from sanactl.files.content import files_digest
from sanactl.files.paths import utf8_name
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record, dumps

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from sanactl.world.judge_network import JudgeNetwork
    from sanactl.world.judge_pool import Pool

__all__ = ["new_judge", "train_judge"]

# The share of the prompts of labelled records that is kept from training and measured at the end.
HELD_OUT = 0.15
# The share of a batch that is labelled records where there are any; the rest are faulty renderings, which keep the
# judge from learning what this one sampler finds hard.
SAMPLED_SHARE = 0.6
# Weight of an image's own prompt among its questions once images are sampled: it is what the judge will be asked.
OWN_WEIGHT = 3.0
WARMUP_RATIO = 0.03  # the paper's, appendix B
# Raised whenever the same settings give other steps than before: saved states of the old ones are not these.
_ARITHMETIC = 2


def new_judge(seed: int = 0, **sizes: int) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A judge that knows nothing yet, and its processor; `sizes` are those of `judge_config`."""
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
    *,
    start: Path | None = None,
    warmup_steps: int = 2000,
    steps: int = 4000,
    batch_size: int = 32,
    questions: int = 8,
    learning_rate: float = 2e-3,
    pool_size: int = 24_000,
    seed: int = 0,
    save_every: int = 200,
    restart: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    **sizes: int,
) -> dict[str, float]:
    """Trains a judge and writes its folder (model in bfloat16, and processor).

    First the vision tower alone learns to say what is where (`warmup_steps`); then all of it, on several questions
    an image (`steps`). A run that was stopped goes on where its last saved state is, and ends as it would have.

    Args:
        records: `image` records of the built-in world with GenEval's `tag` and `include`, the samples that the judge
            is for; or None to learn from rendered pictures with faults alone.
        target: the folder to write.
        start: a judge to go on from, in place of a new one.
        batch_size, questions: images a step, questions an image; half of them right where that is possible.
        pool_size: rendered pictures to draw from, made anew at the start (about 4 ms each).
        save_every: steps between saved states.
        restart: forget a stopped run's state.
        sizes: of a new model, see `judge_config`.

    Returns:
        On held-out images of held-out prompts: `balanced_accuracy`, `auc`, `accuracy` and the accuracy of each task
        (on own prompts where there are records, else on all questions); with records also `one`, `best` and `ceiling`:
        the share of right images if one is taken at random, if the judge picks, and if the detector does, and
        `gap_closed`, the judge's share of the way from the first to the last.

    Raises:
        InputError: a record is not usable, or holds a prompt that is not for training.
        TrainingError: the loss became NaN.
        UsageError: a number makes no sense.
        OutputExistsError: the target is there and `force` is false.
        InputError: another run makes the same target right now, or all saved states are damaged.
    """
    from sanactl.files.atomic import atomic_dir, check_target

    counts = (batch_size, questions, pool_size, save_every)
    if min(counts) < 1 or min(warmup_steps, steps) < 0 or not 0 < learning_rate < math.inf:
        raise UsageError("sizes, steps and the learning rate of train-judge must be positive")
    check_target(target, force)
    import torch

    from sanactl.model.saving import rewrite_weights
    from sanactl.training.lock import TargetLock
    from sanactl.training.state import TrainingState, identity_key
    from sanactl.world.judge_network import JudgeNetwork
    from sanactl.world.judge_pool import flawed_pool, record_pool

    with TargetLock(target):
        check_target(target, force)
        model, processor = new_judge(seed, **sizes) if start is None else _load(start)
        sampled = None if records is None else record_pool(records, progress)
        images = None if sampled is None else _pool_digest(sampled)
        rendered = flawed_pool(pool_size + _HELD_OUT_RENDERED, seed, progress)
        held_rendered = rendered.part(range(pool_size, len(rendered)))
        rendered = rendered.part(range(pool_size))
        held_sampled = None
        if sampled is not None:
            held = [i for i, r in enumerate(sampled.records) if _held_out(r)]
            kept = [i for i, r in enumerate(sampled.records) if not _held_out(r)]
            if not held or not kept:
                raise InputError(
                    "too few prompts among the image records to keep some from training", hint="sample more"
                )
            sampled, held_sampled = sampled.part(kept), sampled.part(held)

        network = JudgeNetwork(model, processor.tokenizer)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        identity = {
            "warmup": warmup_steps, "steps": steps, "batch": batch_size, "questions": questions, "lr": learning_rate,
            "pool": pool_size, "seed": seed, "sizes": sizes, "start": start and _content(start), "images": images,
            "arithmetic": _ARITHMETIC,
        }  # fmt: skip
        state = TrainingState(target, identity_key(identity))
        if restart:
            state.clear()
        done = state.load(network, optimizer, None)
        for line in state.damaged:
            progress.note(f"{line}; that after step {done} is used")
        total = warmup_steps + steps
        progress.start(total, "judge", done=done)
        network.train()
        for step in range(done, total):
            warm = step < warmup_steps
            at, length = (step, warmup_steps) if warm else (step - warmup_steps, steps)
            rate = learning_rate * _schedule(at, length)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, fields = _step_loss(
                network, rendered, sampled, step, seed, batch_size, 0 if warm else questions
            )
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the judge's loss is {loss.item()} at step {step}", hint="lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            progress.advance(1, loss=f"{loss.item():.3f}", **fields)
            if (step + 1) % save_every == 0 or step + 1 == total:
                state.save(step + 1, network, optimizer, None)
        progress.close()

        from sanactl.world.judge_measure import measure

        network.eval()
        figures = measure(network, held_sampled or held_rendered, own=held_sampled is not None, seed=seed)
        with atomic_dir(target, force=force) as folder:
            network.model.to(torch.bfloat16).save_pretrained(folder)
            with utf8_name(folder) as place:
                processor.save_pretrained(place)
            rewrite_weights(folder)
        state.clear()
        return figures


_HELD_OUT_RENDERED = 1000


def _step_loss(
    network: JudgeNetwork,
    rendered: Pool,
    sampled: Pool | None,
    step: int,
    seed: int,
    batch_size: int,
    questions: int,
) -> tuple[torch.Tensor, dict[str, str]]:
    """The loss of a step and what to show of it; a function of the step and the seed. `questions` 0: the tower alone."""
    import numpy as np
    import torch

    from sanactl.world.judge_network import pixels
    from sanactl.world.judge_questions import ask

    rng = np.random.default_rng([seed, step, 0x3D6E])
    from_samples = 0 if sampled is None else round(SAMPLED_SHARE * batch_size)
    views = []
    for pool, count in ((rendered, batch_size - from_samples), (sampled, from_samples)):
        if pool is not None:
            views += [pool.view(int(rng.integers(len(pool))), bool(rng.random() < 0.5)) for _ in range(count)]
    # bf16 takes a fifth of the time where the CPU has AMX; master weights, heads' losses and the optimizer are fp32.
    with torch.autocast("cpu", torch.bfloat16):
        patches = network.see(pixels(views))
        dense = network.dense_loss(patches, views)
        if not questions:
            return dense, {}
        asked = [ask(view, questions, rng) for view in views]
        loss, right = network.question_loss(patches, asked, 1.0 if sampled is None else OWN_WEIGHT)
    return loss + 0.3 * dense, {"right": f"{right:.2f}"}


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 at the last step."""
    warm = max(1, min(200, round(WARMUP_RATIO * steps)))
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step + 1 - warm) / max(steps - warm, 1))


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


def _content(folder: Path) -> str:
    """What the files of a judge to start from hold, wherever it lies."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return files_digest(files, "\n".join(path.name for path in files))


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
