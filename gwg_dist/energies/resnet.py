"""The residual network of Grathwohl et al. (2021, appendix E), for images of any size.

Convolution 3x3 to C channels; two basic blocks of stride 2, six of stride 1; mean pool; linear to one number. SiLU
(Swish), biases everywhere, no normalisation. With C = 64 on 28x28 binary images it has 599,873 parameters.
Categorical images enter through an embedding of their pixels; with C = 64 and 4 numbers a pixel it has 602,629
parameters on 28x28 images of 256 levels.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.base import Energy
from gwg_dist.energies.embedding import Embedding, table_of
from gwg_dist.energies.folded import AT_ONCE, FoldedResNet, Layers, convolution, fold_front
from gwg_dist.spaces import Binary, Space

logger = logging.getLogger("gwg_dist")


class BasicBlock(nn.Module):
    """SiLU(conv(SiLU(conv(h))) + shortcut(h)); a strided block has a strided 1x1 convolution as its shortcut.

    The stride of the shortcut is taken by a pooling over single pixels: the same numbers, and a much cheaper backward.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if stride == 1 else nn.Sequential(nn.AvgPool2d(1, stride), nn.Conv2d(channels, channels, 1))
        )

    def forward(self, h: Tensor) -> Tensor:
        return functional.silu(self.second(functional.silu(self.first(h))) + self.shortcut(h))

    @property
    def projection(self) -> nn.Conv2d:
        """The convolution in the shortcut of a strided block."""
        assert isinstance(self.shortcut, nn.Sequential)
        project = self.shortcut[1]
        assert isinstance(project, nn.Conv2d)
        return project


class ResNetEnergy(Energy):
    """E(x) for images.

    Args:
        space: images of shape (H, W) or (C, H, W), Binary or Categorical.
        num_channels: width of the network.
        num_blocks: blocks of stride 1 after the two of stride 2.
        num_embedding: numbers that a pixel of a categorical image becomes, by one table for all pixels (4 in the paper
            for Frey Faces, 8 for Histopathology). Unused for binary images.

    Raises:
        ValueError: a space that is not an image, a count below its minimum.
    """

    cpu_chains_at_once = 25
    learning_rate: ClassVar[float] = 1e-4

    def __init__(self, space: Space, *, num_channels: int = 64, num_blocks: int = 6, num_embedding: int = 4) -> None:
        super().__init__(space)
        if len(space.shape) not in (2, 3):
            raise ValueError(f"ResNetEnergy needs a space of shape (H, W) or (C, H, W), got {space}")
        for name, value, least in (
            ("num_channels", num_channels, 1), ("num_blocks", num_blocks, 0), ("num_embedding", num_embedding, 1)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        channels, height, width = space.shape if len(space.shape) == 3 else (1, *space.shape)
        self.image_shape = channels, height, width
        channels_in = self.image_shape[0]
        self.embedding: Embedding | None = None
        if isinstance(space, Binary) and num_embedding != 4:
            logger.warning("ResNetEnergy.num_embedding has no effect on binary images, got %d", num_embedding)
        if not isinstance(space, Binary):
            self.embedding = Embedding(channels_in * space.width, num_embedding)
            channels_in = num_embedding
        self.stem = nn.Conv2d(channels_in, num_channels, 3, padding=1)
        strides = [2, 2] + [1] * num_blocks
        self.blocks = nn.Sequential(*(BasicBlock(num_channels, stride) for stride in strides))
        self.head = nn.Linear(num_channels, 1)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.stem(self._image(x)))
        return self.head(h.mean((2, 3)))[:, 0]

    def structure(self) -> FoldedResNet:
        """The network in x alone, by a forward and a backward pass written out."""
        entry, strided, *others = (block for block in self.blocks if isinstance(block, BasicBlock))
        layers = Layers(
            fold_front(self.stem, entry.first, entry.projection, self.image_shape[1:]),
            convolution(entry.second),
            convolution(strided.first),
            convolution(strided.second, strided.projection),
            strided.projection.weight[:, :, 0, 0].T.clone(memory_format=torch.contiguous_format),
            tuple((convolution(block.first), convolution(block.second)) for block in others),
            -self.head.weight[0],
        )
        table = table_of(self.embedding)
        return FoldedResNet(layers, layers, -self.head.bias[0], table, self.image_shape, AT_ONCE)

    def _image(self, x: Tensor) -> Tensor:
        if self.embedding is None:
            return x.unflatten(1, self.image_shape)
        pixels = x.unflatten(1, self.image_shape).permute(0, 2, 3, 1, 4).flatten(3)  # (B, H, W, C * K)
        return self.embedding(pixels).permute(0, 3, 1, 2)
