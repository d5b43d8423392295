"""`init`: a first checkpoint - the built-in world's base, or one with random weights to train from scratch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.components import COMPONENTS, portable_components
from sanactl.checkpoint.config import CONFIG_DEFAULTS
from sanactl.checkpoint.metadata import encode_metadata, lineage_entry
from sanactl.checkpoint.open import Checkpoint
from sanactl.errors import InputError
from sanactl.files.atomic import atomic_path

__all__ = ["SHAPES_CONFIG", "SHAPES_SAMPLING", "init_like", "init_shapes"]

# Ten blocks of width 96 learn faster for the same time on a CPU than six of 128, and leave blocks to choose among.
SHAPES_CONFIG: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 3,
    "attention_head_dim": 32,
    "num_layers": 10,
    "num_cross_attention_heads": 3,
    "cross_attention_head_dim": 32,
    "cross_attention_dim": 96,
    "caption_channels": 96,
    "mlp_ratio": 2.5,
    "sample_size": 8,
    "patch_size": 1,
    "interpolation_scale": 1,
    "qk_norm": "rms_norm_across_heads",
}
# Also what `finetune` starts from where the user says nothing. CAME has no bias correction, so its first hundreds of
# steps are some ten times as long as Adam's: 5e-4, good for AdamW here, took the overall score from 0.61 to 0.11.
SHAPES_SAMPLING: dict[str, Any] = {
    "height": 64,
    "width": 64,
    "steps": 20,
    "guidance_scale": 4.5,
    "max_sequence_length": 16,
    "complex_human_instruction": False,
    "learning_rate": 3e-5,
    "clip": 1.0,
}


def init_shapes(target: Path, *, grown: bool = False, force: bool = False) -> None:
    """Copies a checkpoint of the built-in world to `target`: the base, or the one grown from it and trained."""
    source = asset("grown.st" if grown else "base.st")
    if not source.exists():
        raise InputError(f"{source}: this built-in checkpoint is missing", hint="reinstall sanactl")
    with atomic_path(target, force=force) as temporary:
        shutil.copyfile(source, temporary)


def init_scratch(
    target: Path, *, blocks: int | None = None, world: Path | None = None, seed: int = 0, force: bool = False
) -> None:
    """Writes a randomly initialised checkpoint of the built-in world's shape.

    Args:
        target: the `.st` file to write, fp32.
        blocks: transformer blocks, 10 if not given.
        world: a folder with text_encoder, tokenizer, vae and scheduler, in place of the built-in ones.
        seed: of the weights.
    """
    config = {**SHAPES_CONFIG, **({"num_layers": blocks} if blocks else {})}
    source = "builtin:shapes" if world is None else os.path.realpath(world)
    components = {name: {"source": source, "subfolder": name} for name in COMPONENTS}
    _write_random(target, config, components, SHAPES_SAMPLING, [], None, seed, force)


def init_like(
    checkpoint: Checkpoint, target: Path, *, blocks: int | None = None, seed: int = 0, force: bool = False
) -> None:
    """Writes a randomly initialised checkpoint with another's config and components: training from scratch."""
    config = {k: v for k, v in checkpoint.config.items() if not k.startswith("_")}
    if blocks:
        config["num_layers"] = blocks
    parent = {"name": checkpoint.path.name, "digest": checkpoint.digest}
    _write_random(target, config, checkpoint.components, checkpoint.sampling, [], parent, seed, force)


def _write_random(
    target: Path,
    config: dict[str, Any],
    components: dict[str, Any],
    sampling: dict[str, Any],
    lineage: list[dict[str, Any]],
    like: dict[str, str] | None,
    seed: int,
    force: bool,
) -> None:
    import torch
    from diffusers import SanaTransformer2DModel

    from sanactl.model.saving import write_tensors

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SanaTransformer2DModel(**{k: v for k, v in config.items() if k in CONFIG_DEFAULTS})
        # Zero output: the first steps then learn the mean velocity and not to undo noise of their own.
        torch.nn.init.zeros_(model.proj_out.weight)
        torch.nn.init.zeros_(model.proj_out.bias)
    blocks = int(config["num_layers"])
    arguments = {"blocks": blocks, **({"like": like} if like else {})}
    metadata = encode_metadata(
        config,
        components=portable_components(components, Path(os.path.abspath(target)).parent),
        sampling=sampling,
        lineage=[*lineage, lineage_entry("init", arguments, parents=[], blocks=blocks, seed=seed)],
    )
    with atomic_path(target, force=force) as temporary:
        write_tensors(model.state_dict(), temporary, metadata)
