"""MBAR, thermodynamic integration, RAISE and links: against exact sums and against each other."""

import math
import sys

import pytest
import torch
from scipy import stats
from torch import Tensor

from gwg_dist.evaluation import (
    Trace,
    anneal,
    bennett,
    beta_schedule,
    bootstrap_error,
    exact_log_prob,
    exact_log_z,
    links_of,
    mbar,
    raise_log_likelihood,
    rungs_of,
    thermodynamic_integral,
    weighted_means,
)  # fmt: skip
from gwg_dist.evaluation.ais import ais_start, summarize
from gwg_dist.evaluation.reverse import reverse_start
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary
from tests.support.kernels import gwg_transition_matrix, make_target

BETAS = torch.tensor([0.0, 0.2, 0.45, 0.7, 1.0], dtype=torch.float64)


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_f(target: Target, beta: float, num: int, seed: int) -> Tensor:
    """f of exact samples of p_beta."""
    prob = exact_log_prob(target, beta=beta)[0].exp()
    codes = target.space.all_codes()[torch.multinomial(prob, num, replacement=True, generator=generator_of(seed))]
    return target.f(target.encode(codes)).detach()


def rungs(seed: int, num: int = 150) -> tuple[Target, list[Tensor]]:
    target = make_target(Binary(8), ("rbm", "ising", "mlp")[seed % 3], seed=seed, strength=0.8)
    return target, [exact_f(target, float(beta), num + 10 * n, 100 * seed + n) for n, beta in enumerate(BETAS)]


def test_mbar_is_right_within_its_error_at_every_rung() -> None:
    scores, wrong = [], []
    for seed in range(40):
        target, f = rungs(seed)
        found = mbar(f, BETAS)
        exact = torch.tensor([exact_log_z(target, beta=float(beta)) for beta in BETAS])
        assert float((found.log_z - exact).abs().max()) < 5 * float(found.stderr.max()) + 1e-9
        scores.append(float((found.log_z[-1] - exact[-1]) / found.stderr[-1]))
        mixed_up = mbar(f[::-1], BETAS)
        wrong.append(abs(float((mixed_up.log_z[-1] - exact[-1]) / found.stderr[-1])))
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    assert 0.7 < float(torch.tensor(scores).std()) < 1.35
    assert max(wrong) > 5, "points under the wrong beta are seen"


def test_mbar_of_two_rungs_is_bennett() -> None:
    _, f = rungs(3)
    found, two = mbar([f[0], f[-1]], BETAS[[0, -1]]), bennett(f[0], -f[-1])
    assert float(found.log_z[1]) == pytest.approx(two.log_z, abs=1e-8)
    assert float(found.stderr[1]) == pytest.approx(two.stderr, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 12.0, 30.0])
def test_mbar_of_rungs_that_hardly_overlap(scale: float) -> None:
    """f is normal with variance s^2 at every beta, so that log Z = s^2 / 2: soon found, however far rungs are apart."""
    betas = torch.linspace(0, 1, 11, dtype=torch.float64)
    noise = torch.randn(11, 300, dtype=torch.float64, generator=generator_of(0))
    found = mbar(list(betas[:, None] * scale**2 + scale * noise), betas)
    assert abs(float(found.log_z[-1]) - scale**2 / 2) < 4 * float(found.stderr[-1])
    assert float(found.stderr[-1]) < 0.15 * max(scale, 1)


def test_mbar_that_has_not_converged_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[mbar.__module__], "MAX_ITERATIONS", 1)
    _, f = rungs(1)
    found = mbar(f, BETAS)
    assert bool(torch.isfinite(found.log_z).all())
    assert bool(found.stderr.isnan().all())


def test_sums_from_left_and_right_enclose_the_integral() -> None:
    """With 60 rungs the trapezoids are right within their error; the bracket holds with 5 as well."""
    falls = 0
    for seed in range(6):
        target = make_target(Binary(8), ("rbm", "ising", "mlp")[seed % 3], seed=seed, strength=0.8)
        exact = exact_log_z(target)
        for num in (5, 60):
            betas = torch.linspace(0, 1, num, dtype=torch.float64)
            f = [exact_f(target, float(beta), 200, 1000 * seed + n) for n, beta in enumerate(betas)]
            means = torch.stack([each.mean() for each in f])
            errors = torch.stack([each.std() / math.sqrt(200) for each in f])
            found = thermodynamic_integral(betas, means, errors)
            assert found.low - 3 * found.stderr < exact < found.high + 3 * found.stderr
            if num == 60:
                assert abs(found.log_z - exact) < 4 * found.stderr + 0.01
            assert found.num_falls == 0
            falls += thermodynamic_integral(betas, means.flip(0), errors).num_falls
    assert falls > 6, "means that fall are seen"


