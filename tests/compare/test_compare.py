"""The verb: autocorrelation times that are known, costs, what is not measured, going on, mistakes, every config."""

import json
import math
from pathlib import Path

import pytest
import torch

from gwg_dist.compare import cli
from gwg_dist.compare.cost import Cost, cost_of
from gwg_dist.compare.measure import Unit, measure
from gwg_dist.compare.problems import Bernoulli, IsingLattice, PottsLattice, Problem
from gwg_dist.compare.record import Approach
from gwg_dist.compare.settings import Comparison, Entry
from gwg_dist.compare.summary import SLOWEST, summaries
from gwg_dist.evaluation import mmd_squared
from gwg_dist.samplers import DULA, GWG, BlockGibbs, Gibbs, RandomWalk, Sampler, run_chain
from tests.conftest import ROOT
from tests.plugins import Stay
from tests.support.runs import fails

CPU = torch.device("cpu")
CONFIGS = sorted((ROOT / "configs/compare").glob("*.yaml"))


def unit(sampler: Sampler, problem: Problem, *, steps: int = 2000, every: int = 1, chains: int = 16) -> Unit:
    entry = Entry(sampler, objective="none")
    settings = Comparison(problem, {"it": entry}, num_chains=chains, warmup=10, steps=steps, every=every, rounds=1)
    return measure("it", entry, problem.pose(100, CPU), settings, seed=0, tick=lambda _: None)


@pytest.mark.parametrize("every", [1, 3])
def test_the_time_of_gibbs_on_fair_coins(every: int) -> None:
    """A site in D is drawn afresh each step: a Hamming distance has rho_t = (1 - 1/D)^t, so tau = 2 D - 1 steps."""
    found = unit(Gibbs(), Bernoulli(num_sites=10, low=0.5, high=0.5), steps=2500, every=every)
    for name in ("distance", "magnetisation", "stripes"):
        assert found.observed[name].time == pytest.approx(19, rel=0.15), name
        assert found.observed[name].rhat < 1.05
    assert math.isnan(found.observed["f"].time), "f is the same everywhere"
    assert 0.4 < found.hops < 0.6


@pytest.mark.parametrize(
    ("sampler", "problem", "expected"),
    [
        (GWG(), IsingLattice(shape=(4, 4)), Cost(1, 0)),
        (RandomWalk(radius=2), IsingLattice(shape=(4, 4)), Cost(0, 1)),
        (Gibbs(), PottsLattice(side=3, num_categories=4), Cost(0, 3)),
        (BlockGibbs(), IsingLattice(shape=(4, 4)), Cost(None, None)),
    ],
    ids=["GWG", "RandomWalk", "Gibbs", "BlockGibbs"],
)
def test_evaluations_are_counted(sampler: Sampler, problem: Problem, expected: Cost) -> None:
    target, generator = problem.pose(2, CPU).target, torch.Generator().manual_seed(0)
    x = target.encode(target.space.uniform_codes(5, generator=generator))
    assert cost_of(sampler, target, x, generator=generator) == expected


def test_a_chain_that_never_moved_is_not_measured() -> None:
    problem = Bernoulli(num_sites=6)
    units = {"GWG": [unit(GWG(), problem, steps=200)], "stay": [unit(Stay(), problem, steps=200)]}
    moves, stays = summaries(units)
    assert moves.rates[SLOWEST].note == "" or "short" in moves.rates[SLOWEST].note
    rate = stays.rates["distance"]
    assert "16 chains never moved" in rate.note
    assert stays.to_dict()["rates"]["distance"]["per_second"] == {"value": None, "low": None, "high": None}
    assert stays.converged is None or stays.converged == 0


def test_ratios_and_their_intervals() -> None:
    """Per step: 2 D - 1 for one site of D a step; a sweep forgets at once."""
    problem = IsingLattice(shape=(4, 4), sigma=1e-9)
    units = {"Gibbs": [unit(Gibbs(), problem, steps=2500)], "sweep": [unit(BlockGibbs(), problem, steps=1000)]}
    gibbs, sweep = (each.rates["distance"] for each in summaries(units))
    low, high = gibbs.per_step.interval(0.999)
    assert low < 1000 / 31 < high
    assert sweep.per_step.value == pytest.approx(1000, rel=0.1)
    assert gibbs.per_evaluation == gibbs.per_step
    assert gibbs.per_gradient is None
    assert sweep.per_evaluation is None
    assert gibbs.gain_per_second is not None
    assert gibbs.gain_per_second.value == 1
    assert sweep.gain_per_second is not None


