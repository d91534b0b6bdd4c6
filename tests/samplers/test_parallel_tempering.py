"""Parallel tempering on the joint space of its replicas: enumerated, by chi-square, and with swaps that are wrong."""

import inspect
import itertools
import textwrap
from dataclasses import dataclass
from typing import NamedTuple, cast

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import IsingEnergy, IsingTorusEnergy, PottsEnergy
from gwg_dist.samplers import (
    DMALA,
    DULA,
    GWG,
    BlockGibbs,
    EnumeratedGibbs,
    Gibbs,
    HammingBall,
    Info,
    ParallelTempering,
    Sampler,
    Target,
    run_chain,
    tuned_ladder,
)
from gwg_dist.samplers import parallel_tempering as module
from gwg_dist.samplers.base import accept_probability
from gwg_dist.samplers.fast import Compiled, compiled
from gwg_dist.samplers.parallel_tempering import SETTLE, LadderNoise, LadderState
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing import CheckError, check_invariance
from gwg_dist.testing.kernels import _chi_square_p_value, number_of
from gwg_dist.testing.models import exact_pi, random_target
from tests.support.kernels import make_target

ALPHA = 1e-6
LADDER = (0.3, 1.0)


class OneState(NamedTuple):
    x: Tensor
    f: Tensor
    beta: Tensor


class OneNoise(NamedTuple):
    site: Tensor
    accept: Tensor


@dataclass(frozen=True)
class OneSite(Sampler):
    """Metropolis with a blind flip of one site: its noise is a site and a decision, so that it can be enumerated."""

    def init(self, target: Target, x: Tensor, beta: Tensor) -> OneState:
        return OneState(x, target.f(x), beta)

    def temper(self, target: Target, state: OneState, beta: Tensor) -> OneState:
        return state._replace(beta=beta)

    def draw(self, state: OneState, generator: torch.Generator) -> OneNoise:
        site = torch.randint(state.x.shape[1], (len(state.x),), generator=generator)
        return OneNoise(site, torch.rand(len(state.x), generator=generator, dtype=torch.float64))

    def step(self, target: Target, state: OneState, noise: OneNoise) -> tuple[OneState, Info]:
        x_new = target.space.apply(state.x, target.space.change(state.x, noise.site))
        f_new = target.f(x_new)
        accept_prob = accept_probability(target.log_ratio(x_new, f_new, state.x, state.f, beta=state.beta))
        made = noise.accept < accept_prob
        x, f = torch.where(made[:, None], x_new, state.x), torch.where(made, f_new, state.f)
        return OneState(x, f, state.beta), Info(accept_prob, made.double())


def joint_matrix(sampler: ParallelTempering, target: Target, beta: float) -> Tensor:
    """P over the pairs (hot, cold) of states: all of them, all noise of the kernel, both outcomes of the swap."""
    space, num = target.space, target.space.num_states
    sites, outcomes = range(space.num_sites), (0.0, 1 - 1e-16)
    cases = torch.tensor(
        list(itertools.product(range(num), range(num), sites, sites, outcomes, outcomes)), dtype=torch.float64
    )
    at, site, decision = cases[:, :2].long().T, cases[:, 2:4].long().T, cases[:, 4:].T.contiguous()
    x = target.encode(space.all_codes())[at]
    state = sampler.start(target, x, torch.tensor(beta, dtype=torch.float64))
    state = state._replace(time=state.time + 1)  # the turn of the only pair
    move = OneNoise(site.flatten(), decision.flatten())
    _, info = sampler.kernel.step(target, state.replicas, move)
    accept = info.accept_prob.view(2, -1)
    weight = torch.where(decision == 0, accept, 1 - accept).prod(0) / space.num_sites**2
    matrix, ends = torch.zeros(num**2, num**2, dtype=torch.float64), []
    for uniform in (0.0, 1 - 1e-16):
        after, _ = sampler.step(target, state, LadderNoise(move, torch.full((1, len(cases)), uniform).double()))
        prob = after.swap_prob[0]
        share = prob if uniform == 0 else 1 - prob
        order = after.rung.argsort(0)
        numbers = number_of(target, after.replicas.x).view(2, -1).gather(0, order)
        assert torch.equal(number_of(target, after.x), numbers[1])
        torch.testing.assert_close(after.f, target.f(after.x), rtol=0, atol=1e-12)
        betas = after.replicas.beta.view(2, -1).gather(0, order)
        assert torch.equal(betas, beta * torch.tensor(sampler.betas, dtype=torch.float64)[:, None].expand_as(betas))
        ends.append(numbers)
        index = at[0] * num + at[1], numbers[0] * num + numbers[1]
        matrix.index_put_(index, weight * share, accumulate=True)
    split = (prob < 1) & (prob > 0)
    assert torch.equal(ends[0][:, split], ends[1].flip(0)[:, split]), "the two outcomes are not each other's swap"
    return matrix


