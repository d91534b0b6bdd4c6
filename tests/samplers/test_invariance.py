"""Chains that start at the target stay there: exact draws, k steps, chi-square against the exact probabilities.

alpha is 1e-6 an assertion and the seeds are fixed. The mutants of test_gwg_exact must fail here too.
"""

import pytest
import torch
from scipy import stats

from gwg_dist.samplers import GWG, PAS, EnumeratedGibbs, Gibbs, HammingBall, Sampler, Target, run_chain
from tests.samplers.test_gwg_exact import mutant
from tests.support.kernels import MUTANTS, SPACES, exact_pi, make_target

ALPHA = 1e-6
NUM_CHAINS = 40_000
SLOW_TO_COMPILE = [
    pytest.param(sampler, marks=pytest.mark.slow)
    for sampler in (PAS(max_length=3), EnumeratedGibbs(block=2), HammingBall(radius=1, block=2))
]


def chi_square_p_value(
    sampler: Sampler,
    target: Target,
    *,
    beta: float,
    num_steps: int,
    backend: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> float:
    """The p-value of the end points of exact draws moved by ``num_steps`` steps."""
    space = target.space
    pi = exact_pi(target, beta)
    generator = torch.Generator().manual_seed(1)
    states = torch.multinomial(pi, NUM_CHAINS, replacement=True, generator=generator)
    x = space.encode(space.all_codes()[states], dtype)
    chain = run_chain(sampler, target, x, num_steps=num_steps, generator=generator, beta=beta, backend=backend)
    ends = (space.decode(chain.x).long() * space.places()).sum(1)
    counts = torch.bincount(ends, minlength=space.num_states).double()
    expected = pi * NUM_CHAINS
    kept = expected >= 5
    observed = torch.cat([counts[kept], counts[~kept].sum()[None]])
    expected = torch.cat([expected[kept], expected[~kept].sum()[None]])
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
    return float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampler", [GWG(), GWG(1.0), Gibbs(), Gibbs("systematic")], ids=str)
def test_invariance(sampler: Sampler, name: str, beta: float) -> None:
    assert chi_square_p_value(sampler, make_target(SPACES[name]), beta=beta, num_steps=7) > ALPHA


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(
    "mutation",
    ["reverse proposal dropped", "stale gradient kept after acceptance", "stale value kept after acceptance"],
)
def test_power(mutation: str, name: str) -> None:
    assert chi_square_p_value(mutant(*MUTANTS[mutation]), make_target(SPACES[name]), beta=1.0, num_steps=7) < ALPHA


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampler", [GWG(), Gibbs(), *SLOW_TO_COMPILE], ids=str)
def test_compiled_equals_eager_on_the_same_noise(sampler: Sampler, name: str, compiler: None) -> None:
    target = make_target(SPACES[name])
    x = target.space.encode(target.space.uniform_codes(64, generator=torch.Generator().manual_seed(0)), torch.float64)
    ends = []
    for backend in ("eager", "compiled"):
        generator = torch.Generator().manual_seed(2)
        ends.append(run_chain(sampler, target, x, num_steps=25, generator=generator, beta=0.8, backend=backend))
    eager, compiled = ends
    assert torch.equal(eager.x, compiled.x)
    torch.testing.assert_close(eager.state.f, compiled.state.f, rtol=0, atol=1e-12)
    torch.testing.assert_close(eager.accept_prob, compiled.accept_prob, rtol=0, atol=1e-12)


def test_a_new_beta_and_new_weights_do_not_recompile(compiler: None) -> None:
    target = make_target(SPACES["binary"])
    x = target.space.encode(target.space.uniform_codes(8, generator=torch.Generator().manual_seed(0)), torch.float64)
    generator = torch.Generator().manual_seed(2)
    schedule = torch.linspace(0, 1, 5, dtype=torch.float64)
    run_chain(GWG(), target, x, num_steps=2, generator=generator, backend="compiled")
    run_chain(GWG(), target, x, num_steps=5, generator=generator, schedule=schedule, backend="compiled")
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert before > 0
    assert isinstance(target.energy, torch.nn.Module)
    with torch.no_grad():
        for parameter in target.energy.parameters():
            parameter.mul_(0.5)
    run_chain(GWG(), target, x, num_steps=5, generator=generator, schedule=schedule, backend="compiled")
    run_chain(GWG(), target, x, num_steps=3, generator=generator, beta=0.3, backend="compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_run_chain_takes_beta_from_its_schedule() -> None:
    """Step by step with single betas gives the same chain as one call with the schedule."""
    target = make_target(SPACES["categorical"])
    start = target.space.encode(
        target.space.uniform_codes(16, generator=torch.Generator().manual_seed(0)), torch.float64
    )
    schedule = torch.linspace(0, 1, 9, dtype=torch.float64)
    together = run_chain(
        GWG(), target, start, num_steps=9, generator=torch.Generator().manual_seed(3), schedule=schedule
    )
    generator, x = torch.Generator().manual_seed(3), start
    for beta in schedule:
        x = run_chain(GWG(), target, x, num_steps=1, generator=generator, beta=beta).x
    assert torch.equal(together.x, x)


def test_run_chain_refuses_what_it_cannot_run() -> None:
    target = make_target(SPACES["binary"])
    x = target.space.encode(target.space.all_codes(), torch.float64)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="backend must be one of auto, plain, eager, compiled, graph, got 'fast'"):
        run_chain(GWG(), target, x, num_steps=1, generator=generator, backend="fast")
    with pytest.raises(ValueError, match="must match the schedule, got 3 with a schedule of 2"):
        run_chain(GWG(), target, x, num_steps=3, generator=generator, schedule=torch.ones(2))
