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


class EnergyState(NamedTuple):
    """What moves with a chain: E(x) ``(B,)``, ∇E(x) in the shape of x, and ``aux``, each ``(B, ...)``."""

    energy: Tensor
    grad: Tensor
    aux: tuple[Tensor, ...] = ()


class Increments(Protocol):
    """An energy with its weights frozen and laid out so that a one-site change costs less than an evaluation.

    A named tuple of tensors, so that a compiled or captured step sees new weights as new inputs.
    """

    def start(self, x: Tensor) -> EnergyState:
        """From scratch."""
        ...

    def move(self, state: EnergyState, x: Tensor, change: Change) -> EnergyState:
        """The state at ``x``, reached from ``state`` by ``change``. Equal to ``start(x)`` up to rounding."""
        ...


@runtime_checkable
class DensePairs(Protocol):
    """Increments of an energy of at most pairs of sites.

    Binary: turning x_i by ±1 changes ∇E by ∓``rows[i]``, ``(D, D)``. Categorical: setting site i from a to b changes ∇E
    by ``rows[i K + a] - rows[i K + b]``, ``(D K, D K)``.
    """

    @property
    def rows(self) -> Tensor: ...


@runtime_checkable
class SparsePairs(Protocol):
    """Increments of a binary energy of at most pairs of sites, of which each site has few.

    Turning x_i by ±1 changes ∇E at ``neighbours[i]`` by ∓``rows[i]``, each ``(D, n)``, and nowhere else.
    """

    @property
    def neighbours(self) -> Tensor: ...

    @property
    def rows(self) -> Tensor: ...

    def steepest(self) -> Tensor:
        """A bound on every entry of abs(∇E) at every x, 0-d."""
        ...


@runtime_checkable
class ColouredPairs(SparsePairs, Protocol):
    """Sparse pairs with the sites, int64, of each colour: every site once, no two neighbours of one colour."""

    @property
    def colours(self) -> tuple[Tensor, ...]: ...

    def start(self, x: Tensor) -> EnergyState: ...


@runtime_checkable
class HiddenUnits(Protocol):
    """Increments of E(x) = -b^T x - sum_h softplus(W x + c)_h; the state's one ``aux`` is W x + c, ``(B, H)``.

    ``weight`` is W, ``(H, D)``; ``columns`` its transpose, contiguous; ``visible_bias`` b.
    """

    @property
    def weight(self) -> Tensor: ...

    @property
    def columns(self) -> Tensor: ...

    @property
    def visible_bias(self) -> Tensor: ...

    def start(self, x: Tensor) -> EnergyState: ...


@runtime_checkable
class Incremental(Protocol):
    """An energy that can follow a chain by increments."""

    def increments(self) -> Increments:
        """From the weights as they are now, without a gradient."""
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

    refresh_every = 0
    """Steps after which a chain is to be evaluated from scratch, because its state accumulates rounding; 0: never."""

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
        self.closed_form = (
            energy if isinstance(energy, ClosedForm) and _still_holds(energy, "energy_and_grad") else None
        )

    def frozen(self) -> Target:
        """The fastest exact target for many steps on the present weights: by increments where the energy has them."""
        if isinstance(self.energy, Incremental) and _still_holds(self.energy, "increments"):
            with torch.no_grad():
                return IncrementalTarget(self, self.energy.increments())
        return self

    def plain(self) -> Target:
        """The same distribution with neither closed form nor increments: autograd on ``forward`` alone."""
        plain = Target(self.energy, self.reference, space=self.space)
        plain.closed_form = None
        return plain

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
        at_once = getattr(self.energy, "cpu_chains_at_once", len(x)) if x.device.type == "cpu" else len(x)
        parts = [self._differentiate(part) for part in x.split(max(at_once, 1))]
        if len(parts) == 1:
            return parts[0]
        return Evaluation(torch.cat([part.f for part in parts]), torch.cat([part.grad for part in parts]))

    def _differentiate(self, x: Tensor) -> Evaluation:
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

    def first_order_difference(self, evaluation: Evaluation, change: Change, beta: Tensor) -> Tensor:
        """d(x) of log p_beta for one change a chain, ``(B,)`` nats."""
        d = beta * self.space.first_order_difference(evaluation.grad, change)
        return d if self.reference is None else d + self.space.first_order_difference(self.reference.weights, change)

    def log_ratio(self, x_new: Tensor, f_new: Tensor, x: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        """log p_beta(x_new) - log p_beta(x), ``(B,)`` nats, taken as a difference so that large terms cancel first."""
        log_ratio = beta * (f_new - f)
        if self.reference is None:
            return log_ratio
        return log_ratio + ((x_new - x) * self.reference.weights).flatten(1).sum(1)

    def log_ratio_of(self, change: Change, f_new: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        """``log_ratio`` where x_new is x after ``change``."""
        log_ratio = beta * (f_new - f)
        if self.reference is None:
            return log_ratio
        return log_ratio + self.space.first_order_difference(self.reference.weights, change)

    def log_prob(self, x: Tensor, f: Tensor, beta: Tensor | float = 1.0) -> Tensor:
        """log ref(x) + beta f, unnormalised, ``(B,)`` nats. A missing reference counts as the uniform one."""
        if self.reference is not None:
            return self.reference.log_prob(x) + beta * f
        log_uniform = torch.tensor(float(self.space.num_categories), dtype=torch.float64).log()
        return beta * f - self.space.num_sites * log_uniform.to(f)

    def _summed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy = self.energy(x)
        return energy.sum(), energy


class IncrementalTarget(Target):
    """A target on frozen weights whose evaluation moves by increments; made by ``Target.frozen``."""

    refresh_every = 1000

    def __init__(self, target: Target, increments: Increments) -> None:
        super().__init__(target.energy, target.reference, space=target.space)
        self.increments = increments

    def evaluate(self, x: Tensor) -> Evaluation:
        with torch.no_grad():
            return _evaluation(self.increments.start(x))

    def move(self, evaluation: Evaluation, x: Tensor, change: Change | None = None) -> Evaluation:
        if change is None:
            return self.evaluate(x)
        here = EnergyState(-evaluation.f, -evaluation.grad, evaluation.aux)
        return _evaluation(self.increments.move(here, x, change))


def _evaluation(state: EnergyState) -> Evaluation:
    return Evaluation(-state.energy, -state.grad, state.aux)


def _still_holds(energy: object, shortcut: str) -> bool:
    """Whether no subclass has replaced ``forward`` below the class that gave the shortcut."""
    order = type(energy).__mro__
    owner = {
        name: next((i for i, cls in enumerate(order) if name in vars(cls)), len(order))
        for name in (shortcut, "forward")
    }
    return owner[shortcut] <= owner["forward"]