def invariance_gap(sampler: ParallelTempering, target: Target, beta: float) -> float:
    """How far p_hot(x) p_cold(y) is from what a step makes of it."""
    matrix = joint_matrix(sampler, target, beta)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64), rtol=0, atol=1e-12)
    hot, cold = (exact_pi(target, beta * b) for b in sampler.betas)
    joint = torch.outer(hot, cold).flatten()
    return float((joint @ matrix - joint).abs().max())


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["mlp", "rbm"])
def test_a_step_leaves_the_product_of_two_replicas_invariant(kind: str, beta: float) -> None:
    assert invariance_gap(ParallelTempering(OneSite(), LADDER), make_target(Binary(3), kind), beta) < 1e-12


class PreviousStates(ParallelTempering):
    """A published variant: the swap is decided by the f of before the move."""

    def step(self, target: Target, state: LadderState, noise: LadderNoise) -> tuple[LadderState, Info]:
        before = state.replicas.f
        replicas, info = self.kernel.step(target, state.replicas, noise.move)
        decided = self.swap(
            target, state._replace(replicas=replicas._replace(f=before), time=state.time + 1), noise.swap
        )
        state = decided._replace(replicas=decided.replicas._replace(f=replicas.f))
        return state, Info(info.accept_prob[: len(state.f)], torch.zeros_like(state.f))


