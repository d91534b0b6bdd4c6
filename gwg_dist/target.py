"""What a kernel asks of a model: its value and gradient at x, and again after a move.

The annealed family is p_beta(x) ∝ ref(x) exp(beta f(x)) with f = -E, so beta = 0 is the reference and beta = 1 the
model. An Evaluation keeps f and ∇f *untempered*: moving beta costs nothing, one temperature of annealed importance
sampling is one gradient, and a chain per beta is the same code with a vector beta.

This is the one place where the sign of the energy is flipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from gwg_dist.spaces import Change, Space


class Evaluation(NamedTuple):
    """A model at x. Accepting a proposal is one ``where`` a field.

    Args:
        f: ``(B,)``, -E(x) in nats.
        grad: ∇f(x), the shape of x.
        aux: what ``Target.move`` may want of the current state, each ``(B, ...)``.
    """

    f: Tensor
    grad: Tensor
    aux: tuple[Tensor, ...] = ()


class FactorizedReference(Protocol):
    """log ref(x) = constant + <weights, x>, normalised."""

    @property
    def weights(self) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sample(self, num: int, *, generator: torch.Generator) -> Tensor: ...


@runtime_checkable
class ClosedForm(Protocol):
    """An energy that knows its own gradient: no autograd, no graph."""

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(E(x), ∇E(x))``."""
        ...


class Target:
    """p_beta(x) ∝ ref(x) exp(-beta E(x)) as a kernel sees it.

    Args:
        energy: a callable x -> E(x) ``(B,)``, with an attribute ``space`` unless ``space`` is given.
        reference: the factorised reference; None is the uniform distribution.
        space: where x lives.

    Raises:
        ValueError: where no space is known.
    """

    def __init__(
        self,
        energy: Callable[[Tensor], Tensor],
        reference: FactorizedReference | None = None,
        *,
        space: Space | None = None,
    ) -> None:
        found = space if space is not None else getattr(energy, "space", None)
        if not isinstance(found, Space):
            raise ValueError("a target needs a space: give the energy an attribute `space`, or pass space=")
        self.energy = energy
        self.reference = reference
        self.space = found
        self.closed_form = energy if isinstance(energy, ClosedForm) and _still_holds(energy) else None

    def f(self, x: Tensor) -> Tensor:
        """-E(x), ``(B,)`` nats, without a gradient."""
        with torch.no_grad():
            return -self.energy(x)

    def evaluate(self, x: Tensor) -> Evaluation:
        """f and ∇f from one forward and one backward pass; weights get no gradient."""
        if self.closed_form is not None:
            with torch.no_grad():
                energy, grad = self.closed_form.energy_and_grad(x)
            return Evaluation(-energy, -grad)
        if torch.compiler.is_compiling():  # func.grad can be traced, at no cost; run eagerly it is 1.6 times slower
            with torch.no_grad():
                grad, energy = torch.func.grad(self._summed, has_aux=True)(x)
            return Evaluation(-energy, -grad)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.energy(x)
            (grad,) = torch.autograd.grad(energy.sum(), x)
        return Evaluation(-energy.detach(), -grad)

    def move(self, evaluation: Evaluation, x: Tensor, change: Change | None = None) -> Evaluation:
        """The evaluation at ``x``, reached from the state of ``evaluation`` by ``change`` (None: by anything).

        Here it is made afresh; a target that knows better overrides this.
        """
        del evaluation, change
        return self.evaluate(x)

    def grad_log_prob(self, evaluation: Evaluation, beta: Tensor) -> Tensor:
        """∇ log p_beta, the shape of x; ``beta`` is 0-d or one a chain, ``(B,)``."""
        grad = beta.reshape(-1, *[1] * (evaluation.grad.ndim - 1)) * evaluation.grad
        return grad if self.reference is None else grad + self.reference.weights

    def log_ratio(self, x_new: Tensor, f_new: Tensor, x: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        """log p_beta(x_new) - log p_beta(x), ``(B,)`` nats, taken as a difference so that large terms cancel first."""
        log_ratio = beta * (f_new - f)
        if self.reference is None:
            return log_ratio
        return log_ratio + ((x_new - x) * self.reference.weights).flatten(1).sum(1)

    def log_prob(self, x: Tensor, f: Tensor, beta: Tensor | float = 1.0) -> Tensor:
        """log ref(x) + beta f, unnormalised, ``(B,)`` nats. A missing reference counts as the uniform one."""
        if self.reference is not None:
            return self.reference.log_prob(x) + beta * f
        log_uniform = torch.tensor(float(self.space.num_categories), dtype=torch.float64).log()
        return beta * f - self.space.num_sites * log_uniform.to(f)

    def _summed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy = self.energy(x)
        return energy.sum(), energy


def _still_holds(energy: ClosedForm) -> bool:
    """Whether no subclass has replaced ``forward`` below the class that gave the closed form."""
    order = type(energy).__mro__
    owner = {name: next((i for i, cls in enumerate(order) if name in vars(cls)), len(order)) for name in _PAIR}
    return owner["energy_and_grad"] <= owner["forward"]


_PAIR = ("energy_and_grad", "forward")
