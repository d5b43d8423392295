"""The built-in world's scheduler: the flow DPM-Solver that SANA samples with, at SANA's settings."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pack_world", "write_scheduler"]


def write_scheduler(target: Path) -> None:
    """Writes `scheduler_config.json`: DPM-Solver++ 2M on flow sigmas, flow shift 3 (SANA-1.0, section 4)."""
    from diffusers import DPMSolverMultistepScheduler

    DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
        final_sigmas_type="zero",
    ).save_pretrained(target)


def pack_world(world: Path, target: Path) -> None:
    """Copies text_encoder, tokenizer, vae, scheduler and judge into `target`, weights in fp16.

    fp16 keeps 11 bits of a weight against bf16's 8, and nothing in these small models comes near its range. They are
    loaded as fp32.

    Raises:
        InputError: a part is missing.
    """
    import shutil

    import torch

    from sanactl.errors import InputError
    from sanactl.model.saving import write_tensors
    from sanactl.model.tensors import read_tensors

    for part in ("text_encoder", "tokenizer", "vae", "scheduler", "judge"):
        source = world / part
        if not source.is_dir():
            if part == "judge":
                continue
            raise InputError(
                f"{source}: this part of the world is missing", hint="see recipes/make-shapes.sh"
            )
        folder = target / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.suffix == ".safetensors":
                state = {
                    k: v.half() if v.dtype == torch.float32 else v for k, v in read_tensors(file).items()
                }
                write_tensors(state, folder / file.name, {"format": "pt"})
            elif file.is_file() and file.suffix in (".json", ".jinja", ".txt"):
                shutil.copyfile(file, folder / file.name)
    for name in ("base.st", "grown.st"):
        if (world / name).exists():
            _pack_checkpoint(world / name, target / name)


def _pack_checkpoint(source: Path, target: Path) -> None:
    """Copies a checkpoint in fp16 with the built-in components."""
    from dataclasses import replace

    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.checkpoint.write import write_checkpoint
    from sanactl.surgery.convert import plan_convert
    from sanactl.world.init import SHAPES_SAMPLING

    checkpoint = open_checkpoint(source)
    plan = replace(
        plan_convert(checkpoint, target, "fp16"),
        components={name: {"source": "builtin:shapes", "subfolder": name} for name in checkpoint.components},
        sampling=dict(SHAPES_SAMPLING),
    )
    write_checkpoint(plan, target, force=True)
