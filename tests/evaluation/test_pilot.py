"""A kernel for every beta from a pilot run: the estimate stays unbiased, goes on bit for bit, and says what it used."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gwg_dist import evaluate
from gwg_dist.callbacks import likelihood
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import (
    AISSettings,
    AnnealPoint,
    TunedPath,
    Unfinished,
    ais,
    anneal,
    assess,
    beta_schedule,
    exact_log_z,
    pilot_path,
)
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, DULA, GWG, MultiGWG, RandomWalk, Sampler, Target, adapt_kernel, run_chain
from gwg_dist.spaces import Binary
from tests.plugins import Flips
from tests.support.kernels import make_target
from tests.support.runs import run_fit

SEEDS, CHAINS, T = 20, 500, 24


def rbm(num_sites: int = 6, scale: float = 1.2) -> Target:
    torch.manual_seed(3)
    space = Binary(num_sites)
    return Target(RBMEnergy(space, num_hidden=4, scale=scale).double(), Reference(space).double())


# -- unbiased ----------------------------------------------------------------------------------------------------------


def z_score(ratios: list[float]) -> float:
    """How many standard errors the mean of estimates of Z / Z lies from 1."""
    found = torch.tensor(ratios, dtype=torch.float64)
    return float((found.mean() - 1) / (found.std() / math.sqrt(len(found))))


@pytest.mark.parametrize("sampler", [Flips(0.3), DMALA(0.5), RandomWalk(2)], ids=lambda s: type(s).__name__)
def test_the_mean_of_the_estimates_is_z(sampler: Sampler) -> None:
    """Over seeds, each with a pilot run of its own, against enumeration."""
    target, ratios, paths = rbm(), [], set()
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        path = pilot_path(target, sampler, generator=generator, num_temperatures=80)
        found = ais(target, path, generator=generator, num_chains=CHAINS, num_temperatures=T)
        ratios.append(math.exp(found.log_z - exact_log_z(target)))
        paths.add(path.values)
        assert found.path == path
    assert abs(z_score(ratios)) < 4
    assert max(len(set(values)) for values in paths) > 1, "the kernel did depend on beta"


def test_power_pilot_chains_are_no_start() -> None:
    """A mutant: the estimate goes on with the chains of the pilot run, which are not exact at beta = 0."""
    target, ratios = rbm(), []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        x = target.space.encode(target.space.uniform_codes(CHAINS, generator=generator), torch.float64)
        used = adapt_kernel(Flips(0.3), target, x, num_steps=80, generator=generator).x
        *_, point = anneal(target, Flips(0.3), used, beta_schedule(T), generator=generator)
        ratios.append(float(point.log_weights.exp().mean()) / math.exp(exact_log_z(target)))
    assert abs(z_score(ratios)) > 6


# -- what it is for ----------------------------------------------------------------------------------------------------


def test_the_parts_of_the_path_have_the_acceptance_that_is_aimed_at() -> None:
    target, generator = rbm(30, 0.5), torch.Generator().manual_seed(0)
    path = pilot_path(target, Flips(0.2), generator=generator, num_temperatures=800, target_acceptance=0.4)
    assert len(path.values) == 8
    assert path.values[0] > 2 * path.values[-1], "colder chains take smaller steps"
    x = target.space.encode(target.space.uniform_codes(300, generator=generator), torch.float64)
    for part in (5, 7):  # hotter chains accept more, whatever they propose
        beta = (part + 0.5) / 8
        x = run_chain(path.at(beta), target, x, num_steps=60, generator=generator, beta=beta).x
        end = run_chain(path.at(beta), target, x, num_steps=60, generator=generator, beta=beta)
        assert abs(float(end.accept_prob.mean()) - 0.4) < 0.1, beta


def test_the_kernel_is_a_function_of_beta() -> None:
    path = TunedPath(Flips(0.3), (0.1, 0.2, 0.4))
    assert [path.at(beta) for beta in (0.0, 0.3, 0.34, 0.9, 1.0)] == [Flips(v) for v in (0.1, 0.1, 0.2, 0.4, 0.4)]
    assert TunedPath(GWG()).at(0.7) == GWG()
    assert TunedPath(MultiGWG(max_draws=2), (1.2, 3.7)).at(1.0) == MultiGWG(max_draws=4)


def test_a_sampler_with_nothing_to_tune_is_left_alone() -> None:
    target = make_target(Binary(5))
    plain, piloted = (
        assess(target, GWG(), {}, AISSettings(30, 20, pilot=pilot), generator=torch.Generator().manual_seed(1)).estimate
        for pilot in (0, 100)
    )
    assert torch.equal(plain.log_weights, piloted.log_weights)
    assert piloted.path is None


def test_a_pilot_run_without_an_effect_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By training, by its closing estimate and by evaluation; names and numbers are those of no pilot run."""
    small = ["--pictures_every=0", "--evaluation.every=2", "--evaluation.num_chains=8", "--trainer.max_steps=4",
             "--evaluation.num_temperatures=20", "--evaluation.final_temperatures=20"]  # fmt: skip
    run = run_fit(tmp_path / "run", *small, "--evaluation.pilot=80")
    assert capsys.readouterr().err.count("evaluation.pilot has no effect: GWG has nothing to tune") == 1
    assert "pilot" not in json.loads((run / "results.json").read_text())["ais"]
    command = [str(run), "--num_chains=8", "--num_temperatures=20"]
    evaluate.main([*command, "--pilot=80"])
    assert capsys.readouterr().err.count("pilot has no effect: GWG has nothing to tune") == 1
    (path,) = (run / "evaluation").glob("*.json")
    assert path.name.endswith("-8x20-linear.json")
    piloted = json.loads(path.read_text())
    evaluate.main(command)
    assert "has no effect" not in capsys.readouterr().err
    plain = json.loads(path.read_text())
    assert (piloted["settings"].pop("pilot"), plain["settings"].pop("pilot")) == (80, 0)
    assert plain == piloted


