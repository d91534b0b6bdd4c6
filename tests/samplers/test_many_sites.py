"""Steps in C that change many sites: every path and every flip of every state forced once, against sums by hand."""

import copy
import itertools
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gwg_dist.draws import block_size
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, Sampler, Target, plan_chains
from gwg_dist.samplers.fast import fastest, native
from gwg_dist.samplers.fast.langevin import LangevinC, LangevinSteps
from gwg_dist.samplers.fast.path_auxiliary import PathAuxiliaryC, PathSteps
from gwg_dist.spaces import Binary, Categorical
from tests.samplers.test_fast_paths import middle, with_reference
from tests.samplers.test_invariance import ALPHA, chi_square_p_value
from tests.support.kernels import TOLERANCE, assert_exact, exact_pi

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler")

CASES: dict[str, tuple[Energy, float]] = {
    "torus": (IsingTorusEnergy(Binary((3, 3))), 0.15),
    "ising": (IsingEnergy(Binary(5)), 0.4),
    "binary potts": (PottsEnergy(Binary(5)), 0.7),
    "rbm": (RBMEnergy(Binary(5), num_hidden=11), 0.7),
    "wide rbm": (RBMEnergy(Binary(3), num_hidden=1100), 0.2),
}
SPREADS = pytest.mark.parametrize("strength", [1.0, 40.0], ids=["mild", "beyond the range of a float"])


class Forced(NamedTuple):
    """Every step that a proposal may make: from state ``source`` to ``destination`` with ``log_q`` there and back."""

    source: Tensor
    destination: Tensor
    noise: Tensor
    log_q: Tensor
    log_q_back: Tensor


def slopes(target: Target, beta: float) -> Tensor:
    """d of every state and site: the first-order change of log p_beta, by autograd."""
    codes = target.space.all_codes().double().requires_grad_()
    (grad,) = torch.autograd.grad((-beta * target.energy(codes)).sum(), codes)
    reference = target.reference
    assert isinstance(reference, Reference)
    log_site = reference.probs.log()
    return ((1 - 2 * codes) * (grad + log_site[:, 1] - log_site[:, 0])).detach()


def index_of(codes: Tensor) -> Tensor:
    return (codes * 2 ** torch.arange(codes.shape[1] - 1, -1, -1)).sum(1)


def log_product(log_weights: Tensor, path: Tensor) -> Tensor:
    """log of the product of shares of sites drawn one after the other, each row its own path."""
    total = torch.zeros(len(path), dtype=torch.float64)
    left = log_weights.clone()
    for site in path.unbind(1):
        total += (left.gather(1, site[:, None]) - left.logsumexp(1, keepdim=True))[:, 0]
        left = left.scatter(1, site[:, None], -torch.inf)
    return total


def all_paths(target: Target, beta: float, temperature: float, max_length: int) -> Forced:
    """Each path of each state, by the numbers in the middle of its shares."""
    codes, d = target.space.all_codes().long(), slopes(target, beta)
    num_sites = codes.shape[1]
    size, parts = block_size(num_sites), []
    for length in range(1, max_length + 1):
        paths = torch.tensor(list(itertools.permutations(range(num_sites), length)))
        source = torch.arange(len(codes)).repeat_interleave(len(paths))
        path = paths.repeat(len(codes), 1)
        turns = torch.zeros(len(path), num_sites, dtype=torch.long).scatter(1, path, 1)
        destination = index_of(codes[source] ^ turns)
        log_weights = d / temperature
        noise = torch.zeros(len(path), 2 + 2 * max_length, dtype=torch.float64)
        noise[:, 0] = (length - 0.5) / max_length
        left = log_weights[source].clone()
        for k, site in enumerate(path.unbind(1)):
            weights = (left - left.amax(1, keepdim=True)).exp()
            blocks = torch.nn.functional.pad(weights, (0, -num_sites % size)).unflatten(1, (-1, size))
            block = site // size
            noise[:, 2 + 2 * k] = middle(blocks.sum(2), block)
            noise[:, 3 + 2 * k] = middle(blocks[torch.arange(len(site)), block], site % size)
            left.scatter_(1, site[:, None], -torch.inf)
        log_q, log_q_back = log_product(log_weights[source], path), log_product(log_weights[destination], path.flip(1))
        parts.append((source, destination, noise, log_q - math.log(max_length), log_q_back - math.log(max_length)))
    return Forced(*(torch.cat(each) for each in zip(*parts, strict=True)))


