"""What a kernel asks of a model: its value and gradient at x, and again after a move.

The annealed family is p_beta(x) ∝ ref(x) exp(beta f(x)) with f = -E, so beta = 0 is the reference and beta = 1 the
model. An Evaluation keeps f and ∇f *untempered*: moving beta costs nothing, one temperature of annealed importance
sampling is one gradient, and a chain per beta is the same code with a vector beta.

The sign of an energy is flipped here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from gwg_dist.reference import Reference
from gwg_dist.spaces import Change, Space
from gwg_dist.structure import Evaluation, Mixable, Network, Structure, offered
from gwg_dist.tools.provenance import has_bfloat16

__all__ = ["Evaluation", "MixedPrecision", "StructuredTarget", "Target"]

MixedPrecision = bool | Literal["auto"]

MIXED_FROM = 250_000  # multiplications of the backward pass, a point; below, conversions take what products give


class Target:
    """p_beta(x) ∝ ref(x) exp(-beta E(x)) as a kernel sees it.

    Args:
        energy: a callable x -> E(x) ``(B,)`` nats, with an attribute ``space`` unless ``space`` is given.
        reference: the factorised reference; None is the uniform distribution.
        space: where x lives.
        mixed_precision: whether ∇f is taken from products in bfloat16 where weights are float32 and the energy's
            structure can; f is not, and chains stay exact. "auto": for networks of a certain size, on CPUs that
            multiply bfloat16 themselves. On CUDA only True: some of cuDNN's convolutions are not repeatable, and what
            it gains has not been measured.

    Raises:
        ValueError: where no space is known.
    """

    refresh_every = 0
    """Steps after which a chain is to be evaluated from scratch, because its state accumulates rounding; 0: never."""

    def __init__(
        self,
        energy: Callable[[Tensor], Tensor],
        reference: Reference | None = None,
        *,
        space: Space | None = None,
        mixed_precision: MixedPrecision = "auto",
    ) -> None:
        found = space if space is not None else getattr(energy, "space", None)
        if not isinstance(found, Space):
            raise ValueError("a target needs a space: give the energy an attribute `space`, or pass space=")
        self.energy = energy
        self.reference = reference
        self.space = found
        self.mixed_precision = mixed_precision
        self.short_cuts = True

    @property
    def dtype(self) -> torch.dtype:
        """Of points: that of the reference, else of the energy's first floating parameter, else float32."""
        if self.reference is not None:
            return self.reference.weights.dtype
        parameters = self.energy.parameters() if isinstance(self.energy, nn.Module) else ()
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Of points, likewise; the CPU where nothing says."""
        if self.reference is not None:
            return self.reference.weights.device
        parameters = self.energy.parameters() if isinstance(self.energy, nn.Module) else ()
        return next((p.device for p in parameters), torch.device("cpu"))

    def encode(self, codes: Tensor) -> Tensor:
        """Codes ``(B, D)`` as floats of the target's dtype."""
        return self.space.encode(codes, self.dtype)

    def frozen(self) -> Target:
        """The fastest exact target for many steps on the present weights: by its structure where the energy has one."""
        if not self.short_cuts or not offered(self.energy, "structure"):
            return self
        with torch.no_grad():
            structure = self.energy.structure()  # pyright: ignore[reportFunctionMemberAccess]
            if isinstance(structure, Mixable) and self._mixes(structure):
                structure = structure.mixed()
        return self if structure is None else StructuredTarget(self, structure)

    def _mixes(self, structure: Mixable) -> bool:
        if self.mixed_precision == "auto":
            large, on_cpu = structure.backward_products >= MIXED_FROM, self.device.type == "cpu"
            return large and on_cpu and self.dtype == torch.float32 and has_bfloat16(self.device)
        return bool(self.mixed_precision) and self.dtype == torch.float32

    def plain(self) -> Target:
        """The same distribution without short cuts: autograd on ``forward`` alone."""
        plain = Target(self.energy, self.reference, space=self.space)
        plain.short_cuts = False
        return plain

    @property
    def how(self) -> str:
        """How it is evaluated, in a word or two."""
        return "closed form" if self._has_closed_form() else "autograd"

    def f(self, x: Tensor) -> Tensor:
        """-E(x), ``(B,)`` nats, without a gradient."""
        with torch.no_grad():
            return -self._checked(self.energy(x), x)

    def evaluate(self, x: Tensor) -> Evaluation:
        """f and ∇f from one forward and one backward pass; weights get no gradient."""
        if torch.compiler.is_compiling():  # func.grad can be traced, at no cost; run eagerly it is 1.6 times slower
            with torch.no_grad():
                grad, energy = torch.func.grad(self._summed, has_aux=True)(x)
            return Evaluation(-energy, -grad)
        if self._has_closed_form():
            with torch.no_grad():
                energy, grad = self.energy.energy_and_grad(x)  # pyright: ignore[reportFunctionMemberAccess]
            return Evaluation(-self._checked(energy, x), -_like(grad, x, self.energy))
        at_once = getattr(self.energy, "cpu_chains_at_once", len(x)) if x.device.type == "cpu" else len(x)
        parts = [self._differentiate(part) for part in x.split(max(at_once, 1))]
        if len(parts) == 1:
            return parts[0]
        return Evaluation(torch.cat([part.f for part in parts]), torch.cat([part.grad for part in parts]))

    def move(self, evaluation: Evaluation, x: Tensor, change: Change | None = None) -> Evaluation:
        """The evaluation at ``x``, reached from the state of ``evaluation`` by ``change`` (None: by anything).

        Here it is made afresh; a target that knows better overrides this.
        """
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
        return log_ratio + ((x_new - x) * self.reference.weights).flatten(1).sum(1, dtype=torch.float64)

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
        return beta * f - self.space.log_num_states

    def _has_closed_form(self) -> bool:
        return self.short_cuts and offered(self.energy, "energy_and_grad")

    def _differentiate(self, x: Tensor) -> Evaluation:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self._checked(self.energy(x), x)
            (grad,) = torch.autograd.grad(energy.sum(), x)
        return Evaluation(-energy.detach(), -grad)

    def _summed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy = self._checked(self.energy(x), x)
        return energy.sum(), energy

    def _checked(self, energy: Tensor, x: Tensor) -> Tensor:
        if energy.shape != x.shape[:1]:
            raise ValueError(
                f"{_name(self.energy)} must return one energy a point, shape ({len(x)},), got {tuple(energy.shape)}"
            )
        return energy


