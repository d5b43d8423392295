"""NVILA's loader on a tiny random folder of its layout, against a forward that is written out here."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sanactl.errors import InputError
from sanactl.files.images import write_png
from sanactl.judging.backends.nvila import NvilaJudge
from sanactl.judging.backends.nvila_model import tile_grid
from sanactl.judging.registry import open_judge
from tests.judging.tiny_models import PROMPTS
from tests.program import Program

SIZE, VISION, TEXT = 64, 16, 32  # pixels of a tile; widths
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """Qwen's tokenizer with the bytes, the answers and the special tokens alone."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Y", "e"), ("Ye", "s"), ("N", "o")]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(m) for m in merges), "<|endoftext|>"]
    tokens = Qwen2Tokenizer(vocab={w: i for i, w in enumerate(words)}, merges=merges)
    tokens.add_tokens(["<|im_start|>", "<|im_end|>", "<image>", "<vila/video>"], special_tokens=True)
    return tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 x 32 patches of two pixels, so that a tile has 121 features as in the real model."""
    from transformers import (
        Qwen2Config,
        Qwen2ForCausalLM,
        SiglipImageProcessorPil,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    torch.manual_seed(2)
    place = tmp_path_factory.mktemp("nvila") / "model"
    tokens = byte_tokenizer()
    tokens.chat_template = CHAT
    vision = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=VISION, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=SIZE,
            patch_size=2, vision_use_head=False,
        )
    )  # fmt: skip
    llm = Qwen2ForCausalLM(
        Qwen2Config(
            # More rows than the tokenizer has, as Qwen's own.
            vocab_size=len(tokens) + 9, hidden_size=TEXT, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=False,
        )
    )  # fmt: skip
    vision.save_pretrained(place / "vision_tower")
    # The names of tensors as on the Hub, from an earlier transformers.
    weights = place / "vision_tower" / "model.safetensors"
    named = {f"vision_model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(named, weights, metadata={"format": "pt"})
    side = {"height": SIZE, "width": SIZE}
    SiglipImageProcessorPil(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        place / "vision_tower"
    )
    llm.save_pretrained(place / "llm")
    tokens.save_pretrained(place / "llm")
    (place / "mm_projector").mkdir()
    shapes = {
        "1.weight": (9 * VISION,), "1.bias": (9 * VISION,), "2.weight": (3 * VISION, 9 * VISION), "2.bias": (3 * VISION,),
        "4.weight": (3 * VISION,), "4.bias": (3 * VISION,), "5.weight": (TEXT, 3 * VISION), "5.bias": (TEXT,),
        "7.weight": (TEXT, TEXT), "7.bias": (TEXT,),
    }  # fmt: skip
    state = {f"layers.{name}": torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    save_file(state, place / "mm_projector" / "model.safetensors", metadata={"format": "pt"})
    projector = {"model_type": "v2l_projector", "mm_projector_type": "mlp_downsample_3x3_fix"}
    (place / "mm_projector" / "config.json").write_text(json.dumps(projector))
    config = {
        "model_type": "llava_llama", "image_aspect_ratio": "dynamic", "min_tiles": 1, "max_tiles": 12,
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch", "dynamic_s2": False, "s2": False,
        "llm_cfg": {}, "vision_tower_cfg": {}, "mm_projector_cfg": projector,
        "auto_map": {"AutoModel": "modeling_vila.VILAForCausalLM"},
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    return place


def written_out(folder: Path, image: np.ndarray, text: str) -> tuple[list[float], int]:
    """The log-probabilities of the next token, and the number of tiles, as the issue and the reference describe them."""
    from transformers import AutoTokenizer, Qwen2ForCausalLM, SiglipVisionModel

    tokens = AutoTokenizer.from_pretrained(folder / "llm")
    vision = SiglipVisionModel.from_pretrained(folder / "vision_tower").eval()
    llm = Qwen2ForCausalLM.from_pretrained(folder / "llm").eval()
    p = load_file(folder / "mm_projector" / "model.safetensors")
    # Squares alone, so the grid is 1 x 1, 2 x 2 or 3 x 3.
    whole, area = Image.fromarray(image), image.shape[0] * image.shape[1]
    n = max(n for n in (1, 2, 3) if n == 1 or area > 0.5 * (SIZE * n) ** 2)
    large = np.asarray(whole.resize((n * SIZE, n * SIZE)))
    tiles = [
        large[y : y + SIZE, x : x + SIZE] for y in range(0, n * SIZE, SIZE) for x in range(0, n * SIZE, SIZE)
    ]
    if n > 1:
        tiles.append(np.asarray(whole.resize((SIZE, SIZE))))
    features = []
    with torch.no_grad():
        newline = llm.model.embed_tokens(torch.tensor(tokens("\n").input_ids))
        for tile in tiles:
            pixels = torch.tensor(tile / 255.0, dtype=torch.float32).permute(2, 0, 1)[None] * 2 - 1
            patches = vision(pixels, output_hidden_states=True).hidden_states[-2][0].reshape(32, 32, VISION)
            padded = torch.zeros(33, 33, VISION)
            padded[:32, :32] = patches
            for row in range(11):
                for column in range(11):
                    cell = [padded[3 * row + r, 3 * column + c] for r in range(3) for c in range(3)]
                    h = torch.cat(cell)
                    h = norm(h, p["layers.1.weight"], p["layers.1.bias"])
                    h = p["layers.2.weight"] @ h + p["layers.2.bias"]
                    h = norm(gelu(h), p["layers.4.weight"], p["layers.4.bias"])
                    h = p["layers.5.weight"] @ h + p["layers.5.bias"]
                    features.append(p["layers.7.weight"] @ gelu(h) + p["layers.7.bias"])
            features.append(newline[0])
        before, after = text.split("IMAGES")
        parts = [embedded(llm, tokens, before)]
        for number in range(len(tiles)):
            parts += [torch.stack(features[122 * number : 122 * (number + 1)]), embedded(llm, tokens, "\n")]
        parts.append(embedded(llm, tokens, after))
        logits = llm(inputs_embeds=torch.cat(parts)[None]).logits[0, -1, : len(tokens)]
        logs = logits.double().log_softmax(-1)
    words = [tokens.convert_tokens_to_ids([w, w.capitalize()]) for w in ("yes", "no")]
    return [float(logs[ids].exp().sum().log()) for ids in words], len(tiles)


def embedded(llm: Any, tokens: Any, text: str) -> torch.Tensor:
    found: torch.Tensor = llm.model.embed_tokens(torch.tensor(tokens(text).input_ids, dtype=torch.long))
    return found


def norm(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (h - h.mean()) / torch.sqrt(h.var(unbiased=False) + 1e-5) * weight + bias


def gelu(h: torch.Tensor) -> torch.Tensor:
    return 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))


ASKED = (
    "<|im_start|>user\nIMAGESYou are an AI assistant specializing in image analysis and ranking. Your task is to analyze and "
    "compare image based on how well they match the given prompt.\nThe given prompt is:{}. Please consider the prompt and "
    "the image to make a decision and response directly with 'yes' or 'no'.<|im_end|>\n<|im_start|>assistant\n"
)
PAPER = (
    "<|im_start|>user\nYou are an AI assistant specializing in image analysis and ranking. Your task is to analyze and "
    "compare image based on how well they match the given prompt. IMAGES The given prompt is: {}. Please consider the "
    "prompt and the image to make a decision and response directly with 'yes' or 'no'<|im_end|>\n<|im_start|>assistant\n"
)


def picture(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("side", "tiles", "dialogue", "asked"),
    [
        (64, 1, "reference", ASKED),
        (100, 5, "reference", ASKED),
        (140, 10, "reference", ASKED),
        (100, 5, "paper", PAPER),
    ],
    ids=str,
)
def test_against_the_forward_written_out(
    folder: Path, side: int, tiles: int, dialogue: str, asked: str
) -> None:
    judge = open_judge(f"nvila:{folder}", device="cpu", dialogue=dialogue)
    assert isinstance(judge, NvilaJudge)
    wanted, count = written_out(folder, picture(side), asked.format(PROMPTS[0]))
    assert count == tiles
    (verdict,) = judge.score([picture(side)], [PROMPTS[0]])
    assert [verdict.yes_logprob, verdict.no_logprob] == pytest.approx(wanted, abs=1e-5)


def test_a_batch_says_what_each_pair_says_alone(folder: Path) -> None:
    judge: Any = open_judge(f"nvila:{folder}", device="cpu")
    judge._one_thread_each = False
    images = [picture(64, 1), picture(140, 2), picture(100, 3), picture(100, 4)[:40]]
    prompts = [*PROMPTS[:3], "a heart <image> <image>"]
    together = judge.score(images, prompts)
    alone = [judge.score([i], [p])[0] for i, p in zip(images, prompts, strict=True)]
    assert len({round(v.yes_logprob, 5) for v in alone}) == 4
    for a, b in zip(together, alone, strict=True):
        assert [a.yes_logprob, a.no_logprob] == pytest.approx([b.yes_logprob, b.no_logprob], abs=1e-5)


def test_a_tower_whose_unused_head_is_missing(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    edit("vision_tower/config.json", vision_use_head=True)(tmp_path / "model")
    found = [
        open_judge(f"nvila:{place}", device="cpu").judge([picture(64)], [{"prompt": "heart"}])
        for place in (folder, tmp_path / "model")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (1024, 1024, (3, 3)), (448, 448, (1, 1)), (512, 512, (1, 1)), (700, 700, (2, 2)), (448, 896, (1, 2)),
        (1344, 448, (3, 1)), (1920, 1080, (4, 2)), (100, 3000, (1, 12)), (640, 480, (4, 3)),
    ],
)  # fmt: skip
def test_grids(width: int, height: int, grid: tuple[int, int]) -> None:
    """1024 pixels are nine tiles and a thumbnail."""
    assert tile_grid(width, height, size=448, least=1, most=12) == grid


def test_the_licence_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    write_png(picture(64), tmp_path / "0.png")
    Path("images.jsonl").write_text(json.dumps({"kind": "image", "path": "0.png", "prompt": "heart"}))
    (record,) = sanactl("judge", "images.jsonl", "--model", f"nvila:{folder}", "--device", "cpu")
    assert record["judge"] == str(folder)
    assert "under CC-BY-NC 4.0, not for commercial use" in sanactl.said
    assert f"a folder of NVILA; name it as nvila:{folder}" in sanactl.fails(
        "judge", "images.jsonl", "--model", str(folder)
    )


def edit(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))

    return change


def without_a_tensor(folder: Path) -> None:
    file = folder / "mm_projector" / "model.safetensors"
    state = load_file(file)
    del state["layers.4.bias"]
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit("config.json", image_aspect_ratio="dynamic_s2"), "its image_aspect_ratio is 'dynamic_s2'"),
        (edit("mm_projector/config.json", mm_projector_type="linear"), "its projector is 'linear'"),
        (without_a_tensor, "tensor layers.4.bias has the shape None"),
        (lambda f: shutil.rmtree(f / "vision_tower"), "no NVILA, for it has no vision_tower/config.json"),
        (lambda f: (f / "llm" / "model.safetensors").write_bytes(b"x"), "model.safetensors"),
        (lambda f: (f / "llm" / "chat_template.jinja").unlink(), "no chat template"),
    ],
)
def test_other_folders_give_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(InputError, match=said) as caught:
        open_judge(f"nvila:{tmp_path / 'model'}", device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        open_judge("nvila:./nowhere", device="cpu")
