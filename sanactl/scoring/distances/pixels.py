"""From an image to a network's input, as the programs do whose numbers are published.

Their resizing differs, and so do their scores. Images are uint8 [height, width, 3], RGB; inputs are float32
[3, side, side].
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]

__all__ = [
    "PROTOCOLS",
    "as_jpeg",
    "centre_square",
    "clean",
    "pytorch_fid",
    "sana",
    "squashed",
    "torch_fidelity",
]

SIDE = 299  # of the input of InceptionV3


def pytorch_fid(image: Image) -> torch.Tensor:
    """pytorch-fid: bilinear without antialiasing, from 0 to 1, then from -1 to 1."""
    from torch.nn.functional import interpolate

    small = interpolate(_tensor(image) / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return 2 * small[0] - 1


def sana(image: Image, size: int = 512) -> torch.Tensor:
    """SANA's `tools/metrics/pytorch-fid`: Pillow's bilinear to the shorter side, the middle, then as pytorch-fid."""
    import numpy as np
    from PIL import Image as pillow

    height, width = image.shape[:2]
    short = min(height, width)
    # As torchvision's Resize rounds (down) and its CenterCrop (to the nearest).
    wide, high = (size if side == short else int(size * side / short) for side in (width, height))
    if (wide, high) != (width, height):
        image = np.asarray(pillow.fromarray(image).resize((wide, high), pillow.Resampling.BILINEAR))
    top, left = round((high - size) / 2), round((wide - size) / 2)
    return pytorch_fid(image[top : top + size, left : left + size])


def torch_fidelity(image: Image) -> torch.Tensor:
    """torch-fidelity: bilinear as TensorFlow 1 does (corners are aligned on one side only), (x - 128) / 128."""
    import torch

    pixels = _tensor(image)[0]
    # It computes positions in float32: position times the ratio of sizes.
    for axis in (2, 1):
        length = pixels.shape[axis]
        at = torch.arange(SIDE, dtype=torch.float32) * torch.tensor(length / SIDE, dtype=torch.float32)
        low = at.long().clamp_max(length - 1)
        high = (low + 1).clamp_max(length - 1)
        share = (at - low.float()).view([SIDE if a == axis else 1 for a in range(3)])
        first = pixels.index_select(axis, low)
        pixels = first + (pixels.index_select(axis, high) - first) * share
    return (pixels - 128) / 128


def clean(image: Image) -> torch.Tensor:
    """clean-fid: Pillow's bicubic of each channel as float32, cut to 0 to 255, not rounded; (x - 128) / 128."""
    import numpy as np
    import torch
    from PIL import Image as pillow

    channels = [
        np.asarray(
            pillow.fromarray(np.ascontiguousarray(image[:, :, c], dtype=np.float32)).resize(
                (SIDE, SIDE), pillow.Resampling.BICUBIC
            )
        )
        for c in range(3)
    ]
    return (torch.from_numpy(np.stack(channels).clip(0, 255)) - 128) / 128


# The ways to InceptionV3, by the name of `--protocol`.
PROTOCOLS: dict[str, Callable[[Image], torch.Tensor]] = {
    "sana": sana,
    "pytorch-fid": pytorch_fid,
    "torch-fidelity": torch_fidelity,
    "clean": clean,
}


def squashed(image: Image, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """dgm-eval's way to DINOv2: Pillow's bicubic to a square whatever the shape, normalised."""
    from PIL import Image as pillow

    return _normalised(pillow.fromarray(image).resize((side, side), pillow.Resampling.BICUBIC), mean, std)


def centre_square(image: Image, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """CMMD's way to CLIP: the largest square in the middle, Pillow's bicubic, normalised."""
    from PIL import Image as pillow

    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = pillow.fromarray(image[top : top + short, left : left + short].copy())
    return _normalised(square.resize((side, side), pillow.Resampling.BICUBIC), mean, std)


def as_jpeg(path: Path, image: Image) -> Image:
    """The image as it is after a JPEG of Pillow's default quality (75), which SANA's script saves; a JPEG is kept."""
    import numpy as np
    from PIL import Image as pillow

    from sanactl.files.regular import open_regular

    with open_regular(path, what="image") as stream:
        if stream.read(3) == b"\xff\xd8\xff":
            return image
    data = io.BytesIO()
    pillow.fromarray(image).save(data, format="JPEG")
    with pillow.open(data, formats=("JPEG",)) as again:
        return np.asarray(again.convert("RGB"))


def _tensor(image: Image) -> torch.Tensor:
    """float32 [1, 3, height, width], 0 to 255."""
    import torch

    return torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None]


def _normalised(image: object, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