# -- bit for bit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [None, 1, 4])
def test_a_stopped_estimate_goes_on_bit_for_bit(look: int | None) -> None:
    """The kernel changes within segments and at their ends."""
    target, path = rbm(), TunedPath(Flips(0.3), (0.4, 0.3, 0.2, 0.1, 0.05))

    def points(start: AnnealPoint, seed: int, look: int | None = None) -> Iterator[AnnealPoint]:
        generator = torch.Generator().manual_seed(seed)
        return anneal(target, path, start, beta_schedule(35), generator=generator, every=14, look=look)

    x = target.space.encode(target.space.uniform_codes(6, generator=torch.Generator().manual_seed(1)), torch.float64)
    start = AnnealPoint(0, x, torch.zeros(6, dtype=torch.float64))
    calm = list(points(start, 5))
    assert [point.t for point in calm] == [14, 28, 35]
    rest = [point for point in points(calm[0], 99, look) if point.generator_state is not None]
    for a, b in zip(calm[1:], rest, strict=True):
        assert (a.t, torch.equal(a.x, b.x), torch.equal(a.log_weights, b.log_weights)) == (b.t, True, True)
    forgetful = anneal(target, Flips(0.3), calm[0], beta_schedule(35), generator=torch.Generator(), every=14)
    assert not torch.equal([*forgetful][-1].log_weights, calm[-1].log_weights), "a mutant that loses the path is seen"


WALK = ["--model.sampler=RandomWalk", "--pictures_every=0", "--evaluation.every=4", "--evaluation.num_chains=8",
        "--evaluation.num_temperatures=210", "--evaluation.pilot=80", "--evaluation.final_temperatures=20",
        "--checkpoint_every=4", "--trainer.max_steps=4"]  # fmt: skip


def test_an_estimate_that_waits_keeps_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_fit(tmp_path / "run", *WALK)
    results = json.loads((run / "results.json").read_text())["ais"]
    assert results["pilot"]["field"] == "radius"
    assert len(results["pilot"]["values"]) == 8

    command = [str(run), "--checkpoint=last", "--num_chains=8", "--num_temperatures=210", "--pilot=80"]
    evaluate.main([*command, f"--out={tmp_path}/calm.json"])
    calm = json.loads((tmp_path / "calm.json").read_text())["ais"]
    asked = iter([False] * 12 + [True])
    monkeypatch.setattr("gwg_dist.training.estimate.Interruption.agreed", lambda self: next(asked))
    with pytest.raises(SystemExit):
        evaluate.main([*command, f"--out={tmp_path}/again.json"])
    (waiting,) = tmp_path.glob("again.partial.pt")
    held = torch.load(waiting, weights_only=True)
    assert list(held["unfinished"]["values"]) == calm["pilot"]["values"]
    monkeypatch.undo()
    monkeypatch.setattr(likelihood.AISSettings, "path", lambda *args, **settings: pytest.fail("a second pilot run"))
    evaluate.main([*command, f"--out={tmp_path}/again.json"])
    assert json.loads((tmp_path / "again.json").read_text())["ais"] == calm


def test_an_estimate_of_before_there_were_pilot_runs() -> None:
    fields = {"num_temperatures": 5, "schedule": "linear", "t": 1}
    old = Unfinished(**fields, packed=torch.zeros(1), log_weights=torch.zeros(1), generators=torch.zeros(1))
    assert (old.pilot, old.values) == (0, ())


def test_what_cannot_be_asked_for_is_named() -> None:
    target, generator = make_target(Binary(5)), torch.Generator()
    with pytest.raises(ValueError, match="pilot must be 0 or at least 80 gradient evaluations, got 79"):
        AISSettings(pilot=79)
    with pytest.raises(ValueError, match="needs a temperature for each of its 8 levels, got 7"):
        pilot_path(target, RandomWalk(), generator=generator, num_temperatures=7)
    with pytest.raises(ValueError, match="num_levels must be positive, got 0"):
        pilot_path(target, RandomWalk(), generator=generator, num_levels=0)
    x = torch.zeros(1, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs a sampler that leaves p_beta invariant, DULA"):
        anneal(target, TunedPath(DULA(), ()), x, beta_schedule(3), generator=generator)
    with pytest.raises(ValueError, match="GWG has no field that values could be for"):
        TunedPath(GWG(), (1.0,))
