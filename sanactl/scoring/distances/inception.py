"""The InceptionV3 of the FID, under the names of its public PyTorch weights.

It is the TensorFlow network of 2015-12-05. It differs from torchvision's: average pooling leaves the padding out of
its mean, the last block has maximum pooling in its place, and there are 1,008 classes.
Source: Heusel et al. 2017; Szegedy et al. 2015 (the blocks); pytorch-fid `inception.py` (names and differences).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    import torch

__all__ = ["LAYERS", "InceptionV3"]

# Numbers of features that can be taken: after the two first maximum poolings, before the auxiliary classifier, and
# at the end; all but the last are averaged over their places.
LAYERS = (64, 192, 768, 2048)

Pair = tuple[int, int]


class Conv(nn.Module):
    """Convolution, batch norm with TensorFlow's epsilon, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | Pair, padding: int | Pair = 0, stride: int = 1
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def mean_pool(x: torch.Tensor) -> torch.Tensor:
    """3 x 3 means, each over those places that are inside the image."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Block35(nn.Module):
    """Mixed_5b, 5c, 5d: 35 x 35 places, 224 channels and those of the pool."""

    def __init__(self, inputs: int, pool: int):
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48, 1), Conv(48, 64, 5, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64, 1), Conv(64, 96, 3, 1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 1)
        self.branch_pool = Conv(inputs, pool, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _joined(self.branch1x1(x), five, double, self.branch_pool(mean_pool(x)))


class Reduction35(nn.Module):
    """Mixed_6a: from 35 x 35 to 17 x 17 places, 288 to 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(288, 64, 1), Conv(64, 96, 3, 1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _joined(self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2))


class Block17(nn.Module):
    """Mixed_6b to 6e: 17 x 17 places, 768 channels; `width` inside the factored 7 x 7 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        wide, high = ((1, 7), (0, 3)), ((7, 1), (3, 0))
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, width, 1)
        self.branch7x7_2, self.branch7x7_3 = Conv(width, width, *wide), Conv(width, 192, *high)
        self.branch7x7dbl_1 = Conv(768, width, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = Conv(width, width, *high), Conv(width, width, *wide)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = Conv(width, width, *high), Conv(width, 192, *wide)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return _joined(self.branch1x1(x), seven, double, self.branch_pool(mean_pool(x)))


class Reduction17(nn.Module):
    """Mixed_7a: from 17 x 17 to 8 x 8 places, 768 to 1,280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(768, 192, 1), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(768, 192, 1), Conv(192, 192, (1, 7), (0, 3))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1), (3, 0)), Conv(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return _joined(self.branch3x3_2(self.branch3x3_1(x)), seven, functional.max_pool2d(x, 3, stride=2))


class Block8(nn.Module):
    """Mixed_7b and 7c: 8 x 8 places, 2,048 channels. The last one of TensorFlow's network pools by the maximum."""

    def __init__(self, inputs: int, *, last: bool = False):
        super().__init__()
        self.last = last
        wide, high = ((1, 3), (0, 1)), ((3, 1), (1, 0))
        self.branch1x1, self.branch3x3_1 = Conv(inputs, 320, 1), Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, *wide), Conv(384, 384, *high)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448, 1), Conv(448, 384, 3, 1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, *wide), Conv(384, 384, *high)
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.last else mean_pool(x)
        return _joined(
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )


class InceptionV3(nn.Module):
    """The network up to its last pooling.

    Args: features: how many, one of `LAYERS`; later layers are not computed.
    """

    def __init__(self, features: int = 2048) -> None:
        super().__init__()
        self.features = features
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, stride=2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, 1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = Block35(192, 32), Block35(256, 64), Block35(288, 64)
        self.Mixed_6a = Reduction35()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = Block17(128), Block17(160), Block17(160)
        self.Mixed_6e = Block17(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = Reduction17(), Block8(1280), Block8(2048, last=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [images, features] of [images, 3, 299, 299] with values from -1 to 1."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        if self.features > 64:
            x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        if self.features > 192:
            x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
            x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        if self.features > 768:
            x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def _joined(*branches: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat(branches, 1)
