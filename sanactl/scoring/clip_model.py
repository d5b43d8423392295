"""CLIP of transformers: images and texts as unit vectors, prepared as OpenAI's code does.

Source: openai/CLIP `clip/clip.py` (`_transform`, `tokenize` with truncate=True).
"""

from __future__ import annotations

import copy
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["ClipModel"]

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipModel:
    """A CLIP from a folder or the Hub, loaded at first use.

    Args:
        source: a folder or a Hub id, with its tokenizer.
        device: torch's device.
        dtype: torch's dtype; float32 by default.

    Raises:
        InputError: there is no such model, or it is of another kind.
    """

    def __init__(self, source: str, device: torch.device, dtype: torch.dtype | None = None) -> None:
        import torch

        from sanactl.model.files import model_files

        self.files = model_files(source, ("clip",), "a CLIP")
        self.device = device
        self.dtype = torch.float32 if dtype is None else dtype
        self.label, self.digest = self.files.name, self.files.digest
        self._model: Any = None
        self._tokenizer: Any = None

    @property
    def model(self) -> Any:
        """The model, loaded at first use."""
        if self._model is None:
            from sanactl.model.files import load_model

            self._model = load_model(self.files, "AutoModel", self.device, self.dtype)
        return self._model

    @property
    def scale(self) -> float:
        """exp(logit_scale), the factor of cosines; 100 in OpenAI's models."""
        return float(self.model.logit_scale.detach().float().exp())

    def images(self, images: Sequence[Image]) -> torch.Tensor:
        """Unit vectors, float32 [images, width], of RGB images of any sizes."""
        import torch

        from sanactl.model.files import exact_fp32

        size = int(self.model.config.vision_config.image_size)
        pixels = torch.stack([prepared(image, size) for image in images]).to(self.device, self.dtype)
        with torch.inference_mode(), exact_fp32():
            return _unit(self.model.get_image_features(pixel_values=pixels))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors, float32 [texts, width]. Of a text past the model's length (77 tokens) the first tokens count,
        and the end token after them, whose vector is the text's."""
        import torch

        from sanactl.model.files import exact_fp32

        tokens = self.tokens(texts).to(self.device)
        with torch.inference_mode(), exact_fp32():
            return _unit(self.model.get_text_features(input_ids=tokens))

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids [texts, longest]; rows end with the end token, which is repeated in shorter ones."""
        import torch

        rows = self._rows(texts, truncation=True, max_length=self.longest)
        end = self._tokenizer.eos_token_id
        if end is None or any(row[-1] != end for row in rows):
            raise InputError(f"{self.files.folder}: its tokenizer puts no end token after a text")
        longest = max(map(len, rows))
        # Attention is causal: what stands after the end token does not change its vector.
        return torch.tensor([row + [end] * (longest - len(row)) for row in rows])

    def probe(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
        """Vectors of images and of some texts; see `sanactl.scoring.detectors.check.Checked`."""
        from PIL import Image as pillow

        found = {
            "vectors of images": self.images([pillow.fromarray(image) for image in images]),
            "vectors of texts": self.texts(["a photo of a red circle", "a photo of three green squares"]),
        }
        return {name: vectors.double().cpu().numpy() for name, vectors in found.items()}

    def moved(self, device: torch.device, dtype: torch.dtype) -> ClipModel:
        """The same model on another device or in another dtype."""
        other = copy.copy(self)
        other.device, other.dtype, other._model = device, dtype, None
        return other

    @property
    def longest(self) -> int:
        """Tokens of the longest text, with those of its beginning and end; 77 in OpenAI's models."""
        return int(self.model.config.text_config.max_position_embeddings)

    def is_truncated(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts are longer than the model takes."""
        return [len(row) > self.longest for row in self._rows(texts)]

    def _rows(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        from sanactl.model.guard import offline, reading

        if self._tokenizer is None:
            from transformers import AutoTokenizer

            with offline(self.files.folder), reading(f"{self.files.folder}: its tokenizer"):
                self._tokenizer = AutoTokenizer.from_pretrained(self.files.folder, trust_remote_code=False)
        cleaned = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        rows: list[list[int]] = self._tokenizer(cleaned, **options)["input_ids"]
        return rows


def prepared(image: Image, size: int) -> torch.Tensor:
    """CLIP's input for an image, float32 [3, size, size]: bicubic to the shorter side, the middle, normalised."""
    import numpy as np
    import torch
    from PIL import Image as pillow

    width, height = image.size
    short = min(width, height)
    wide, high = (size if side == short else int(size * side / short) for side in (width, height))
    if (wide, high) != (width, height):
        image = image.resize((wide, high), pillow.Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    image = image.crop((left, top, left + size, top + size)).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _unit(features: Any) -> torch.Tensor:
    # Tensors in transformers 4; in 5 an output whose pooled vector is the projected one.
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    vectors = vectors.float()
    return vectors / vectors.norm(dim=-1, keepdim=True)