class StructuredTarget(Target):
    """A target on frozen weights that is evaluated, and followed through moves, by its structure."""

    refresh_every = 1000

    def __init__(self, target: Target, structure: Structure) -> None:
        super().__init__(target.energy, target.reference, space=target.space)
        self.structure = structure

    def frozen(self) -> Target:
        return self

    @property
    def how(self) -> str:
        mixed = isinstance(self.structure, Mixable) and self.structure.in_bfloat16
        return type(self.structure).__name__ + (", gradient in bfloat16" if mixed else "")

    def f(self, x: Tensor) -> Tensor:
        if not isinstance(self.structure, Network):
            return super().f(x)
        with torch.no_grad():
            return self.structure.f(x)

    def evaluate(self, x: Tensor) -> Evaluation:
        with torch.no_grad():
            return self.structure.start(x)

    def move(self, evaluation: Evaluation, x: Tensor, change: Change | None = None) -> Evaluation:
        return self.evaluate(x) if change is None else self.structure.move(evaluation, x, change)


@contextmanager
def evaluation_mode(target: Target) -> Iterator[None]:
    """Within it no part of the energy is in training mode: with dropout a chain would sample another distribution."""
    modules = list(target.energy.modules()) if isinstance(target.energy, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _like(grad: Tensor, x: Tensor, energy: object) -> Tensor:
    """The gradient in the precision of x. Raises ValueError where it has another shape."""
    if grad.shape != x.shape:
        raise ValueError(f"{_name(energy)}: the gradient must have the shape of x, {x.shape}, got {grad.shape}")
    return grad.to(x.dtype)


def _name(energy: object) -> str:
    return getattr(energy, "__name__", type(energy).__name__)