def test_a_swap_by_the_previous_states_is_caught() -> None:
    assert invariance_gap(PreviousStates(OneSite(), LADDER), make_target(Binary(3)), 1.0) > 1e-3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-f.double()", "f.double()"),
        ("betas.double().diff(dim=0)", "betas.double()[1:]"),
        ("accept_probability(", "1 + 0 * accept_probability("),
    ],
    ids=["sign of the ratio", "beta in place of the difference", "always swapped"],
)
def test_mutants_of_the_swap_are_caught(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = textwrap.dedent(inspect.getsource(module.swap_probability))
    assert source.count(old) == 1
    namespace = dict(vars(module))
    exec(compile("from __future__ import annotations\n" + source.replace(old, new), "mutant", "exec"), namespace)
    monkeypatch.setattr(module, "swap_probability", namespace["swap_probability"])
    assert invariance_gap(ParallelTempering(OneSite(), LADDER), make_target(Binary(3)), 1.0) > 1e-3


# -- chi-square --------------------------------------------------------------------------------------------------------

RUNGS = (0.0, 0.4, 0.8, 1.0)
KERNELS = [
    (GWG(), make_target(Binary(4))),
    (GWG(), make_target(Categorical(3, 3))),
    (Gibbs("systematic"), make_target(Binary(4))),
    (BlockGibbs(), random_target(PottsEnergy(Categorical(3, 3)), spread=0.4)),
]


@pytest.mark.parametrize(("kernel", "target"), KERNELS, ids=lambda part: str(part) if isinstance(part, Sampler) else "")
def test_exact_replicas_stay_exact_on_every_rung(kernel: Sampler, target: Target) -> None:
    sampler, num, target = ParallelTempering(kernel, RUNGS), 20_000, target.frozen()
    generator = torch.Generator().manual_seed(0)
    pis = [exact_pi(target, beta) for beta in RUNGS]
    starts = torch.stack([torch.multinomial(pi, num, replacement=True, generator=generator) for pi in pis])
    with torch.no_grad():
        state = sampler.start(target, target.encode(target.space.all_codes())[starts], torch.ones(()).double())
        for _ in range(8):
            state, _ = sampler.step(target, state, sampler.draw(state, generator))
    ends = number_of(target, state.replicas.x).view(4, num).gather(0, state.rung.argsort(0))
    for end, pi in zip(ends, pis, strict=True):
        counts = torch.bincount(end, minlength=len(pi)).double()
        assert _chi_square_p_value(counts, pi * num) > ALPHA
    pairs = torch.bincount(ends[2] * len(pis[0]) + ends[3], minlength=len(pis[0]) ** 2).double()
    assert _chi_square_p_value(pairs, torch.outer(pis[2], pis[3]).flatten() * num) > ALPHA
    assert (state.swaps[1] == torch.tensor([4, 4, 4])).all()
    assert ((state.swap_rate > 0.05) & (state.swap_rate < 1)).all()


def test_replicas_settle_before_the_first_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact chains whose replicas start where they do stay exact; were they swapped at once, they would not."""
    target, sampler = make_target(Binary(4)), ParallelTempering(GWG(), (0.0, 1.0))
    check_invariance(sampler, target, num_steps=SETTLE + 2, num_chains=10_000, backend="eager")
    monkeypatch.setattr(module, "SETTLE", 0)
    with pytest.raises(CheckError, match="chains that start at the target leave it"):
        check_invariance(sampler, target, num_steps=2, backend="eager")


# -- what it is for ----------------------------------------------------------------------------------------------------


def two_wells(num_sites: int = 16, depth: float = 3.5) -> Target:
    """All sites alike: nearly all zeros or nearly all ones, with a barrier in between."""
    coupling = depth / num_sites

    class Wells(IsingEnergy):
        def forward(self, x: Tensor) -> Tensor:
            spins = 2 * x - 1
            return -coupling * spins.sum(1).square() / 2

    return Target(Wells(Binary(num_sites)).double())


def test_chains_cross_a_barrier_that_one_beta_does_not() -> None:
    target = two_wells()
    x = torch.zeros(100, 16, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    alone = run_chain(GWG(), target, x, num_steps=500, generator=generator).x
    ladder = ParallelTempering(GWG(), (0.1, 0.3, 0.5, 0.75, 1.0))
    chain = run_chain(ladder, target, x, num_steps=500, generator=generator)
    assert float((alone.mean(1) > 0.5).double().mean()) < 0.1
    assert abs(float((chain.x.mean(1) > 0.5).double().mean()) - 0.5) < 0.2
    torch.testing.assert_close(chain.state.f, target.f(chain.x), rtol=0, atol=1e-10)
    assert cast(LadderState, chain.state).swap_rate.shape == (4,)


def test_a_tuned_ladder_swaps_equally_often_everywhere() -> None:
    energy = IsingTorusEnergy(Binary((6, 6))).double()
    with torch.no_grad():
        for name, parameter in energy.named_parameters():
            parameter.fill_(0.0 if "bias" in name else 1.2)
    target, generator = Target(energy), torch.Generator().manual_seed(0)
    x = target.encode(target.space.uniform_codes(30, generator=generator))
    ladder = tuned_ladder(GWG(), target, x, generator=generator, rounds=4)
    assert ladder[0] == 0
    assert ladder[-1] == 1
    chain = run_chain(ParallelTempering(GWG(), ladder), target, x, num_steps=500, generator=generator)
    rate = cast(LadderState, chain.state).swap_rate
    print(ladder, rate)
    assert float(rate.min()) > 0.15
    assert float(rate.max() - rate.min()) < 0.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelTempering(GWG(), (1.0,)), r"betas must be a ladder of at least two, got \[1.0\]"),
        (lambda: ParallelTempering(GWG(), (0.5, 0.5, 1.0)), r"must ascend within \[0, 1\] and end at 1, got \[0.5, 0"),
        (lambda: ParallelTempering(GWG(), (0.5, 0.9)), "end at 1"),
        (lambda: ParallelTempering(GWG(), (-0.1, 1.0)), "must ascend within"),
        (lambda: ParallelTempering(GWG(), (float("nan"), 1.0)), "must ascend within"),
        (lambda: ParallelTempering(DULA()), r"kernel must leave its target invariant, DULA\(.*\) does not"),
    ],
)
def test_bad_ladders_name_themselves(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_ladder_refuses_what_its_kernel_refuses() -> None:
    refusal = ParallelTempering(BlockGibbs()).refusal(make_target(Binary(4)))
    assert refusal is not None
    assert "BlockGibbs needs" in refusal


def test_runs_too_short_for_a_swap_are_remarked() -> None:
    remark = ParallelTempering().remark(SETTLE)
    assert remark is not None
    assert remark.startswith("ParallelTempering swaps nothing in the first 100 steps of a run of chains, which has 100")
    assert ParallelTempering().remark(SETTLE + 1) is None
    assert GWG().remark(1) is None


def test_a_ladder_is_compiled_only_where_its_kernel_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LARGE_ENOUGH", 1)
    monkeypatch.setattr(compiled.native, "compiler", lambda: "cc")
    target = make_target(Binary(6), "ising").frozen()
    x = target.encode(target.space.all_codes())
    for kernel, may in ((DMALA(), True), (EnumeratedGibbs(block=2), False), (HammingBall(radius=1, block=2), False)):
        assert isinstance(compiled.path(ParallelTempering(kernel), target, x, None), Compiled) == may
