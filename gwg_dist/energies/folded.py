"""The residual network on frozen weights: f and ∇f in x alone, written out, without autograd.

The stem has no activation. So the stem and what reads it, the strided 3x3 convolution and the strided 1x1 shortcut of
the first block, are linear maps of the 5x5 patches of the image around every second pixel. Where the convolution
reaches over the border of the image it reads zeros, and not what the stem would give there: pixels at the border have
kernels of their own. What follows is the forward pass of ``ResNetEnergy`` and its transpose from the end to the start.

Images are ``(B, H, W, C)`` here.
"""

from __future__ import annotations

from itertools import groupby, product
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies.silu import silu_backward
from gwg_dist.spaces import Change
from gwg_dist.structure import Evaluation

AT_ONCE = 50  # chains that a CPU evaluates together: their activations stay near, and the library's loops are long
PATCH = 5
MARGIN = 2  # a patch starts two pixels before its centre


T = TypeVar("T")


class Edge(NamedTuple):
    """The difference of the kernel at some pixels of the output.

    Args:
        rows: of the output.
        columns: of the output.
        kernel: ``(25 C_in, C)``.
        bias: ``(C,)``.
    """

    rows: slice
    columns: slice
    kernel: Tensor
    bias: Tensor

    def of(self, pixels: Tensor) -> Tensor:
        """A view of the pixels of ``(B, H, W, ...)`` that lie here."""
        return pixels[:, self.rows, self.columns]


class Front(NamedTuple):
    """The stem folded into what reads it: images ``(B, H, W, C_in)`` to two ``(B, ceil(H / 2), ceil(W / 2), C)``.

    Args:
        kernel: ``(25 C_in, C)``, from patches to the strided convolution.
        bias: ``(C,)``.
        edges: differences of this kernel at the border.
        shortcut: ``(25 C_in, C)``, from patches to the shortcut.
        shortcut_bias: ``(C,)``.
    """

    kernel: Tensor
    bias: Tensor
    edges: tuple[Edge, ...]
    shortcut: Tensor
    shortcut_bias: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[1:3]
        margins = (0, 0, MARGIN, MARGIN + width % 2, MARGIN, MARGIN + height % 2)  # an odd side becomes even
        padded = functional.pad(image, margins)
        patches = padded.unfold(1, PATCH, 2).unfold(2, PATCH, 2).flatten(3)
        convolved = functional.linear(patches, self.kernel.T, self.bias)
        for edge in self.edges:
            edge.of(convolved).add_(edge.of(patches) @ edge.kernel).add_(edge.bias)
        return convolved, functional.linear(patches, self.shortcut.T, self.shortcut_bias)

    def backward(self, convolved: Tensor, shortcut: Tensor, size: tuple[int, int]) -> Tensor:
        """The gradient in the image, ``(B, *size, C_in)``, from those in the two outputs."""
        patches = (convolved @ self.kernel.T).add_(shortcut @ self.shortcut.T)
        for edge in self.edges:
            edge.of(patches).add_(edge.of(convolved) @ edge.kernel.T)
        height, width = (2 * length + PATCH - 2 for length in convolved.shape[1:3])
        columns = patches.flatten(1, 2).transpose(1, 2)
        image = functional.fold(columns, (height, width), PATCH, stride=2)[:, :, MARGIN:, MARGIN:]
        return image[:, :, : size[0], : size[1]].permute(0, 2, 3, 1)


