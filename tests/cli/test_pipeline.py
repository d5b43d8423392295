"""What sanactl writes, diffusers runs: `SanaPipeline` draws the very image that `sanactl sample` draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sanactl.cli.app import main

PROMPT = "a photo of a red circle and a blue star"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.st, base-d13.st (grown) and base-d13-d7.st (pruned), made through the command line."""
    place = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["init", "shapes", "-o", "base.st"]) == 0
        assert main(["grow", "base.st", "--to", "13"]) == 0
        assert main(["prune", "base-d13.st", "--blocks", "0-5,9"]) == 0
    return place


@pytest.mark.parametrize(
    ("name", "negative", "instruction"),
    [
        ("base", "", None),
        ("base", "two green squares", ["Say more of this picture.", "Prompt: "]),
        ("base-d13", "", None),
        ("base-d13-d7", "", None),
    ],
)
def test_sana_pipeline_draws_what_sample_draws(
    folder: Path,
    name: str,
    negative: str,
    instruction: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from PIL import Image
    from safetensors import safe_open
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    from sanactl.checkpoint.builtin import asset
    from sanactl.model.sampler import image_seed, initial_noise

    monkeypatch.chdir(folder)
    (folder / "prompt.txt").write_text(PROMPT + "\n")
    samples = f"{name}-{bool(instruction)}"
    run = ["sample", f"{name}.st", "-p", "prompt.txt", "-n", "1", "--steps", "6", "-o", samples]
    if instruction:
        (folder / "instruction.txt").write_text("\n".join(instruction) + "\n")
        run += ["--instruction", "instruction.txt", "--negative", negative]
    assert main(run) == 0
    ours = np.asarray(Image.open(folder / samples / "00000" / "samples" / "0000.png")).astype(int)

    with safe_open(f"{name}.st", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    transformer = SanaTransformer2DModel.from_config(config)
    transformer.load_state_dict(load_file(f"{name}.st"))
    pipeline = SanaPipeline(
        tokenizer=AutoTokenizer.from_pretrained(asset("tokenizer")),
        text_encoder=AutoModel.from_pretrained(asset("text_encoder"), dtype=torch.float32),
        vae=AutoencoderDC.from_pretrained(asset("vae"), torch_dtype=torch.float32),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(asset("scheduler")),
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPT,
        height=64,
        width=64,
        num_inference_steps=6,
        guidance_scale=4.5,
        max_sequence_length=16,
        latents=initial_noise([image_seed(0, PROMPT, 0)], (8, 8, 8)),
        use_resolution_binning=False,
        negative_prompt=negative,
        complex_human_instruction=instruction,
        clean_caption=False,
        output_type="np",
    ).images[0]
    # One level of 255 where rounding falls on either side.
    assert np.abs(np.round(theirs * 255).astype(int) - ours).max() <= 1
