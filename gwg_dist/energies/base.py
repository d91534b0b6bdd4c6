"""The interface of an energy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from gwg_dist.spaces import Binary, Space
from gwg_dist.structure import MayKnowItself

PAIR_SITES = 150


class PairWeights(NamedTuple):
    """A parameter that couples pairs of sites: what penalties on couplings see.

    Args:
        parameter: ``(D w, D w)`` with a block of w x w numbers for each pair of sites; or that of M edges alone,
            ``(M,)`` with a number or ``(M, K, K)`` with a block for each.
        width: w; of no matter where the edges are listed.
    """

    parameter: nn.Parameter
    width: int = 1

    def norms(self) -> Tensor:
        """The Frobenius norm of every block, ``(D, D)``, or of every edge's ``(M,)``."""
        return self.sums(self.parameter.square()).sqrt()

    def sums(self, numbers: Tensor) -> Tensor:
        """The sum of ``numbers``, one for each of the parameter's, over every block, ``(D, D)`` or ``(M,)``."""
        if self.parameter.ndim == 2:
            return self._blocks(numbers).sum((1, 3))
        return numbers.view(len(numbers), -1).sum(1)

    def scale(self, factors: Tensor) -> None:
        """Multiply every block by its factor, in place; ``factors`` has the shape of ``norms()``."""
        if self.parameter.ndim == 2:
            self._blocks(self.parameter).mul_(factors[:, None, :, None])
        else:
            self.parameter.view(len(factors), -1).mul_(factors[:, None])

    def _blocks(self, numbers: Tensor) -> Tensor:
        num = len(numbers) // self.width
        return numbers.view(num, self.width, num, self.width)


class Energy(MayKnowItself, ABC):
    """E(x), low where x is probable: p(x) = ref(x) exp(-E(x)) / Z.

    A new energy is one file: a subclass whose first argument is ``space`` and whose one method is ``forward``:

        class Pairs(Energy):
            def __init__(self, space, width: int = 8):
                super().__init__(space)
                self.factor = nn.Linear(space.num_sites, width)

            def forward(self, x):
                return self.factor(x).square().sum(1)

    The energy must be differentiable in x taken as real numbers: the proposal reads ∇E. It may also offer three short
    cuts: ``energy_and_grad(x)``, ``(E(x), ∇E(x))``, in place of autograd; ``structure()``, what f = -E is made of
    (see ``gwg_dist.structure``), which many steps on the same weights are then run by; and, where E is linear in each
    site given the others, ``site_slopes(x)``, -∇E(x) with a gradient in the weights, which gives pseudo-likelihood all
    its conditionals from one product.

    Args:
        space: where x lives.
    """

    learning_rate: ClassVar[float] = 1e-3
    """The rate that a run takes for this energy where its settings say "auto", see ``rate_on``."""

    weight_decay: ClassVar[float] = 0.0
    """The decoupled weight decay that a run takes for it, likewise."""

    cpu_chains_at_once = 2**31
    """Chains that a CPU evaluates together: convolutions are faster where the activations of a part fit its caches."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space

    @classmethod
    def rate_on(cls, space: Space) -> float:
        """The learning rate that a run takes on ``space`` where its settings say "auto"."""
        del space
        return cls.learning_rate

    def pair_weights(self) -> PairWeights | None:
        """The parameter that couples pairs of sites; None where there is no such parameter."""
        return None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """E(x) in nats, ``(B,)``, from floats ``(B, D)`` (binary) or one-hot ``(B, D, K)`` (categorical)."""


def rate_of_pairs(rate: float, space: Space) -> float:
    """The learning rate of a model of all pairs of D sites, ``rate`` up to 150 sites: rate * min(1, (150 / D)^2).

    Adam moves each of the D^2 / 2 couplings by up to the rate in an update, and so E by up to rate * D^2 / 2. Beyond
    150 sites this bound stays what it is for 150.
    """
    return float(f"{rate * min(1.0, (PAIR_SITES / space.num_sites) ** 2):.2g}")


def require_binary(energy: type[Energy], space: Space) -> None:
    """Raise ValueError, naming both, where an energy for binary points gets another space."""
    if not isinstance(space, Binary):
        raise ValueError(f"{energy.__name__} is for Binary spaces, got {space}; MLPEnergy and ResNetEnergy take any")
