"""Where temperatures lie: even costs, friction of chains whose own is known, and what an adaptive schedule gains."""

import pytest
import torch

from gwg_dist.energies import IsingGraphEnergy
from gwg_dist.evaluation import AISSettings, TunedPath, ais, ais_start, anneal, beta_schedule, pilot_path
from gwg_dist.evaluation.schedules import even_knots, friction, through
from gwg_dist.evaluation.unfinished import set_aside, take_up
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Target
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target


def independent(num: int = 300, field: float = 20.0) -> Target:
    """Sites that are drawn anew at every temperature; Var_beta(f) = sum_i (b_i / cosh(beta b_i))^2 falls with beta."""
    energy = IsingGraphEnergy(Binary(num), edges=()).double()
    with torch.no_grad():
        energy.bias.copy_(torch.linspace(-field, field, num))
    return Target(energy, Reference(energy.space).double())


def test_temperatures_are_as_dense_as_the_root_of_the_cost() -> None:
    edges = torch.linspace(0, 1, 5, dtype=torch.float64)
    even = even_knots(edges, torch.full((4,), 7.0, dtype=torch.float64))
    torch.testing.assert_close(through(even, 10), beta_schedule(10))
    betas = through(even_knots(edges, torch.tensor([16.0, 16.0, 1.0, 1.0], dtype=torch.float64)), 1000)
    dense, sparse = int((betas < 0.5).sum()), int((betas > 0.5).sum())
    assert dense / sparse == pytest.approx((0.9 * 1.6 + 0.1) / (0.9 * 0.4 + 0.1), rel=0.05)
    assert (betas.diff() > 0).all()
    torch.testing.assert_close(through(even_knots(edges, torch.zeros(4).double()), 8), beta_schedule(8))


def test_friction_of_chains_with_a_known_autocorrelation() -> None:
    """x' = rho x + noise: the covariances sum to Var(x) (1 + rho) / (1 - rho)."""
    generator = torch.Generator().manual_seed(0)
    for rho in (0.0, 0.6):
        x, rows = torch.randn(4000, dtype=torch.float64, generator=generator), []
        for _ in range(60):
            rows.append(x)
            x = rho * x + (1 - rho**2) ** 0.5 * torch.randn(4000, dtype=torch.float64, generator=generator)
        found = friction(torch.stack(rows) + torch.arange(60)[:, None])[20:40].mean()
        assert float(found) == pytest.approx((1 + rho) / (1 - rho), rel=0.1)


def test_an_adaptive_schedule_loses_less_work() -> None:
    """The mean log weight is log Z minus the work that is lost: here less than .7 of it with as many temperatures."""
    target = independent()
    assert isinstance(target.energy, IsingGraphEnergy)
    exact = float(target.energy.bias.detach().cosh().log().sum())
    path = pilot_path(
        target, BlockGibbs(), generator=torch.Generator().manual_seed(1), num_temperatures=80, adaptive=True
    )
    again = pilot_path(
        target, BlockGibbs(), generator=torch.Generator().manual_seed(1), num_temperatures=80, adaptive=True
    )
    assert path == again
    assert path.values == ()
    lost = {}
    for schedule in ("linear", "adaptive"):
        found = ais(
            target, path, generator=torch.Generator().manual_seed(2), num_chains=100, num_temperatures=60,
            schedule=schedule,
        )  # fmt: skip
        lost[schedule] = exact - float(found.log_weights.mean())
    assert 0 < lost["adaptive"] < 0.7 * lost["linear"], lost


def test_a_stopped_estimate_holds_its_schedule() -> None:
    target, settings = make_target(Binary(6)), AISSettings(20, 150, "adaptive", 80)
    kernel = GWG()
    path = settings.path(target, kernel, generator=torch.Generator().manual_seed(1))
    assert path is not None
    betas = settings.betas(path)
    assert betas.tolist() != beta_schedule(150).tolist()
    generator = torch.Generator().manual_seed(2)
    start = ais_start(target, generator=generator, num_chains=20)
    points = list(anneal(target, path, start, betas, generator=generator))
    held = set_aside(points[0], target.space, settings, path)
    fresh = torch.Generator().manual_seed(9)
    begun = take_up(held, target.space, settings, dtype=torch.float64, generator=fresh, kernel=kernel)
    assert begun is not None
    rebuilt = TunedPath(kernel, tuple(held.values), tuple(held.knots))
    *_, last = anneal(target, rebuilt, begun, settings.betas(rebuilt), generator=fresh)
    assert torch.equal(last.log_weights, points[-1].log_weights)


def test_geometric_is_densest_at_the_reference() -> None:
    betas = beta_schedule(100, "geometric")
    steps = betas.diff()
    assert (steps.diff() > 0).all()
    assert (float(betas[0]), float(betas[-1])) == (0, 1)


def test_bad_settings_name_themselves() -> None:
    with pytest.raises(ValueError, match="schedule adaptive needs a pilot run: pilot must be above 0, as 400"):
        AISSettings(schedule="adaptive")
    with pytest.raises(ValueError, match="schedule adaptive is found by a pilot run"):
        beta_schedule(10, "adaptive")
    with pytest.raises(ValueError, match="schedule must be one of linear, sigmoid, geometric, adaptive, got 'cubic'"):
        AISSettings(schedule="cubic")
    assert AISSettings(schedule="adaptive", pilot=80).for_kernel(GWG()).pilot == 80
    with pytest.raises(ValueError, match="num_temperatures must be positive, got 0"):
        through(torch.tensor([0.0, 1.0]), 0)
