"""Trains the built-in world's Mask2Former to find what the programmatic detector finds, at its scores.

First on renderings with faults, then on samples of training prompts, the same samples warped, and renderings. No evaluation prompt occurs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, TrainingError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record
from sanactl.world.detector_settings import DetectorTraining

if TYPE_CHECKING:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    from sanactl.training.state import TrainingState
    from sanactl.world.detector_data import Scenes
    from sanactl.world.detector_network import DetectorNetwork

__all__ = ["train_detector"]

# Shares of a batch, where there are samples: they as they are, they warped; the rest are renderings with faults.
SAMPLED_SHARE, WARPED_SHARE = 0.4, 0.4
# The share of the samples' prompts that the confidences are fitted to; the training does not use them.
KEPT_SHARE = 0.05
# Warped pictures for each sample.
WARPED_EACH = 2
# Masks' logits are multiplied by this at the end. No mask and no attention changes, for these see the sign alone; the
# mean probability inside a mask becomes nearly 1, so that an object's score is its class's probability, which is what
# was trained.
MASK_SCALE = 8.0


def train_detector(
    records: Sequence[Record] | None,
    target: Path,
    settings: DetectorTraining,
    *,
    restart: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Trains a detector and writes its folder: config, weights in fp16, preprocessor config.

    A run that was stopped goes on where its last saved state is, and ends as it would have.

    Args:
        records: `image` records of training prompts of the built-in world; None for renderings alone.
        target: the folder to write.
        restart: forget a stopped run's state.
        force: replace a target that is there.

    Returns:
        The losses of the last steps, each a mean over at most 100 steps; and with records what
        `sanactl.world.detector_confidence` fitted on those that the training did not use.

    Raises:
        InputError: a record is not usable, or another run makes the same target.
        TrainingError: the loss became NaN.
        OutputExistsError: the target is there and `force` is false.
    """
    from sanactl.files.atomic import atomic_dir, check_target
    from sanactl.training.lock import TargetLock
    from sanactl.training.state import TrainingState, identity_key
    from sanactl.world.detector_confidence import set_confidences
    from sanactl.world.detector_data import flawed_scenes, warped_scenes
    from sanactl.world.detector_model import new_detector
    from sanactl.world.detector_network import DetectorNetwork

    check_target(target, force)
    with TargetLock(target):
        check_target(target, force)
        sampled, kept = (None, None) if records is None else _split(records, progress)
        model, start = new_detector(settings.seed, **settings.sizes), None
        if settings.start is not None:
            model, start = _load(settings.start)
        pools = [flawed_scenes(settings.pool_size, settings.seed, progress)]
        if sampled is not None:
            pools += [sampled, warped_scenes(sampled, WARPED_EACH * len(sampled), settings.seed, progress)]
        pictures = "".join(pool.digest() for pool in pools)
        state = TrainingState(target, identity_key(settings.identity(start, pictures)))
        if restart:
            state.clear()
        network = DetectorNetwork(model)
        losses = _train(network, pools, settings, state, progress)
        figures = {f"{name}_loss": value for name, value in losses.items()}
        if kept is not None:
            factor, summand = set_confidences(network.model, kept)
            figures |= {"confidence_factor": factor, "confidence_summand": summand}
        with atomic_dir(target, force=force) as folder:
            write_detector(network.model.eval(), folder)
        state.clear()
        return figures


def write_detector(model: Mask2FormerForUniversalSegmentation, folder: Path) -> None:
    """Writes a detector as `sanactl.scoring.detectors.mask2former` loads it, in fp16."""
    import copy

    import torch
    from transformers.utils import logging

    from sanactl.model.saving import rewrite_weights
    from sanactl.world.detector_model import preprocessor_config

    logging.disable_progress_bar()
    model = copy.deepcopy(model)
    last = model.model.transformer_module.decoder.mask_predictor.mask_embedder.layers[-1].layers[0]
    with torch.no_grad():
        last.weight.mul_(MASK_SCALE)
        last.bias.mul_(MASK_SCALE)
    model.half().save_pretrained(folder)
    rewrite_weights(folder)
    text = json.dumps(preprocessor_config(), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _train(
    network: DetectorNetwork,
    pools: Sequence[Scenes],
    settings: DetectorTraining,
    state: TrainingState,
    progress: Progress,
) -> dict[str, float]:
    """Does the steps that are left, and saves the state from time to time."""
    import torch

    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    done = state.load(network, optimizer, None)
    for line in state.damaged:
        progress.note(f"{line}; that after step {done} is used")
    progress.start(settings.steps, "detector", done=done)
    network.train()
    for step in range(done, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        loss, parts = _step_loss(network, pools, settings, step)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} at step {step}", hint="lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        state.history.append(parts)
        shown = {
            name: f"{sum(h[name] for h in state.history[-100:]) / len(state.history[-100:]):.3f}"
            for name in parts
        }
        progress.advance(1, **shown)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            state.save(step + 1, network, optimizer, None)
    progress.close()
    last = state.history[-100:]
    return {name: sum(h[name] for h in last) / len(last) for name in last[-1]}


def _step_loss(
    network: DetectorNetwork, pools: Sequence[Scenes], settings: DetectorTraining, step: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of a step; a function of the step and the seed."""
    import numpy as np

    from sanactl.world.detector_data import joined
    from sanactl.world.detector_network import Targets

    rng = np.random.default_rng([settings.seed, step, 0xDE7])
    shares = (SAMPLED_SHARE, WARPED_SHARE) if len(pools) > 1 else ()
    others = [round(share * settings.batch_size) for share in shares]
    counts = (settings.batch_size - sum(others), *others)
    scenes = joined([p.part(rng.integers(len(p), size=n)) for p, n in zip(pools, counts, strict=True)])
    targets = Targets(scenes, rng.random(settings.batch_size) < 0.5)
    return network.loss(targets, settings.none_weight(step), settings.near_weight(step))


def _split(records: Sequence[Record], progress: Progress) -> tuple[Scenes, Scenes]:
    """The pictures to train on, and those of the last prompts, which the confidences are fitted to."""
    import numpy as np

    from sanactl.world.detector_data import record_scenes

    scenes = record_scenes(records, progress)
    prompts = list(dict.fromkeys(record["prompt"] for record in records))
    last = set(prompts[len(prompts) - round(KEPT_SHARE * len(prompts)) :])
    kept = np.array([record["prompt"] in last for record in records])
    return scenes.part(np.flatnonzero(~kept)), scenes.part(np.flatnonzero(kept))


def _load(folder: Path) -> tuple[Any, str]:
    """A detector that this module has written, in float32 with masks as in training; and its digest."""
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    from sanactl.model.files import model_files

    files = model_files(str(folder), ("mask2former",), "a detector")
    if not (folder / "preprocessor_config.json").is_file():
        raise InputError(
            f"{folder}: no detector to start from", hint="give one that make-shapes detector has written"
        )
    model = Mask2FormerForUniversalSegmentation.from_pretrained(files.folder, dtype=torch.float32)
    last = model.model.transformer_module.decoder.mask_predictor.mask_embedder.layers[-1].layers[0]
    with torch.no_grad():
        last.weight.div_(MASK_SCALE)
        last.bias.div_(MASK_SCALE)
    return model, files.digest
