"""The networks whose features are compared: InceptionV3, DINOv2, CLIP."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sanactl.errors import InputError, UsageError
from sanactl.scoring.detectors.check import Checked

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["ClipFeatures", "Dinov2Features", "InceptionFeatures", "Network"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What dgm-eval gives DINOv2, whatever size it was trained with.
DINO_SIDE = 224


class Network(Checked, Protocol):
    """What makes features of images. It can be checked against the CPU.

    Attributes:
        label: name for scores. digest: "sha256:..." of its weights.
        protocol: name of the way from an image to features. size: side of its input after cropping, in pixels.
        device, dtype: torch's.
        width: number of features; known once it is loaded.
    """

    protocol: str
    size: int

    @property
    def width(self) -> int: ...

    def prepare(self, image: NDArray[np.uint8], path: Path, *, generated: bool) -> torch.Tensor:
        """The input for an image, float32 [3, side, side] on the CPU; called in several threads.

        Args:
            image: uint8 [height, width, 3], RGB.
            path: its file.
            generated: whether it is an image that is scored, not one of the reference.
        """

    def features(self, inputs: torch.Tensor) -> NDArray[np.float32]:
        """[N, width] of inputs [N, 3, side, side].

        Raises:
            InputError: a feature is no finite number.
        """


class _Loaded(ABC):
    """A network that is loaded at first use, in one dtype on one device, and can be checked against the CPU."""

    label: str
    digest: str

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._model: Any = None

    @abstractmethod
    def _load(self) -> Any: ...

    @abstractmethod
    def _forward(self, inputs: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def prepare(self, image: NDArray[np.uint8], path: Path, *, generated: bool) -> torch.Tensor: ...

    @property
    def model(self) -> Any:
        """The model, loaded at first use."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def features(self, inputs: torch.Tensor) -> NDArray[np.float32]:
        """See `Network.features`."""
        import numpy as np

        found = self._exact(inputs).float().cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(f"{self.label} gives values that are no finite numbers", hint="try --dtype fp32")
        return np.asarray(found)

    def _exact(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        from sanactl.model.files import exact_fp32

        with torch.inference_mode(), exact_fp32():
            return self._forward(inputs.to(self.device, self.dtype))

    def probe(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
        """Features as unit vectors; see `sanactl.scoring.detectors.check.Checked`."""
        import torch

        inputs = torch.stack([self.prepare(image, Path(), generated=False) for image in images])
        found = self._exact(inputs).double()
        return {"features": (found / found.norm(dim=-1, keepdim=True)).cpu().numpy()}

    def moved(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The same network on another device or in another dtype."""
        other = copy.copy(self)
        other.device, other.dtype, other._model = device, dtype, None
        return other


class InceptionFeatures(_Loaded):
    """The FID's InceptionV3.

    Args:
        weights: a file or a hash; see `sanactl.scoring.distances.weights.find_weights`.
        protocol: a name of `sanactl.scoring.distances.pixels.PROTOCOLS`.
        width: 64, 192, 768 or 2048 features.
        size: of SANA's protocol, the shorter side before the middle is cut out; None for its 512.
        device, dtype: torch's.

    Raises:
        UsageError: no such protocol or number of features, a size for another protocol, no weights.
        InputError: the weights cannot be read, or are not what their name says.
    """

    def __init__(
        self,
        weights: str | None,
        protocol: str,
        width: int,
        size: int | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        from sanactl.scoring.distances.inception import LAYERS
        from sanactl.scoring.distances.pixels import PROTOCOLS, SIDE
        from sanactl.scoring.distances.weights import find_weights

        super().__init__(device, dtype)
        if protocol not in PROTOCOLS:
            raise UsageError(f"no protocol {protocol!r}", hint=f"there are: {', '.join(PROTOCOLS)}")
        if width not in LAYERS:
            raise UsageError(f"--features {width}: take one of {', '.join(map(str, LAYERS))}")
        if size is not None and protocol != "sana":
            raise UsageError(f"--size is of --protocol sana; {protocol} resizes to {SIDE} at once")
        if size is not None and not 16 <= size <= 8192:
            raise UsageError(f"--size {size}: take 16 to 8192 pixels")
        self.protocol, self.width = protocol, width
        self.size = (size or 512) if protocol == "sana" else SIDE
        self.weights = find_weights(weights)
        self.label, self.digest = self.weights.label, f"sha256:{self.weights.sha256}"

    def _load(self) -> Any:
        from sanactl.model.pretrained import place_on

        return place_on(self.weights.load(self.width).to(self.dtype), self.device)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(inputs)
        return found

    def prepare(self, image: NDArray[np.uint8], path: Path, *, generated: bool) -> torch.Tensor:
        """See `Network.prepare`; SANA's protocol saves what was generated as JPEG first."""
        from sanactl.scoring.distances.pixels import PROTOCOLS, as_jpeg, sana

        if self.protocol == "sana":
            return sana(as_jpeg(path, image) if generated else image, self.size)
        return PROTOCOLS[self.protocol](image)


class Dinov2Features(_Loaded):
    """DINOv2 as dgm-eval has it: 224 x 224, the class token after the last norm.

    Args:
        source: a folder or a Hub id of transformers' DINOv2.
        device, dtype: torch's.

    Raises:
        InputError: there is no such model, or it is of another kind.
    """

    protocol = "dgm-eval"
    size = DINO_SIDE

    def __init__(self, source: str, device: torch.device, dtype: torch.dtype) -> None:
        from sanactl.model.files import model_files

        super().__init__(device, dtype)
        self.files = model_files(source, ("dinov2",), "a DINOv2")
        self.label, self.digest = self.files.name, self.files.digest

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def _load(self) -> Any:
        from sanactl.model.files import load_model
        from sanactl.model.guard import reading

        model = load_model(self.files, "AutoModel", self.device, self.dtype)
        with reading(f"{self.files.folder}"):
            _resize_positions(model.embeddings)
        return model

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(pixel_values=inputs).pooler_output
        return found

    def prepare(self, image: NDArray[np.uint8], path: Path, *, generated: bool) -> torch.Tensor:
        """See `Network.prepare`."""
        from sanactl.scoring.distances.pixels import squashed

        return squashed(image, self.size, IMAGENET_MEAN, IMAGENET_STD)


def _resize_positions(embeddings: Any) -> None:
    """Position embeddings for 224 px in place of those for the size that the model was trained with.

    Meta's code resizes them by a factor that is 0.1 patches too large (`interpolate_offset`), and transformers to the
    size itself. Published distances are of Meta's code.
    """
    import torch
    from torch.nn.functional import interpolate

    positions = embeddings.position_embeddings
    side = math.isqrt(positions.shape[1] - 1)
    new = DINO_SIDE // embeddings.patch_embeddings.projection.kernel_size[0]
    if new == side:
        return
    width = positions.shape[2]
    patches = positions[:, 1:].float().reshape(1, side, side, width).permute(0, 3, 1, 2)
    factor = (new + 0.1) / side
    patches = interpolate(patches, mode="bicubic", antialias=False, scale_factor=(factor, factor))
    resized = torch.cat([positions[:, :1].float(), patches.permute(0, 2, 3, 1).reshape(1, -1, width)], 1)
    embeddings.position_embeddings = torch.nn.Parameter(resized.to(positions.dtype), requires_grad=False)


class ClipFeatures(_Loaded):
    """CLIP's unit vectors of images as CMMD has them: the largest square in the middle.

    Args:
        source: a folder or a Hub id of transformers' CLIP.
        device, dtype: torch's.

    Raises:
        InputError: there is no such model, or it is of another kind.
    """

    protocol = "cmmd"

    def __init__(self, source: str, device: torch.device, dtype: torch.dtype) -> None:
        from sanactl.model.files import model_files

        super().__init__(device, dtype)
        self.files = model_files(source, ("clip",), "a CLIP")
        self.label, self.digest = self.files.name, self.files.digest
        self.size = int(self._numbers("vision_config", "image_size", 224))

    def _numbers(self, part: str, name: str, default: int) -> int:
        """A number of a part of config.json, or of the whole of it."""
        inner = self.files.config.get(part) if part else self.files.config
        value = inner.get(name, default) if isinstance(inner, dict) else default
        if type(value) is not int or not 0 < value <= 65536:
            raise InputError(f"{self.files.folder}/config.json: {name} is no number of 1 to 65,536")
        return value

    @property
    def width(self) -> int:
        return self._numbers("", "projection_dim", 512)

    def _load(self) -> Any:
        from sanactl.model.files import load_model

        return load_model(self.files, "AutoModel", self.device, self.dtype)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = self.model.get_image_features(pixel_values=inputs)
        # Tensors in transformers 4; in 5 an output whose pooled vector is the projected one.
        vectors: torch.Tensor = getattr(found, "pooler_output", found)
        if vectors.dtype.itemsize < 4:
            vectors = vectors.float()
        return vectors / vectors.norm(dim=-1, keepdim=True)

    def prepare(self, image: NDArray[np.uint8], path: Path, *, generated: bool) -> torch.Tensor:
        """See `Network.prepare`."""
        from sanactl.scoring.clip_model import MEAN, STD
        from sanactl.scoring.distances.pixels import centre_square

        return centre_square(image, self.size, MEAN, STD)