@pytest.mark.parametrize("every", [1, 3])
def test_a_checkpoint_is_after_the_steps_that_it_names(every: int) -> None:
    posed = Bernoulli(num_sites=6).pose(10, CPU)
    start = posed.target.encode(posed.target.space.uniform_codes(2, generator=torch.Generator().manual_seed(0)))

    def chains(steps: int, look: Approach | None = None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return run_chain(GWG(), posed.target, start, num_steps=steps, generator=generator, before_step=look).x

    approach = Approach(posed, num_chains=2, steps=20, every=every)
    chains(20, approach)
    assert approach.steps[:3] == [0, every, 2 * every]
    assert posed.samples is not None
    for steps, found in zip(approach.steps, approach.mmd, strict=True):
        codes = posed.target.space.decode(chains(steps))
        assert found == mmd_squared(codes, posed.samples, num_categories=2), steps


def test_convergence_is_when_the_discrepancy_stays_small() -> None:
    approach = Approach(Bernoulli(num_sites=4).pose(10, CPU), num_chains=2, steps=100, every=1)
    approach.steps, approach.mmd = [1, 2, 4, 8], [0.5, 0.01, 0.2, 0.01]
    assert approach.converged(0.1) == 8
    assert approach.converged(0.005) is None
    assert approach.converged(None) is None
    assert approach.converged(1.0) == 1


SMALL = """
problem:
  class_path: Bernoulli
  init_args: {num_sites: 6}
kernels:
  one: {sampler: {class_path: GWG}}
  two: {sampler: {class_path: RandomWalk}}
num_chains: 4
warmup: 20
steps: 64
rounds: 1
seeds: [0, 1]
num_exact: 20
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_from_a_file_to_tables_numbers_and_pictures(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args, out = ["--config", str(config), f"--out={tmp_path}/out"], tmp_path / "out"
    cli.main(args)
    assert "a second" in capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert [each["kernel"] for each in results["kernels"]] == ["one", "two"]
    first = results["kernels"][0]["rates"]["distance"]
    assert first["per_gradient"]["low"] < first["per_gradient"]["value"] < first["per_gradient"]["high"]
    assert results["machine"]["device"]
    assert {path.name for path in out.iterdir()} >= {
        "table.txt", "rmse.png", "mmd.png", "ess.png", "autocorrelation.png", "compare.yaml"
    }  # fmt: skip
    assert len(list((out / "units").iterdir())) == 4

    measured = []
    (out / "units/two-1.json").write_text('{"torn": ')
    monkeypatch.setattr(cli, "measure", lambda name, *_, seed, **__: measured.append((name, seed)) or lost())
    with pytest.raises(KeyError, match="lost"):
        cli.main(args)
    assert measured == [("two", 1)], "what is there is not measured again"
    assert "holds another comparison" in fails(cli.main, [*args, "--steps=100"], capsys)


def test_names_that_would_share_a_file_are_refused() -> None:
    entry = Entry(GWG())
    with pytest.raises(ValueError, match="kernels: 'a b' and 'a_b' would share a file, rename one"):
        Comparison(Bernoulli(), {"a b": entry, "c": entry, "a_b": entry})


def test_what_another_kernel_measured_is_not_read(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, units = ["--config", str(config), f"--out={tmp_path}/out", "--seeds=[0]"], tmp_path / "out/units"
    cli.main(args)
    (units / "two-0.json").write_text((units / "one-0.json").read_text())
    measured = []
    monkeypatch.setattr(cli, "measure", lambda name, *_, seed, **__: measured.append((name, seed)) or lost())
    with pytest.raises(KeyError, match="lost"):
        cli.main(args)
    assert measured == [("two", 0)]


def test_what_was_measured_elsewhere_is_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stopped comparison that goes on on another machine keeps the origin of what it has."""
    args, out = ["--config", str(config), f"--out={tmp_path}/out", "--seeds=[0]"], tmp_path / "out"
    cli.main(args)
    assert "elsewhere" not in capsys.readouterr().err
    first = json.loads((out / "units/one-0.json").read_text())
    here = first["machine"]
    there = {**here, "code": "gwg_dist of old", "device": "another processor", "date": "2001-01-01"}
    (out / "units/one-0.json").write_text(json.dumps({**first, "machine": there}))
    second = json.loads((out / "units/two-0.json").read_text())
    (out / "units/two-0.json").write_text(json.dumps({**second, "machine": {**here, "date": "2001-01-01"}}))
    cli.main(args)
    results = json.loads((out / "results.json").read_text())
    origin = f"gwg_dist of old, torch {here['torch']}, another processor, threads {here['threads']}"
    assert results["elsewhere"] == {origin: ["one, 0"]}
    assert results["machine"] == here
    assert [each["machines"][0]["device"] for each in results["kernels"]] == ["another processor", here["device"]]
    for text in (capsys.readouterr().err, (out / "table.txt").read_text()):
        assert f"measured elsewhere, by {origin}: one, 0" in " ".join(text.split())


def test_a_kernel_that_is_not_exact_is_said_to_be_none(tmp_path: Path) -> None:
    problem = Bernoulli(num_sites=6)
    near, exact = summaries({"near": [unit(DULA(), problem, steps=200)], "exact": [unit(GWG(), problem, steps=200)]})
    assert all(rate.note.startswith("not exact") for rate in near.rates.values())
    assert not any("not exact" in rate.note for rate in exact.rates.values())
    frozen = unit(Stay(), problem, steps=64)
    frozen.exact = False
    assert "not exact; not measured" in summaries({"it": [frozen]})[0].rates["distance"].note


def lost() -> Unit:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--steps=3"], "steps must be at least 16 times every, got 3 and 1"),
        (["--num_chains=1"], "num_chains must be at least 2, got 1"),
        (["--problem=IsingLatice"], "IsingLattice"),
        (["--problem.num_sites=0"], "problem: shape must hold positive sizes"),
        (["--kernels={two: {sampler: {class_path: GWG}, objective: best}}"], "kernels.two: objective must be one of"),
        (["--kernels={b: {sampler: {class_path: RandomWalk, init_args: {radius: 7}}}}"], "kernels.b: radius must be"),
        (["--problem=RunModel"], "problem.run: give the folder of a run"),
        (["--device=foo"], "device: foo cannot be used"),
        (["--device=meta"], "device: meta cannot be used: expected cpu, cuda or cuda:NUMBER"),
        (["--device=cuda:99"], "device: cuda:99 cannot be used"),
        (["--kernels={b: {sampler: {class_path: PAS}, objective: cyclical}}"], "kernels.b: objective cyclical needs"),
        (["--kernels={a: {sampler: {class_path: PAS}, target_acceptance: 1.5}}"], "kernels.a: target_acceptance must"),
        (["--kernels={a: {sampler: {class_path: GWG}, steps: 0}}"], "kernels.a: steps must be at least 1, got 0"),
        (["--kernels={a: {sampler: {class_path: GWG}, every: 0}}"], "kernels.a: every must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line(
    args: list[str], expected: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(cli.main, ["--config", str(config), f"--out={tmp_path}/out", *args], capsys)
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_settings_that_measured_nothing_do_not_lock_a_folder(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--config", str(config), f"--out={tmp_path}/out", "--seeds=[0]"]
    with monkeypatch.context() as patch:
        patch.setattr(cli, "measure", lambda *_, **__: lost())
        with pytest.raises(KeyError, match="lost"):
            cli.main([*args, "--steps=100"])
    cli.main(args)
    assert "steps: 64" in (tmp_path / "out/compare.yaml").read_text()


def test_no_kernel_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="kernels: name one at least"):
        Comparison(Bernoulli())


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    args = ["--config", path.stem, "--quick", f"--out={tmp_path}/out"]
    if "class_path: MNIST" in path.read_text():
        args.append(f"--problem.data.root={request.getfixturevalue('shared_data')}")
    if "class_path: RunModel" in path.read_text():
        assert "problem.run: give the folder of a run" in fails(cli.main, args, capsys)
        return
    cli.main(args)
    settings = (tmp_path / "out/compare.yaml").read_text()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert all(f"  {each['kernel']}:" in settings for each in results["kernels"])