def check(kernel: Any, target: Target, beta: float, forced: Forced, uniform: int) -> Tensor:
    """P, after every forced step: where it leads, with which probability, and what it leaves behind.

    ``uniform`` is the column of the noise that decides.
    """
    codes, pi = target.space.all_codes(), exact_pi(target, beta)
    source, destination, noise, log_q, log_q_back = forced
    x = codes[source].double()
    frozen, beta_tensor = target.frozen(), torch.tensor(beta, dtype=torch.float64)
    state, info = kernel.step(frozen, kernel.init(frozen, x, beta_tensor), noise)
    changed = (codes[source] != codes[destination]).sum(1).double()
    made = info.accept_prob > 0
    assert torch.equal(state.x[made].long(), codes[destination][made].long()), "the move did not lead where it should"
    assert torch.equal(info.hops[made], changed[made])
    log_pi = log_prob(target, beta)
    expected = (log_pi[destination] - log_pi[source] + log_q_back - log_q).clamp(max=0).exp()
    # torch's softplus(a) is a beyond 20, off by up to 2e-9 a unit
    torch.testing.assert_close(info.accept_prob, expected, rtol=1e-6, atol=TOLERANCE)

    certain = noise.clone()
    certain[:, uniform] = 1 - 1e-16
    rejected, _ = kernel.step(frozen, kernel.init(frozen, x, beta_tensor), certain)
    for after in (state, rejected):
        fresh = kernel.init(frozen, after.x, beta_tensor)
        for name in {"position", "grad", "weights", "sums", "chance"} & set(vars(fresh)):
            torch.testing.assert_close(getattr(after, name), getattr(fresh, name), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(after.f, target.f(after.x), rtol=1e-9, atol=TOLERANCE)

    matrix = torch.zeros(len(pi), len(pi), dtype=torch.float64)
    matrix.index_put_((source, destination), log_q.exp() * info.accept_prob, accumulate=True)
    return matrix + (1 - matrix.sum(1)).diag()


def log_prob(target: Target, beta: float) -> Tensor:
    """log p_beta of all states, up to a constant."""
    codes, reference = target.space.all_codes().long(), target.reference
    assert isinstance(reference, Reference)
    log_ref = torch.stack([reference.probs[i, codes[:, i]].log() for i in range(codes.shape[1])]).sum(0)
    with torch.no_grad():
        return log_ref - beta * target.energy(codes.double())


@SPREADS
@pytest.mark.parametrize("name", CASES)
def test_every_path_is_accepted_as_by_hand(name: str, strength: float) -> None:
    energy, spread = CASES[name]
    target = with_reference(energy, spread=spread * strength)
    settings = [(1.0, 0.6, 2), (2.0, 1.0, 3), (4.0, 0.0, 3)]
    for temperature, beta, max_length in settings[: 1 if energy.space.num_sites > 5 else 3]:
        kernel = PathAuxiliaryC(temperature, max_length)
        forced = all_paths(target, beta, temperature, max_length)
        if strength == 1.0:
            assert_exact(check(kernel, target, beta, forced, uniform=1), exact_pi(target, beta))
        else:  # the paths that a number in [0, 1) can choose, some of them through what is left behind a heavy site
            check(kernel, target, beta, Forced(*(each[forced.log_q > -20] for each in forced)), uniform=1)


def test_a_path_through_every_site() -> None:
    target = with_reference(CASES["ising"][0], spread=0.4)
    assert_exact(check(PathAuxiliaryC(2.0, 5), target, 1.0, all_paths(target, 1.0, 2.0, 5), 1), exact_pi(target, 1.0))


class WrongTemperature(PathSteps):
    """Corrects for another τ than that of the proposals."""

    def bind(self) -> None:
        super().bind()
        self.decide.values.temperature = 3.0


class SameOrderBack(PathSteps):
    """The way back takes the sites in the order of the way there."""

    def step(self, noise: Tensor) -> Any:
        follow = self.model.follow

        def reverse() -> None:
            follow()
            for row, count in zip(self.turned, self.count.tolist(), strict=True):
                row[:count] = row[:count].flip(0)

        self.model.follow = reverse
        return super().step(noise)


class StaleGradient(PathSteps):
    """The way back has the weights of x."""

    def step(self, noise: Tensor) -> Any:
        self.decide.values.grads_new = self.grad.data_ptr()
        return super().step(noise)


@pytest.mark.parametrize("mutant", [WrongTemperature, SameOrderBack, StaleGradient])
def test_mutants_of_a_path_are_caught(mutant: type[PathSteps]) -> None:
    class Mutated(PathAuxiliaryC):
        def init(self, target: Target, x: Tensor, beta: Tensor) -> PathSteps:
            return mutant(target, x, beta, self.max_length, factor=1 / self.temperature)

    target = with_reference(CASES["rbm"][0], spread=0.7)
    with pytest.raises(AssertionError):
        check(Mutated(2.0, 3), target, 1.0, all_paths(target, 1.0, 2.0, 3), uniform=1)


def all_flips(target: Target, beta: float, sampler: DMALA) -> Forced:
    """Each state from each state, by numbers in the middle of the shares of the flips."""
    codes, scales = target.space.all_codes().double(), torch.tensor(sampler.scales or 1.0, dtype=torch.float64)
    logits = sampler.balance * slopes(target, beta) - 1 / (2 * sampler.step_size * scales)
    source, destination = torch.cartesian_prod(*[torch.arange(len(codes))] * 2).unbind(1)
    flips = codes[source] != codes[destination]
    chance = logits.sigmoid()[source]
    noise = torch.cat([torch.zeros(len(flips), 1), torch.where(flips, chance / 2, (1 + chance) / 2)], 1)
    sign = 2 * flips.double() - 1
    log_q, log_q_back = (torch.nn.functional.logsigmoid(sign * logits[end]).sum(1) for end in (source, destination))
    return Forced(source, destination, noise, log_q, log_q_back)


LANGEVIN = [DMALA(0.2), DMALA(2.0, 0.8), DMALA(0.5, 1.0, (0.5, 2.0, 1.0, 3.0, 0.2))]


@SPREADS
@pytest.mark.parametrize("name", ["ising", "binary potts", "rbm", "wide rbm"])
def test_every_set_of_flips_is_accepted_as_by_hand(name: str, strength: float) -> None:
    energy, spread = CASES[name]
    target = with_reference(energy, spread=spread * strength)
    for sampler, beta in zip(LANGEVIN, (1.0, 0.6, 0.0), strict=True):
        if sampler.refusal(target) is None:
            forced = all_flips(target, beta, sampler)
            if strength == 1.0:
                assert_exact(check(LangevinC(sampler), target, beta, forced, uniform=0), exact_pi(target, beta))
            else:
                drawn = Forced(*(each[forced.log_q > -20] for each in forced))
                check(LangevinC(sampler), target, beta, drawn, uniform=0)


class WrongBalance(LangevinSteps):
    """Takes the change of log p as if b were another."""

    def bind(self) -> None:
        super().bind()
        self.decide.values.balance = 1.0


class SitesThatStayForgotten(LangevinSteps):
    """The probability of the sites that do not flip is left out, of the way there."""

    def temper(self, beta: Tensor) -> None:
        super().temper(beta)
        self.kept = torch.zeros_like(self.f)
        self.decide.values.log_stay = self.kept.data_ptr()


class StaleChances(LangevinSteps):
    """Goes on with the flips of where it was."""

    def bind(self) -> None:
        super().bind()
        self.spare = torch.empty_like(self.chance)
        self.decide.values.chance = self.spare.data_ptr()


@pytest.mark.parametrize("mutant", [WrongBalance, SitesThatStayForgotten, StaleChances])
def test_mutants_of_a_flip_are_caught(mutant: type[LangevinSteps]) -> None:
    class Mutated(LangevinC):
        def init(self, target: Target, x: Tensor, beta: Tensor) -> LangevinSteps:
            return mutant(target, x, beta, self.sampler)

    target = with_reference(CASES["rbm"][0], spread=0.7)
    with pytest.raises(AssertionError):
        check(Mutated(DMALA(0.5)), target, 1.0, all_flips(target, 1.0, DMALA(0.5)), uniform=0)


@pytest.mark.parametrize("name", ["torus", "ising", "rbm"])
def test_flips_in_c_are_those_in_torch_on_the_same_noise(name: str) -> None:
    """The same chains, two hundred steps long, in float64, at a beta a chain."""
    energy = copy.deepcopy(LARGE[name]).double()
    target = Target(energy, Reference(energy.space).double()).frozen()
    x = energy.space.encode(energy.space.uniform_codes(6, generator=torch.Generator().manual_seed(0)), torch.float64)
    beta, sampler, ends = torch.linspace(0, 1, 6, dtype=torch.float64), DMALA(0.3), []
    for kernel in (sampler, fastest(sampler, target, x, None)):
        generator, infos = torch.Generator().manual_seed(1), []
        with torch.no_grad():
            state: Any = kernel.init(target, x, beta)
            for _ in range(200):
                state, info = kernel.step(target, state, kernel.draw(state, generator))
                infos.append(torch.stack(info))
        ends.append((state.x, state.f, torch.stack(infos)))
    assert not torch.equal(ends[0][0], x)
    for plain, fast in zip(*ends, strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-9, atol=1e-9)


SAMPLERS: dict[str, Sampler] = {"PAS": PAS(max_length=3), "DMALA": DMALA(0.4, 0.6)}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("name", ["torus", "ising", "rbm"])
def test_chains_stay_at_the_target(name: str, sampler: Sampler) -> None:
    energy, spread = CASES[name]
    target = with_reference(energy, spread=spread, dtype=torch.float32)
    assert chi_square_p_value(sampler, target, beta=0.8, num_steps=5, dtype=torch.float32) > ALPHA


LARGE: dict[str, Energy] = {
    "torus": IsingTorusEnergy(Binary((12, 12)), sigma=0.15),
    "ising": IsingEnergy(Binary(60), scale=0.05),
    "rbm": RBMEnergy(Binary(100), num_hidden=40, scale=0.3),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("name", LARGE)
def test_increments_are_from_scratch_to_rounding(name: str, sampler: Sampler) -> None:
    """Without a refresh, in float32: a thousand steps, at betas that change."""
    target = Target(LARGE[name], Reference(LARGE[name].space)).frozen()
    generator = torch.Generator().manual_seed(0)
    x = target.space.encode(target.space.uniform_codes(4, generator=generator))
    kernel = fastest(sampler, target, x, None)
    assert kernel is not sampler
    with torch.no_grad():
        state: Any = kernel.init(target, x, torch.ones(()))
        for step in range(1000):
            state = kernel.temper(target, state, torch.tensor(0.5 + step / 2000))
            state, _ = kernel.step(target, state, kernel.draw(state, generator))
        fresh: Any = kernel.init(target, state.x, state.beta)
    assert not torch.equal(state.x, x)
    for followed, scratch in ((state.grad, fresh.grad), (state.f, fresh.f)):
        assert (followed - scratch).abs().max() < 1e-4 * (1 + scratch.abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_gradient_in_bfloat16_is_one_function_of_x(sampler: Sampler) -> None:
    """That of the start is that of every step, or the way back would have another proposal."""
    target = Target(LARGE["rbm"], Reference(LARGE["rbm"].space), mixed_precision=True).frozen()
    generator = torch.Generator().manual_seed(0)
    x = target.space.encode(target.space.uniform_codes(4, generator=generator))
    kernel = fastest(sampler, target, x, None)
    with torch.no_grad():
        state: Any = kernel.init(target, x, torch.ones(()))
        for _ in range(20):
            state, _ = kernel.step(target, state, kernel.draw(state, generator))
        fresh, full = target.evaluate(state.x), Target(LARGE["rbm"]).plain().evaluate(state.x)
    assert not torch.equal(state.x, x)
    assert (state.grad - fresh.grad).abs().max() < 0.5 * (fresh.grad - full.grad).abs().max()


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_what_is_picked(sampler: Sampler) -> None:
    """In C for binary pairs and hidden units at any beta; a variant of a user's own, and other models, as they are."""
    mine = type("Mine", (type(sampler),), {})()
    for energy in (*LARGE.values(), MLPEnergy(Binary(9)), PottsEnergy(Categorical(9, 3))):
        x = energy.space.encode(energy.space.uniform_codes(3, generator=torch.Generator().manual_seed(0)))
        in_c = energy in LARGE.values()
        for beta in (torch.ones(()), None):
            assert (plan_chains(sampler, Target(energy), x, beta=beta).kernel is sampler) != in_c
            assert plan_chains(mine, Target(energy), x, beta=beta).kernel is mine
    assert plan_chains(GWG(), Target(LARGE["rbm"]), torch.zeros(2, 100)).kernel is not sampler
