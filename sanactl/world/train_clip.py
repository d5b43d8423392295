"""Trains the built-in world's CLIP to tell colours: transformers' CLIPModel on crops of objects, with the programmatic
detector's colours.

The crops and the texts are those of `sanactl.scoring.detectors.clip_colors`: the box, grey outside the mask, and
three templates for each of GenEval's colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.paths import utf8_name
from sanactl.files.progress import SILENT, Progress
from sanactl.records.records import Record
from sanactl.world.detector_settings import check_numbers, schedule

if TYPE_CHECKING:
    import torch
    from transformers import CLIPModel, PreTrainedTokenizerFast

    from sanactl.training.state import TrainingState
    from sanactl.world.detector_data import Scenes

__all__ = ["new_clip", "train_clip"]

CROP_SIZE = 32  # px
# The factor of cosines in training, and in the model that is written. It is not trained.
SCALE = 30.0
BATCH_SIZE = 64  # crops
LEARNING_RATE = 2e-3  # the largest
# Crops of objects with a lower score are left out.
LEAST = 0.3
SAVE_EVERY = 100  # steps


def new_clip(seed: int = 0) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """A CLIP of two layers in both towers with random weights, and its tokenizer (words of the world's prompts)."""
    import math

    import torch
    from transformers import CLIPConfig, CLIPModel

    from sanactl.world.text_model import build_tokenizer

    torch.manual_seed(seed)
    # transformers takes an end token of number 2 for that of its earliest configs, and then looks elsewhere.
    tokenizer = build_tokenizer(("colored", "object", "-"), ("<pad>", "<unk>", "<bos>", "<eos>"))
    tower: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
    }
    ends: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**tower, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 32},
        vision_config={**tower, "image_size": CROP_SIZE, "patch_size": 8},
        projection_dim=32,
        logit_scale_init_value=math.log(SCALE),
    )
    return CLIPModel(config), tokenizer


