"""Gradients in bfloat16, energies in full precision: the chains are exact all the same.

On CPUs without instructions for bfloat16 the same products are emulated: nothing here depends on the machine.
"""

import copy

import pytest
import torch
from torch import Tensor

from gwg_dist import target as targets
from gwg_dist.energies import Energy, MLPEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.samplers import GWG, Target, plan_chains, run_chain
from gwg_dist.samplers.fast.binary import BinaryGWG
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.structure import Evaluation, HiddenUnits, Mixable
from gwg_dist.target import StructuredTarget
from gwg_dist.testing import CheckError, check_detailed_balance
from tests.samplers.test_fast_paths import in_place_matrix, needs_a_compiler, with_reference
from tests.samplers.test_invariance import ALPHA, chi_square_p_value
from tests.support.kernels import assert_exact, exact_pi

ENERGIES: dict[str, tuple[Energy, float]] = {
    "rbm": (RBMEnergy(Binary(6), num_hidden=9), 0.7),
    "mlp": (MLPEnergy(Binary(6), num_hidden=8), 1.0),
    "categorical mlp": (MLPEnergy(Categorical(3, 3), num_hidden=8), 1.0),
    "resnet": (ResNetEnergy(Binary((3, 2)), num_channels=3, num_blocks=1), 0.7),
}
BINARY = [name for name in ENERGIES if "categorical" not in name]


class GivenGradient(torch.autograd.Function):
    """E(x) = -f, with the gradient that a structure gives, for what works by autograd."""

    @staticmethod
    def forward(ctx, x: Tensor, target: Target) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        evaluation = target.evaluate(x)
        ctx.save_for_backward(evaluation.grad)
        return -evaluation.f

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return -slope * grad.reshape(-1, *[1] * (slope.ndim - 1)), None


def mixed(name: str) -> StructuredTarget:
    """f in float64, ∇f from bfloat16; ``energy`` gives both as well."""
    energy, spread = ENERGIES[name]
    frozen = with_reference(energy, spread=spread).frozen()
    assert isinstance(frozen, StructuredTarget)
    assert isinstance(frozen.structure, Mixable)
    found = StructuredTarget(frozen, frozen.structure.mixed())
    whole = frozen.evaluate(points(frozen))
    rough = found.evaluate(points(frozen))
    assert torch.equal(rough.f, whole.f)
    gap = float((rough.grad - whole.grad).abs().max() / whole.grad.abs().max())
    assert 1e-5 < gap < 0.1, "bfloat16 shows, and no more"
    return found


def points(target: Target, dtype: torch.dtype = torch.float64) -> Tensor:
    return target.space.encode(target.space.all_codes(), dtype)


@pytest.mark.parametrize("name", ENERGIES)
def test_detailed_balance_to_1e_12(name: str) -> None:
    check_detailed_balance(GWG(), mixed(name), beta=0.8)


@needs_a_compiler
@pytest.mark.parametrize("name", BINARY)
def test_detailed_balance_of_the_step_in_c(name: str) -> None:
    target = mixed(name)
    pi = exact_pi(target, 0.8)
    exact = copy.copy(target)
    target.energy = lambda x: GivenGradient.apply(x, exact)  # pyright: ignore[reportAttributeAccessIssue]
    assert_exact(in_place_matrix(BinaryGWG(), target, 0.8), pi)


class RoughAcceptance(StructuredTarget):
    """A mutant: f in reduced precision as well."""

    def evaluate(self, x: Tensor) -> Evaluation:
        found = super().evaluate(x)
        return found._replace(f=found.f.bfloat16().to(found.f.dtype))

    def move(self, evaluation: Evaluation, x: Tensor, change=None) -> Evaluation:
        return self.evaluate(x)


class FineWayBack(StructuredTarget):
    """A mutant: the proposal comes from bfloat16, the way back from full precision."""

    def move(self, evaluation: Evaluation, x: Tensor, change=None) -> Evaluation:
        assert isinstance(self.structure, HiddenUnits)
        return self.structure._replace(back=None).start(x)


@pytest.mark.parametrize("mutant", [RoughAcceptance, FineWayBack])
def test_mutants_are_caught(mutant: type[StructuredTarget]) -> None:
    target = mixed("rbm")
    with pytest.raises(CheckError):
        check_detailed_balance(GWG(), mutant(target, target.structure), beta=0.8)


@pytest.mark.parametrize("name", ["rbm", "mlp"])
def test_chains_in_float32_stay_at_the_target(name: str) -> None:
    energy, spread = ENERGIES[name]
    target = with_reference(energy, spread=spread, dtype=torch.float32)
    target.mixed_precision = True
    assert chi_square_p_value(GWG(), target, beta=0.8, num_steps=7, dtype=torch.float32) > ALPHA


@pytest.mark.parametrize(
    "energy",
    [
        RBMEnergy(Binary(20), num_hidden=33, scale=0.5),
        MLPEnergy(Binary(20), num_hidden=48),
        ResNetEnergy(Binary((6, 7)), num_channels=16, num_blocks=1),
    ],
    ids=["rbm", "mlp", "resnet"],
)
def test_a_chain_s_gradient_is_a_function_of_its_point_alone(energy: Energy) -> None:
    """The same bits whatever the other chains are, and when it comes back: an uneven number of chains, filled up."""
    target = Target(energy, mixed_precision=True).frozen()
    assert "gradient in bfloat16" in target.how
    generator = torch.Generator().manual_seed(0)
    x, others = (energy.space.encode(energy.space.uniform_codes(53, generator=generator)) for _ in range(2))
    first = target.evaluate(x)
    kept = torch.arange(53) % 3 == 0
    again = target.evaluate(torch.where(kept[:, None], x, others))
    assert torch.equal(first.f[kept], again.f[kept])
    assert torch.equal(first.grad[kept], again.grad[kept])
    assert not torch.equal(first.grad[~kept], again.grad[~kept])


def test_it_is_on_by_itself_where_it_is_faster_and_off_with_a_flag(monkeypatch) -> None:
    large, small = RBMEnergy(Binary(600), num_hidden=500), RBMEnergy(Binary(64), num_hidden=192)

    def how(energy: Energy, setting: targets.MixedPrecision = "auto") -> bool:
        target = Target(energy, mixed_precision=setting)
        x = torch.zeros(2, energy.space.num_sites, dtype=target.dtype)
        return "gradient in bfloat16" in str(plan_chains(GWG(), target, x))

    monkeypatch.setattr(targets, "has_bfloat16", lambda device: True)
    assert how(large)
    assert not how(small)
    assert not how(large, False)
    assert how(small, True)
    assert not how(copy.deepcopy(large).double(), True), "float64 is asked for because it is exact"
    monkeypatch.setattr(targets, "has_bfloat16", lambda device: False)
    assert not how(large)


def test_acceptance_hardly_changes() -> None:
    energy = RBMEnergy(Binary(60), num_hidden=30, scale=0.3)
    x = energy.space.encode(energy.space.uniform_codes(200, generator=torch.Generator().manual_seed(0)))
    rates = [
        run_chain(
            GWG(), Target(energy, mixed_precision=setting), x, num_steps=100, generator=torch.Generator().manual_seed(1)
        ).accept_prob.mean()
        for setting in (False, True)
    ]
    assert abs(float(rates[0] - rates[1])) < 0.01