def test_raise_is_the_likelihood_of_the_annealing_model() -> None:
    """q = ref P_1 P_2 by the kernel's own transition matrices, at every point."""
    target = make_target(Binary(4), "rbm", seed=2, strength=1.5)
    codes, betas = target.space.all_codes(), beta_schedule(3).tolist()
    reference = exact_log_prob(target, beta=0.0)[0].exp()
    q = reference @ gwg_transition_matrix(GWG(), target, betas[1]) @ gwg_transition_matrix(GWG(), target, betas[2])
    assert float((q - exact_log_prob(target)[0].exp()).abs().max()) > 0.02, "the two models differ"
    found = raise_log_likelihood(
        target, GWG(), codes, generator=generator_of(0), num_chains=3000, num_temperatures=3
    ).log_prob  # fmt: skip
    assert float((found - q.log()).abs().max()) < 0.15
    assert abs(float(found.exp().sum()) - 1) < 0.02
    long = raise_log_likelihood(target, GWG(), codes, generator=generator_of(1), num_chains=50, num_temperatures=400)
    assert float((long.log_prob - exact_log_prob(target)[0]).abs().max()) < 0.15
    low = [
        raise_log_likelihood(target, GWG(), codes, generator=generator_of(n), num_chains=1, num_temperatures=3).mean
        for n in range(30)
    ]
    assert sum(low) / len(low) < float(q.log().mean()), "low on average"


def test_links_add_up_and_find_where_the_sides_part() -> None:
    target = make_target(Binary(8), "rbm", seed=1, strength=1.5)
    prob = exact_log_prob(target)[0].exp()
    starts = target.space.all_codes()[torch.multinomial(prob, 300, replacement=True, generator=generator_of(0))]
    betas = beta_schedule(80)
    forward = traced(target, ais_start(target, generator=generator_of(1), num_chains=300), betas)
    reverse = traced(target, reverse_start(target, starts), betas.flip(0))
    links = links_of(forward, reverse)
    assert [link.begin for link in links] == [0, 0.25, 0.5, 0.75]
    assert sum(link.forward for link in links) == pytest.approx(summarize(forward.log_weights[-1])[0])
    assert sum(link.reverse for link in links) == pytest.approx(-summarize(reverse.log_weights[-1])[0])
    for link in links:
        exact = exact_log_z(target, beta=link.end) - exact_log_z(target, beta=link.begin)
        assert abs(link.bennett - exact) < 4 * link.stderr + 0.02
        assert abs(link.forward - exact) < 0.2
        assert abs(link.reverse - exact) < 0.2
    means, errors = weighted_means(forward)
    for beta, mean, error in zip(forward.betas, means, errors, strict=True):
        log_prob = exact_log_prob(target, beta=float(beta))[0]
        f = target.f(target.encode(target.space.all_codes())).detach()
        assert abs(float(mean - (log_prob.exp() * f).sum())) < 4.5 * float(error)
    _, delta, _ = summarize(forward.log_weights[-1])
    assert bootstrap_error(forward.log_weights[-1]) == pytest.approx(delta, rel=0.25)


def test_rungs_are_the_same_from_both_ends() -> None:
    """However many temperatures there are: ten links, nine of an odd number, each of a tenth up to one temperature."""
    for num in (1, 2, 7, 20, 100, 101, 250, 1234, 1500, 2000, 2500, 5000):
        found = rungs_of(num)
        assert found == sorted({num - t for t in found})
        assert {0, num} <= set(found)
        if num >= 10:
            assert len(found) == (10 if num % 2 else 11)
            ends = sorted({0, num, *(num * part // 10 for part in range(11) if num % 2 == 0 or part != 5)})
            assert max(abs(a - b) for a, b in zip(found, ends, strict=True)) <= 1


def traced(target: Target, start, betas: Tensor) -> Trace:
    """Every twentieth temperature."""
    rows = [(float(betas[0]), torch.zeros(len(start.x), dtype=torch.float64), target.f(start.x).detach())]
    points = anneal(target, GWG(), start, betas, generator=generator_of(7), every=20)
    rows += [(float(betas[point.t]), point.log_weights, target.f(point.x).detach()) for point in points]
    at, log_weights, f = zip(*rows, strict=True)
    return Trace(torch.tensor(at, dtype=torch.float64), torch.stack(log_weights), torch.stack(f))


def test_what_does_not_fit_is_named() -> None:
    target = make_target(Binary(4))
    with pytest.raises(ValueError, match="needs points of at least two rungs and a beta for each, got 1 and 1"):
        mbar([torch.zeros(3)], torch.zeros(1))
    with pytest.raises(ValueError, match=r"every rung needs points, got \[3, 0\]"):
        mbar([torch.zeros(3), torch.zeros(0)], torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="betas must rise"):
        thermodynamic_integral(torch.tensor([0.0, 0.0]), torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="at least one data point, got none"):
        raise_log_likelihood(target, GWG(), torch.zeros(0, 4).byte(), generator=generator_of(0))
    up = Trace(torch.tensor([0.0, 1.0]).double(), torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"two betas that both directions passed, got \[0.0\]"):
        links_of(up, Trace(torch.tensor([0.5, 0.0]).double(), torch.zeros(2, 3), torch.zeros(2, 3)))