def train_clip(
    records: Sequence[Record] | None,
    target: Path,
    *,
    steps: int = 600,
    pool_size: int = 3000,
    seed: int = 0,
    restart: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Trains a CLIP and writes its folder with its tokenizer, weights in fp16. A stopped run goes on at its saved state.

    Args:
        records: `image` records of training prompts of the built-in world; None for renderings alone.
        target: the folder to write.
        steps: updates of the weights, 64 crops each.
        pool_size: rendered pictures with faults, made anew at the start.
        seed: of the weights, the pictures and their order.
        restart: forget a stopped run's state.
        force: replace a folder that is there.

    Returns:
        `colors_right`: the share of held-out crops whose colour is the programmatic detector's.

    Raises:
        InputError: a record is not usable, or another run makes the same target.
        OutputExistsError: the target is there and `force` is false.
        UsageError: a number makes no sense.
    """
    import torch
    from transformers.utils import logging

    from sanactl.files.atomic import atomic_dir, check_target
    from sanactl.model.saving import rewrite_weights
    from sanactl.training.lock import TargetLock
    from sanactl.training.state import TrainingState, identity_key
    from sanactl.world.detector_data import flawed_scenes, joined, record_scenes

    check_numbers(steps, pool_size, rate=LEARNING_RATE)
    check_target(target, force)
    with TargetLock(target):
        check_target(target, force)
        pools = [] if records is None else [record_scenes(records, progress)]
        pools.append(flawed_scenes(pool_size, seed, progress))
        pictures = "".join(pool.digest() for pool in pools)
        state = TrainingState(
            target, identity_key({"kind": "clip", "steps": steps, "seed": seed, "pictures": pictures})
        )
        if restart:
            state.clear()
        examples = crops(joined(pools))
        model, tokenizer = new_clip(seed)
        texts = _Texts(tokenizer)
        # A twentieth is not trained on.
        order = torch.randperm(len(examples[0]), generator=torch.Generator().manual_seed(seed))
        held, kept = order[: len(order) // 20], order[len(order) // 20 :]
        _train(model, texts, [part[kept] for part in examples], steps, seed, state, progress)
        model.eval()
        with torch.no_grad():
            right = 0
            for some in held.split(256):
                pixels, colors, shapes = (part[some] for part in examples)
                right += int((texts.likeness(model, pixels, shapes).argmax(1) == colors).sum())
        logging.disable_progress_bar()
        with atomic_dir(target, force=force) as folder:
            model.half().save_pretrained(folder)
            with utf8_name(folder) as place:
                tokenizer.save_pretrained(place)
            rewrite_weights(folder)
        state.clear()
    return {"colors_right": right / max(len(held), 1)}


def _train(
    model: CLIPModel,
    texts: _Texts,
    examples: Sequence[torch.Tensor],
    steps: int,
    seed: int,
    state: TrainingState,
    progress: Progress,
) -> None:
    """Does the steps that are left, and saves the state from time to time."""
    import torch
    from torch.nn import functional as F

    pixels, colors, shapes = examples
    model.logit_scale.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.02
    )
    model.train()
    done = state.load(model, optimizer, None)
    progress.start(steps, "CLIP", done=done)
    generator = torch.Generator().manual_seed(seed + 1)
    for step in range(steps):
        # Also for steps that are done: the draws of the next ones come after theirs.
        chosen = torch.randint(len(pixels), (BATCH_SIZE,), generator=generator)
        flipped = torch.rand(BATCH_SIZE, 1, 1, 1, generator=generator) < 0.5
        if step < done:
            continue
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        images = pixels[chosen]
        images = torch.where(flipped, images.flip(3), images)
        logits = SCALE * texts.likeness(model, images, shapes[chosen])
        loss = F.cross_entropy(logits, colors[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.advance(1, loss=f"{loss.item():.4f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state.save(step + 1, model, optimizer, None)
    progress.close()


class _Texts:
    """The texts that tell colours, of every shape, as tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        from sanactl.prompts.geneval.vocabulary import COLORS
        from sanactl.scoring.detectors.clip_colors import TEMPLATES
        from sanactl.shapes.vocabulary import SHAPES

        self.counts = len(SHAPES), len(COLORS), len(TEMPLATES)
        texts = [t.format(color=c, name=s) for s in SHAPES for c in COLORS for t in TEMPLATES]
        self.tokens = tokenizer(texts, padding=True, return_tensors="pt")

    def likeness(self, model: CLIPModel, pixels: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
        """Cosines [crops, colours] of crops with the mean text of each colour for the crop's shape."""
        import torch

        # Only the shapes that occur; texts of the same shape are computed once.
        names, place = shapes.unique(return_inverse=True)
        _, colors, templates = self.counts
        ids = self.tokens["input_ids"].unflatten(0, self.counts)[names].flatten(0, 2)
        mask = self.tokens["attention_mask"].unflatten(0, self.counts)[names].flatten(0, 2)
        found = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        vectors = found / found.norm(dim=-1, keepdim=True)
        vectors = vectors.unflatten(0, (len(names), colors, templates)).mean(2)
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        images = images / images.norm(dim=-1, keepdim=True)
        return torch.einsum("nd,ncd->nc", images, vectors[place])


def crops(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """CLIP's input for each object [crops, 3, 32, 32], with the index of its colour and of its shape."""
    import numpy as np
    import torch

    from sanactl.scoring.clip_model import prepared
    from sanactl.scoring.detectors.clip_colors import crop
    from sanactl.scoring.detectors.protocol import Detected
    from sanactl.world.detector_data import COLOR, SCORE, SHAPE

    pictures, places = np.nonzero(scenes.objects[..., SCORE] > LEAST)
    images = []
    for picture, place in zip(pictures, places, strict=True):
        mask = scenes.owners[picture] == place + 1
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        images.append(prepared(crop(scenes.images[picture], Detected("", None, 1.0, box, mask)), CROP_SIZE))
    known = torch.from_numpy(scenes.objects[pictures, places]).long()
    return torch.stack(images), known[:, COLOR], known[:, SHAPE]
