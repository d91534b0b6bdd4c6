"""The other side: Gibbs-With-Gradients with the evaluations that the published code makes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, PottsEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.energies.resnet import BasicBlock
from gwg_dist.reference import Reference
from gwg_dist.spaces import Binary


def published_energy(energy: Energy) -> Callable[[Tensor], Tensor]:
    """The same weights in plain layers.

    Networks: NCHW memory, Swish as x * sigmoid(x). Ising and Potts models, the torus as well: one product with the
    dense J, which is made once (the published code makes it in every forward; that is not counted here).
    """
    if isinstance(energy, IsingEnergy | IsingTorusEnergy):
        coupling, bias = energy.coupling.detach(), energy.bias.detach()
        return lambda x: -((2 * x - 1) * ((2 * x - 1) @ coupling + bias)).sum(1)
    if isinstance(energy, PottsEnergy):
        pairs, field = energy.coupling.detach(), energy.field.detach()
        return lambda x: -(x.flatten(1) * (x.flatten(1) @ pairs / 2 + field)).sum(1)
    if not isinstance(energy, ResNetEnergy):
        return energy
    plain = ResNetEnergy(energy.space, num_channels=energy.head.in_features, num_blocks=len(energy.blocks) - 2)
    plain.load_state_dict(energy.state_dict())
    plain.to(next(energy.parameters()).device).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]

    def forward(x: Tensor) -> Tensor:
        h = plain.stem(x.unflatten(1, plain.image_shape))
        for block in plain.blocks:
            assert isinstance(block, BasicBlock)
            shortcut = h
            if isinstance(block.shortcut, nn.Sequential):
                project = block.shortcut[1]
                assert isinstance(project, nn.Conv2d)
                shortcut = functional.conv2d(h, project.weight, project.bias, stride=2)
            h = _swish(block.second(_swish(block.first(h))) + shortcut)
        return plain.head(h.mean((2, 3)))[:, 0]

    return forward


def _swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


class PublishedStep:
    """Four forwards, two backwards and a distribution object on each side (Grathwohl et al., 2021, algorithm 1)."""

    def __init__(self, energy: Energy, reference: Reference) -> None:
        self.model, self.energy = energy, published_energy(energy)
        self.binary = isinstance(energy.space, Binary)
        probs = reference.probs.float()
        self.base = (
            torch.distributions.Bernoulli(probs=probs[:, 1])
            if self.binary
            else torch.distributions.OneHotCategorical(probs=probs)
        )

    def log_prob(self, x: Tensor, beta: float = 1.0) -> Tensor:
        if isinstance(self.model, RBMEnergy):  # the published one has no base distribution
            return -beta * self.energy(x)
        return self.base.log_prob(x).sum(1) - beta * self.energy(x)

    def proposal(self, x: Tensor, beta: float) -> torch.distributions.OneHotCategorical:
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.log_prob(x, beta).sum(), x)
        with torch.no_grad():
            if self.binary:
                logits = -(2 * x - 1) * grad / 2
            else:
                logits = ((grad - (x * grad).sum(-1, keepdim=True)) / 2 - 1e9 * x).flatten(1)
        return torch.distributions.OneHotCategorical(logits=logits, validate_args=False)

    def changed(self, x: Tensor, change: Tensor) -> Tensor:
        if self.binary:
            return (1 - x) * change + x * (1 - change)
        change = change.view_as(x)
        return x * (1 - change.sum(-1, keepdim=True)) + change

    def __call__(self, x: Tensor, beta: float = 1.0) -> Tensor:
        forward = self.proposal(x, beta)
        change = forward.sample()
        proposed = self.changed(x, change)
        backward = self.proposal(proposed, beta)
        undo = change if self.binary else (x * change.view_as(x).sum(-1, keepdim=True)).flatten(1)
        log_accept = (
            self.log_prob(proposed, beta) - self.log_prob(x, beta) + backward.log_prob(undo) - forward.log_prob(change)
        )
        accepted = (log_accept.exp() > torch.rand_like(log_accept)).float()
        accepted = accepted.reshape(-1, *[1] * (x.ndim - 1))
        return (proposed * accepted + x * (1 - accepted)).detach()

    def chain(self, x: Tensor, num_steps: int) -> Tensor:
        for _ in range(num_steps):
            x = self(x)
        return x

    def ais(self, x: Tensor, num_temperatures: int) -> Tensor:
        """Two more forwards a temperature for the weights."""
        log_weights = torch.zeros(len(x), device=x.device)
        for t in range(num_temperatures):
            low, high = t / num_temperatures, (t + 1) / num_temperatures
            with torch.no_grad():  # the published loop keeps no graph here either
                log_weights += self.log_prob(x, high) - self.log_prob(x, low)
            x = self(x, high)
        return log_weights
