"""Sweeps of dense pairs in C are those in torch: the same thresholds to 1e-11, from every state, on the same noise."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, PottsEnergy
from gwg_dist.samplers import BlockGibbs, Target, plan_chains
from gwg_dist.samplers.conditionals import RULES
from gwg_dist.samplers.fast import native
from gwg_dist.samplers.fast.pair_sweep import PairSweep
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import check_invariance, random_target

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler")

MODELS: dict[str, tuple[Energy, float]] = {
    "ising": (IsingEnergy(Binary(6)), 0.3),
    "potts": (PottsEnergy(Categorical(4, 4)), 0.6),
    "ragged potts": (PottsEnergy(Categorical(4, (2, 4, 3, 2))), 0.6),
    "binary potts": (PottsEnergy(Binary(5)), 0.6),
}


def at_thresholds(target: Target, sampler: BlockGibbs, x: Tensor, beta: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Noise within 1e-11 of where a site becomes another category, for every site of a sweep, and where it leads."""
    state, generator = sampler.init(target, x, beta), torch.Generator().manual_seed(seed)
    blocks: Any = state.blocks
    uniform = torch.zeros(x.shape[:2], dtype=torch.float64)
    for site in blocks.blocks:
        share = blocks.transition(x, site, beta)
        edge = share if share.ndim == 2 else share.cumsum(2)[..., :-1]
        edge = edge.reshape(len(x), -1)
        picked = torch.randint(edge.shape[1], (len(x), 1), generator=generator)
        side = 2 * torch.randint(2, (len(x), 1), generator=generator) - 1
        uniform[:, site] = (edge.gather(1, picked) + 1e-11 * side).clamp(1e-11, 1 - 1e-11)
        x = x.clone()
        x[:, site] = blocks.drawn(share, uniform[:, site], x.dtype)
    return uniform, x


def check_thresholds(kernel: PairSweep, name: str, rule: str, beta: float) -> None:
    energy, spread = MODELS[name]
    target = random_target(energy, spread=spread).frozen()
    x, b = target.encode(target.space.all_codes()), torch.tensor(beta, dtype=torch.float64)
    for seed in range(8):
        uniform, end = at_thresholds(target, BlockGibbs(rule), x, b, seed)
        after, info = kernel.step(target, kernel.init(target, x, b), uniform.T.contiguous())
        assert torch.equal(after.x, end)
        assert torch.equal(info.hops, target.space.hamming(x, end))
        fresh = target.evaluate(end)
        assert (after.fields - fresh.grad.flatten(1)).abs().max() < 1e-12
        assert (after.f - fresh.f).abs().max() < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_a_sweep_in_c_is_the_sweep_in_torch(name: str, rule: str, beta: float) -> None:
    check_thresholds(PairSweep(rule), name, rule, beta)


@dataclass(frozen=True)
class OtherRule(PairSweep):
    """A mutant: draws by the other rule."""

    def init(self, target, x, beta):
        state = super().init(target, x, beta)
        state.kernel.values.metropolised = float(self.rule == "gibbs")
        return state


@dataclass(frozen=True)
class StaleBeta(PairSweep):
    """A mutant: sweeps at half of beta."""

    def init(self, target, x, beta):
        state = super().init(target, x, beta)
        state.scale.mul_(0.5)
        return state


@dataclass(frozen=True)
class StaleFields(PairSweep):
    """A mutant: fields of another state."""

    def init(self, target, x, beta):
        state = super().init(target, x, beta)
        state.fields.copy_(state.fields.roll(1, 0))
        return state


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mutant", [OtherRule, StaleBeta, StaleFields])
def test_mutants_of_the_sweep_are_caught(mutant: type[PairSweep], rule: str) -> None:
    with pytest.raises(AssertionError):
        check_thresholds(mutant(rule), "potts", rule, 1.0)


@pytest.mark.parametrize("num_chains", [1, 15, 16, 17])
def test_chains_that_do_not_fill_a_tile(num_chains: int) -> None:
    """Each chain is swept alike in whatever company, with a beta of its own."""
    target = random_target(PottsEnergy(Categorical(7, 3)), spread=0.4).frozen()
    generator, kernel = torch.Generator().manual_seed(0), PairSweep("metropolised")
    x = target.encode(target.space.uniform_codes(num_chains, generator=generator))
    beta = torch.rand(num_chains, generator=generator, dtype=torch.float64)
    state = kernel.init(target, x, beta)
    noise = kernel.draw(state, generator)
    end = kernel.step(target, state, noise)[0].x
    for b in range(num_chains):
        alone = kernel.init(target, x[b : b + 1], beta[b : b + 1])
        assert torch.equal(kernel.step(target, alone, noise[:, b : b + 1].contiguous())[0].x, end[b : b + 1])


@pytest.mark.parametrize("rule", RULES)
def test_chains_stay_at_the_target_in_single_precision(rule: str) -> None:
    target = random_target(PottsEnergy(Categorical(3, 4)), spread=0.6, dtype=torch.float32)
    check_invariance(BlockGibbs(rule), target, num_steps=3, dtype=torch.float32)


@pytest.mark.parametrize("energy", [PottsEnergy(Categorical(20, 5)), IsingEnergy(Binary(40))], ids=["potts", "ising"])
def test_fields_are_from_scratch_to_rounding_over_a_thousand_sweeps(energy: Energy) -> None:
    """In float32, as many as between two refreshes."""
    target = random_target(energy, spread=0.1, dtype=torch.float32).frozen()
    generator, kernel = torch.Generator().manual_seed(0), PairSweep()
    state = kernel.init(target, target.encode(energy.space.uniform_codes(8, generator=generator)), torch.ones(()))
    for _ in range(target.refresh_every):
        state, _ = kernel.step(target, state, kernel.draw(state, generator))
    fresh = target.evaluate(state.x)
    assert (state.fields - fresh.grad.flatten(1)).abs().max() < 1e-4 * (1 + fresh.grad.abs().max())
    assert (state.f - fresh.f).abs().max() < 1e-4 * (1 + fresh.f.abs().max())


@dataclass(frozen=True)
class Mine(BlockGibbs):
    """A user's variant."""


def test_which_sweeps_go_through_c() -> None:
    def planned(sampler: BlockGibbs, energy: Energy) -> object:
        x = energy.space.encode(energy.space.uniform_codes(3, generator=torch.Generator().manual_seed(0)))
        return plan_chains(sampler, Target(energy), x).kernel

    assert planned(BlockGibbs("metropolised"), PottsEnergy(Categorical(3, 3))) == PairSweep("metropolised")
    assert planned(BlockGibbs(), IsingEnergy(Binary(5))) == PairSweep()
    assert planned(Mine(), IsingEnergy(Binary(5))) == Mine()
    assert planned(BlockGibbs("metropolised"), IsingTorusEnergy(Binary((3, 3)))) == BlockGibbs("metropolised")
