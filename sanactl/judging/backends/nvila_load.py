"""NVILA's three parts from its folder, checked while they are loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from sanactl.errors import InputError
from sanactl.files.lfs import refuse_pointers
from sanactl.judging.backends.nvila_model import NvilaModel, Projector, tiles_of
from sanactl.model.guard import offline, read_config, reading, weight_files
from sanactl.model.pretrained import load_checked, place_on

__all__ = ["TileProcessor", "load_nvila"]

PARTS = ("llm", "vision_tower", "mm_projector")
# Of config.json: the values that this loader knows. The rest of NVILA's family has other ones.
_KNOWN = {
    "image_aspect_ratio": ("dynamic",),
    "mm_vision_select_feature": ("cls_patch",),
    "dynamic_s2": (False, None),
    "s2": (False, None),
}
# SigLIP's pooled output, which nothing uses.
_HEAD = re.compile(r"(.*\.)?head\..*")
PROJECTOR = "mlp_downsample_3x3_fix"


class TileProcessor:
    """A tokenizer with its chat template, and the tiles of an image as pixel values.

    Args:
        tokenizer: with `<image>` as a token.
        images: SigLIP's image processor.
        least, most: the least and the most tiles of an image, without the thumbnail.
    """

    def __init__(self, tokenizer: Any, images: Any, *, least: int, most: int) -> None:
        self.tokenizer, self.images = tokenizer, images
        self.chat_template = tokenizer.chat_template
        self.size, self.least, self.most = int(images.size["height"]), least, most

    def tiles(self, image: Any) -> torch.Tensor:
        """[tiles, 3, size, size] of a PIL image."""
        cut = tiles_of(image, size=self.size, least=self.least, most=self.most)
        pixels: torch.Tensor = self.images(cut, return_tensors="pt")["pixel_values"]
        return pixels


def load_nvila(folder: Path, *, device: torch.device, dtype: torch.dtype) -> tuple[NvilaModel, TileProcessor]:
    """Loads the parts.

    Args:
        folder: with config.json, `llm/`, `vision_tower/` and `mm_projector/`.
        device, dtype: where and in what the model runs.

    Returns:
        The model and what makes its inputs.

    Raises:
        InputError: a part is missing or damaged, or it is of a kind that this loader does not know.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers import SiglipImageProcessorPil as SiglipImages
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config = _config(folder)
    for part in PARTS:
        refuse_pointers(folder / part)
    with offline(folder), reading(f"{folder} as a judge"):
        vision = _part(AutoModel, folder / "vision_tower", dtype, unneeded=_HEAD)
        llm = _part(AutoModelForCausalLM, folder / "llm", dtype)
        if vision.config.model_type != "siglip_vision_model" or llm.config.model_type != "qwen2":
            raise InputError(
                f"{folder}: its parts are {vision.config.model_type} and {llm.config.model_type}, and not SigLIP and Qwen 2"
            )
        projector = _projector(
            folder / "mm_projector", vision.config.hidden_size, llm.config.hidden_size, dtype
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "llm", trust_remote_code=False)
        _add_template(tokenizer, folder, config)
        tokenizer.add_tokens(["<image>"], special_tokens=True)
        images = SiglipImages.from_pretrained(folder / "vision_tower")
        processor = TileProcessor(
            tokenizer, images, least=int(config.get("min_tiles", 1)), most=int(config.get("max_tiles", 12))
        )
        if images.size["height"] != vision.config.image_size:
            raise InputError(
                f"{folder}: its vision tower is for {vision.config.image_size} pixels, and its images have"
                f" {images.size['height']}"
            )
        model = NvilaModel(
            place_on(vision.eval(), device),
            place_on(projector.eval(), device),
            place_on(llm.eval(), device),
            layer=int(config.get("mm_vision_select_layer", -2)),
            image_token=int(tokenizer.convert_tokens_to_ids("<image>")),
            newline=tokenizer("\n").input_ids,
        )
    return model, processor


def _part(auto_class: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    return load_checked(auto_class, str(folder), weight_files(folder, "model"), dtype, **options)


def _config(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    for part in PARTS:
        if not (folder / part / "config.json").is_file():
            raise InputError(f"{folder}: no NVILA, for it has no {part}/config.json")
    for name, known in _KNOWN.items():
        if name in config and config[name] not in known:
            raise InputError(
                f"{folder}: its {name} is {config[name]!r}; this loader knows {known[0]!r} alone"
            )
    kind = read_config(folder / "mm_projector").get("mm_projector_type")
    if kind != PROJECTOR:
        raise InputError(f"{folder}: its projector is {kind!r}; this loader knows {PROJECTOR!r} alone")
    return config


def _projector(folder: Path, vision: int, text: int, dtype: torch.dtype) -> Projector:
    from safetensors.torch import load_file

    weights = weight_files(folder, "model")
    projector = Projector(vision, text)
    wanted = {name: tuple(p.shape) for name, p in projector.named_parameters()}
    found = {name: tuple(info.shape) for name, info in weights.tensors.items()}
    if found != wanted:
        name = next(n for n in sorted(wanted | found) if wanted.get(n) != found.get(n))
        raise InputError(
            f"{folder}: tensor {name} has the shape {found.get(name)} where the parts need {wanted.get(name)}"
        )
    state: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(weights.files.values()):
        state |= load_file(file)
    projector.load_state_dict(state)
    return projector.to(dtype)


def _add_template(tokenizer: Any, folder: Path, config: dict[str, Any]) -> None:
    """The chat template that config.json names, if its file is there; else the tokenizer's own."""
    name = config.get("chat_template")
    if isinstance(name, str) and name.isidentifier() and (folder / f"{name}.jinja").is_file():
        text = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        # As the reference does: line breaks and indentation are the file's, not the dialogue's.
        tokenizer.chat_template = text.replace("    ", "").replace("\n", "")
