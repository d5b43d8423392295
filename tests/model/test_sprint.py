"""SANA-Sprint: `SanaSprintPipeline`'s own images, at every number of steps, and what the other commands make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.model.compiled import check_compiler
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.sampling.importance import block_importance
from tests.program import Program

PROMPTS = ["a photo of a red circle", "two blue stars"]
CPU: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.fixture
def sprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """sprint.st: two blocks of random weights in SANA-Sprint's shape, with the built-in world's components."""
    from diffusers import SanaTransformer2DModel, SCMScheduler

    from sanactl.checkpoint.metadata import encode_metadata
    from sanactl.model.saving import write_tensors
    from sanactl.world.init import SHAPES_CONFIG

    monkeypatch.chdir(tmp_path)
    SCMScheduler(sigma_data=0.5).save_pretrained("world/scheduler")
    config = {**SHAPES_CONFIG, "num_layers": 2, "guidance_embeds": True, "timestep_scale": 0.001}
    torch.manual_seed(0)
    model = SanaTransformer2DModel(**config)
    components = {
        p: {"source": "builtin:shapes", "subfolder": p} for p in ("text_encoder", "tokenizer", "vae")
    }
    components["scheduler"] = {"source": "./world", "subfolder": "scheduler"}
    sampling = {"height": 64, "width": 64, "max_sequence_length": 16, "complex_human_instruction": False}
    metadata = encode_metadata(config, components=components, sampling=sampling)
    write_tensors(model.state_dict(), Path("sprint.st"), metadata)
    return open_checkpoint("sprint.st")


@pytest.mark.slow
def test_it_is_compiled(sprint: Checkpoint, sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        check_compiler(torch.device("cpu"))
    except UsageError:
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path("kernels").absolute()))
    draw = ("sample", "sprint.st", "--prompt", PROMPTS[0], "-n", "2")
    sanactl(*draw, "-o", "eager")
    sanactl(*draw, "--compile", "-o", "compiled")
    for name in ("0000.png", "0001.png"):
        one, other = (np.asarray(Image.open(Path(f) / "00000/samples" / name)) for f in ("eager", "compiled"))
        assert one.std() > 1 and np.abs(one.astype(int) - other).max() <= 3


def pipeline_of(checkpoint: Checkpoint) -> Any:
    """The same parts in diffusers' own pipeline."""
    from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    transformer = SanaTransformer2DModel.from_config(dict(checkpoint.config))
    transformer.load_state_dict(load_file(checkpoint.path))
    pipeline = SanaSprintPipeline(
        tokenizer=AutoTokenizer.from_pretrained(asset("tokenizer")),
        text_encoder=AutoModel.from_pretrained(asset("text_encoder"), dtype=torch.float32),
        vae=AutoencoderDC.from_pretrained(asset("vae"), torch_dtype=torch.float32),
        transformer=transformer.eval(),
        scheduler=SCMScheduler.from_pretrained("world/scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_images_are_sana_sprint_pipelines(sprint: Checkpoint, sanactl: Program, steps: int) -> None:
    """Of the same seeds: the noise at the start and the noise of every step."""
    from PIL import Image

    (Path("p.txt")).write_text("\n".join(PROMPTS))
    run = ("sample", "sprint.st", "-p", "p.txt", "-n", "2", "--steps", str(steps), "--guidance", "3")
    records = sanactl(*run)
    pipeline = pipeline_of(sprint)

    def theirs(kind: str) -> Any:
        return pipeline(
            [r["prompt"] for r in records],
            generator=[torch.Generator().manual_seed(r["seed"]) for r in records],
            num_inference_steps=steps,
            intermediate_timesteps=1.3 if steps == 2 else None,
            guidance_scale=3,
            height=64,
            width=64,
            max_sequence_length=16,
            use_resolution_binning=False,
            complex_human_instruction=None,
            output_type=kind,
        ).images

    sana = Sana(sprint, sampling_settings(sprint, steps=steps, guidance_scale=3.0), **CPU)
    guidance = sana.texts.guidance([r["prompt"] for r in records])
    latents = sana.denoise(guidance, [r["seed"] for r in records])
    torch.testing.assert_close(latents, theirs("latent"), atol=1e-4, rtol=0)
    ours = np.stack([np.asarray(Image.open(r["path"])) for r in records]).astype(int)
    assert np.abs(np.round(theirs("np") * 255).astype(int) - ours).max() <= 1
    assert len({a.tobytes() for a in ours}) == 4


def test_two_steps_by_default_and_no_negative_prompt(sprint: Checkpoint, sanactl: Program) -> None:
    assert sampling_settings(sprint).steps == 2
    for option in (("--negative", "x"), ("--flow-shift", "2")):
        assert "no effect" in sanactl.fails("sample", "sprint.st", "-n", "1", "--limit", "1", *option, code=2)


def test_batch_size_changes_no_image(sprint: Checkpoint, sanactl: Program) -> None:
    """Although noise is drawn between the steps."""
    for size in ("1", "16"):
        sanactl("sample", "sprint.st", "-n", "3", "-b", size, "-o", size)
    one, many = (
        {p.relative_to(size): p.read_bytes() for p in Path(size).glob("*/samples/*")} for size in ("1", "16")
    )
    assert one == many and len(set(one.values())) == 18


def test_importance_of_its_blocks(sprint: Checkpoint, sanactl: Program) -> None:
    """Equation 3 on the one forward pass of each step; prune takes the records."""
    settings = sampling_settings(sprint)
    records = list(block_importance(sprint, PROMPTS, settings, **CPU))
    assert [r["timesteps"] for r in records] == [pytest.approx([1.5708, 1.3])] * 2
    sana = Sana(sprint, settings, decode=False, **CPU)
    seen: list[float] = []

    def hook(module: Any, inputs: Any, output: Any) -> None:
        x, y = inputs[0][0].double(), output[0].double()
        seen.append(1 - torch.cosine_similarity(x, y, dim=-1).mean().item())

    from sanactl.model.sampler import image_seed

    sana.transformer.transformer_blocks[1].register_forward_hook(hook)
    for prompt in PROMPTS:
        sana.denoise(sana.texts.guidance([prompt]), [image_seed(0, prompt, 0)])
    assert records[1]["importance"] == pytest.approx(np.mean(seen), rel=1e-4)
    blocks = sanactl("importance", "sprint.st", "-p", "-", stdin="\n".join(PROMPTS))
    (pruned,) = sanactl("prune", "--keep", "1", stdin="".join(json.dumps(b) + "\n" for b in blocks))
    assert open_checkpoint(pruned["path"]).num_blocks == 1


def test_growing_is_verified(sprint: Checkpoint, sanactl: Program) -> None:
    (grown,) = sanactl("grow", "sprint.st", "--to", "3", "--drop-last", "0", "--verify")
    assert grown["largest_difference"] == 0
    assert len(sanactl("sample", grown["path"], "-n", "1", "--limit", "1")) == 1


@pytest.mark.parametrize("which", ["a SANA scheduler", "a SANA transformer"])
def test_schedulers_of_the_other_family_are_refused(sprint: Checkpoint, which: str) -> None:
    scheduler = {"scheduler": {"source": "builtin:shapes", "subfolder": "scheduler"}}
    if which == "a SANA scheduler":
        mixed = replace(sprint, components={**sprint.components, **scheduler})
    else:
        mixed = replace(open_checkpoint(asset("base.st")), components=sprint.components)
    with pytest.raises(InputError, match="and its scheduler is"):
        Sana(mixed, sampling_settings(mixed), **CPU)