class Convolution(NamedTuple):
    """A 3x3 convolution of padding 1.

    Args:
        weight: ``(C, C, 3, 3)``.
        bias: ``(C,)``.
        back: for stride 1 the weight by which a gradient is convolved on its way back, turned by 180 degrees.
    """

    weight: Tensor
    bias: Tensor
    back: Tensor

    def forward(self, h: Tensor, *, stride: int = 1) -> Tensor:
        return functional.conv2d(h.permute(0, 3, 1, 2), self.weight, self.bias, stride, 1).permute(0, 2, 3, 1)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient in the input, for stride 1."""
        return functional.conv2d(grad.permute(0, 3, 1, 2), self.back, None, 1, 1).permute(0, 2, 3, 1)

    def backward_strided(self, grad: Tensor, size: tuple[int, int]) -> Tensor:
        """The gradient in the input ``(B, *size, C)``, for stride 2."""
        beyond = [(length - 1) % 2 for length in size]
        image = functional.conv_transpose2d(grad.permute(0, 3, 1, 2), self.weight, None, 2, 1, beyond)
        return image.permute(0, 2, 3, 1)


class Layers(NamedTuple):
    """The weights behind the first convolution.

    Args:
        front: what reads the image.
        front_second: the first block's second convolution.
        strided: the second block's first convolution.
        strided_second: its second, with the bias of the shortcut added to its own.
        shortcut: the second block's shortcut, ``(C, C)``, from the input's channels.
        blocks: two convolutions for each block of stride 1.
        head: ``(C,)``.
    """

    front: Front
    front_second: Convolution
    strided: Convolution
    strided_second: Convolution
    shortcut: Tensor
    blocks: tuple[tuple[Convolution, Convolution], ...]
    head: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The head's product ``(B,)``, and the inputs of all SiLUs."""
        first, h = self.front.forward(image)
        second = self.front_second.forward(functional.silu(first)).add_(h)
        kept, h = [first, second], functional.silu(second)
        first = self.strided.forward(h, stride=2)
        second = self.strided_second.forward(functional.silu(first)).add_(h[:, ::2, ::2] @ self.shortcut)
        kept, h = [*kept, first, second], functional.silu(second)
        for one, two in self.blocks:
            first = one.forward(h)
            second = two.forward(functional.silu(first)).add_(h)
            kept, h = [*kept, first, second], functional.silu(second)
        return h.mean((1, 2)) @ self.head, kept

    def backward(self, kept: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The gradient in the image, ``(B, *size, C_in)``. The inputs of all SiLUs are taken off their list."""
        pixels = kept[-1].shape[1] * kept[-1].shape[2]
        grad = (self.head / pixels).expand_as(kept[-1])
        for one, two in reversed(self.blocks):
            through = silu_backward(grad, kept.pop())
            grad = one.backward(silu_backward(two.backward(through), kept.pop())).add_(through)
        through = silu_backward(grad, kept.pop())
        inner = silu_backward(self.strided_second.backward(through), kept.pop())
        grad = self.strided.backward_strided(inner, (kept[-1].shape[1], kept[-1].shape[2]))
        grad[:, ::2, ::2].add_(through @ self.shortcut.T)
        through = silu_backward(grad, kept.pop())
        inner = silu_backward(self.front_second.backward(through), kept.pop())
        return self.front.backward(inner, through, size)


class FoldedResNet(NamedTuple):
    """f = -E of a residual network and ∇f. A move is an evaluation.

    Args:
        layers: of the forward pass.
        back: of the backward pass, the same, perhaps in bfloat16.
        constant: 0-d, the head's bias.
        embedding: ``(C_image K, C_in)`` and ``(C_in,)``, from one-hot form to channels; empty for binary images.
        image_shape: (C_image, H, W).
        at_once: chains that a CPU evaluates together.
    """

    layers: Layers
    back: Layers
    constant: Tensor
    embedding: tuple[Tensor, ...]
    image_shape: tuple[int, int, int]
    at_once: int

    @property
    def in_bfloat16(self) -> bool:
        return self.back.head.dtype == torch.bfloat16

    @property
    def backward_products(self) -> int:
        """Of the convolutions behind the front."""
        half, quarter = (-(-self.image_shape[1] // n) * -(-self.image_shape[2] // n) for n in (2, 4))
        size = self.layers.strided.weight.numel()
        return size * (half + 2 * quarter * (1 + len(self.layers.blocks)))

    def mixed(self) -> FoldedResNet:
        return self._replace(back=in_bfloat16(self.layers))

    def f(self, x: Tensor) -> Tensor:
        found = [self.layers.forward(self._image(part))[0] for part in self._parts(x)]
        return torch.cat(found)[: len(x)] + self.constant

    def start(self, x: Tensor) -> Evaluation:
        parts = [self._evaluate(part) for part in self._parts(x)]
        f, grad = (torch.cat(found)[: len(x)] for found in zip(*parts, strict=True))
        return Evaluation(f, grad)

    def move(self, here: Evaluation, x: Tensor, change: Change) -> Evaluation:
        """From scratch: one site reaches most of the network."""
        return self.start(x)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return equal_parts(x, self.at_once if x.is_cpu else len(x))

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f, kept = self.layers.forward(self._image(x))
        dtype = self.back.head.dtype
        grad = self.back.backward([values.to(dtype) for values in kept], self.image_shape[1:])
        return f + self.constant, self._in_points(grad.to(x.dtype), x)

    def _image(self, x: Tensor) -> Tensor:
        pixels = x.unflatten(1, self.image_shape)
        if not self.embedding:
            return pixels.permute(0, 2, 3, 1)
        weight, bias = self.embedding
        return functional.linear(pixels.permute(0, 2, 3, 1, 4).flatten(3), weight.T, bias)

    def _in_points(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient in x from that in the image."""
        if not self.embedding:
            return grad.permute(0, 3, 1, 2).reshape(x.shape)
        one_hot = grad @ self.embedding[0].T
        return one_hot.unflatten(3, (self.image_shape[0], -1)).permute(0, 3, 1, 2, 4).reshape(x.shape)


def in_bfloat16(layers: T) -> T:
    """The same weights, rounded."""
    if isinstance(layers, Tensor):
        return cast(T, layers.bfloat16())
    if not isinstance(layers, tuple):
        return layers
    parts = [in_bfloat16(part) for part in layers]
    return cast(T, type(layers)(*parts) if hasattr(layers, "_fields") else tuple(parts))


def equal_parts(x: Tensor, at_once: int) -> tuple[Tensor, ...]:
    """``x`` in parts of one size, at most ``at_once``; the last is filled up with zeros.

    One size is one kernel of the library underneath, and so one rounding for all chains.
    """
    count = max(-(-len(x) // max(at_once, 1)), 1)
    size = max(-(-len(x) // count), 1)
    missing = count * size - len(x)
    return (torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x).split(size)


def fold_front(stem: nn.Conv2d, first: nn.Conv2d, shortcut: nn.Conv2d, size: tuple[int, int]) -> Front:
    """The stem in the strided convolution and the shortcut that read it, for images of ``size``."""
    whole = _folded(stem, first, torch.ones(3, 3, dtype=torch.bool))
    edges = []
    for (rows, up), (columns, across) in product(*map(_taps, size)):
        inside = up[:, None] & across
        if not inside.all():
            edges.append(
                Edge(rows, columns, *(a - b for a, b in zip(_folded(stem, first, inside), whole, strict=True)))
            )
    project = shortcut.weight.new_zeros(len(shortcut.weight), shortcut.in_channels, 3, 3)
    project[:, :, 1, 1] = shortcut.weight[:, :, 0, 0]
    project_bias = shortcut.weight[:, :, 0, 0] @ _bias(stem) + _bias(shortcut)
    return Front(*whole, tuple(edges), _as_rows(functional.conv_transpose2d(project, stem.weight)), project_bias)


def _folded(stem: nn.Conv2d, first: nn.Conv2d, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and bias where the convolution reads the stem at the taps ``inside`` ``(3, 3)`` alone."""
    weight = first.weight * inside.to(first.weight)
    return _as_rows(functional.conv_transpose2d(weight, stem.weight)), weight.sum((2, 3)) @ _bias(stem) + _bias(first)


def _taps(length: int) -> list[tuple[slice, Tensor]]:
    """Pixels of the strided output along a side of the image, by which of three taps lie inside of it."""
    centres = range(0, length, 2)
    inside = [tuple(0 <= centre + tap < length for tap in (-1, 0, 1)) for centre in centres]
    found, start = [], 0
    for taps, group in groupby(inside):
        stop = start + len(list(group))
        found.append((slice(start, stop), torch.tensor(taps)))
        start = stop
    return found


def _as_rows(kernel: Tensor) -> Tensor:
    """``(C, C_in, 5, 5)`` to ``(25 C_in, C)``."""
    return kernel.flatten(1).T.contiguous()


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def convolution(layer: nn.Conv2d, beside: nn.Conv2d | None = None) -> Convolution:
    """A layer's weights; the bias of another one, whose output is added to this one's, is added to its own."""
    weight = layer.weight.detach().clone(memory_format=torch.channels_last)
    back = weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
    bias = _bias(layer) + (0.0 if beside is None else _bias(beside))
    return Convolution(weight, bias, back)
