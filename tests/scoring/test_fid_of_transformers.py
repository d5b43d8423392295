"""CMMD and FD-DINOv2 against computations of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.program import Program
from tests.scoring.picture_sets import Rows, frechet, listed
from tests.scoring.tiny_models import save_clip


def test_cmmd_is_that_of_an_own_computation(sets: list[Path], sanactl: Program, tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = save_clip(tmp_path / "clip")
    model = CLIPModel.from_pretrained(folder).double()
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def embedded(path: Path) -> Rows:
        image = Image.open(path)
        w, h = image.size
        side = min(w, h)
        left, top = (w - side) // 2, (h - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)
        values = (np.array(square, dtype=np.float64) / 255 - mean) / std
        with torch.no_grad():
            vision = model.vision_model(torch.tensor(values).permute(2, 0, 1)[None]).pooler_output
            found = model.visual_projection(vision)[0].numpy()
        return np.asarray(found / np.linalg.norm(found))

    a, b = (np.stack([embedded(p) for p in listed(folder)]) for folder in sets)

    def kernel(x: Rows, y: Rows) -> float:
        return float(np.mean([[np.exp(-((p - q) ** 2).sum() / 200) for p in x] for q in y]))

    known = 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    given = ["eval", "cmmd", "drawn", "-r", "real", "-m", str(folder), "--small", "--device", "cpu"]
    *images, score = sanactl(*given)
    assert (len(images), score["metric"], score["protocol"], score["size"]) == (11, "cmmd", "cmmd", 32)
    assert known > 0.05
    assert score["value"] == pytest.approx(known, rel=1e-3)
    assert sanactl(*given[:3], "-r", "drawn", *given[5:], "-o", "0.jsonl")[-1]["value"] == pytest.approx(
        0, abs=1e-6
    )


def test_fd_dinov2_is_that_of_an_own_computation(sets: list[Path], sanactl: Program, tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14
    )
    model = Dinov2Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight" in name and "norm" not in name:
                parameter.mul_(10)
    model.save_pretrained(tmp_path / "dino")
    # Meta's way: resized by a factor that gives 16.1 of 37 places.
    positions = model.embeddings.position_embeddings.detach()
    grid = positions[:, 1:].reshape(1, 37, 37, 16).permute(0, 3, 1, 2)
    meta = torch.nn.functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    plain = torch.nn.functional.interpolate(grid, size=(16, 16), mode="bicubic")
    assert meta.shape == plain.shape
    assert float((meta - plain).abs().max()) > 0.01

    def embedded(path: Path) -> Rows:
        image = (
            np.array(Image.open(path).resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        )
        values = torch.tensor((image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).float()
        with torch.no_grad():
            e = model.embeddings
            tokens = e.patch_embeddings(values.permute(2, 0, 1)[None])
            tokens = tokens + meta.flatten(2).transpose(1, 2)
            hidden = torch.cat([e.cls_token + positions[:, :1], tokens], 1)
            for layer in model.encoder.layer:
                hidden = layer(hidden)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return model.layernorm(hidden)[0, 0].double().numpy()

    a, b = (np.stack([embedded(p) for p in listed(folder)]) for folder in sets)
    given = ["eval", "fd-dinov2", "drawn", "-m", "dino", "--small", "--device", "cpu"]
    score = sanactl(*given, "-r", "real", "--save-reference", "real.npz")[-1]
    assert (score["metric"], score["protocol"], score["size"], score["features"]) == (
        "fd_dinov2",
        "dgm-eval",
        224,
        16,
    )
    assert score["value"] == pytest.approx(frechet(a, b), rel=2e-3)
    line = sanactl.fails("eval", "cmmd", "drawn", "-r", "real.npz", "-m", "dino", "--small")
    assert "a dinov2 model, not a CLIP" in line
