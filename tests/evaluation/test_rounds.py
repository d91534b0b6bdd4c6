"""``gwg_dist evaluate`` from both sides: the verdict, rounds until the sides meet, and going on bit for bit."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gwg_dist import evaluate, fit, sample
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import AISSettings, judge
from gwg_dist.evaluation.annealing import _Chains
from gwg_dist.evaluation.sides import mass_of
from gwg_dist.training import rounds
from gwg_dist.training.loading import load_run
from gwg_dist.training.rounds import Rounds
from gwg_dist.training.waiting import Waiting
from tests.support.runs import SMALL, fails, run_fit


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RBM with too many hidden units for a sum, on 30 sites."""
    folder = tmp_path_factory.mktemp("rounds")
    np.savez(folder / "my.npz", x=np.random.default_rng(0).integers(0, 2, (90, 30)))
    few = [arg for arg in SMALL if "num_hidden" not in arg]
    run_fit(folder / "run", str(folder / "my.npz"), *few, "--model.energy.num_hidden=30", "--trainer.max_steps=40",
            "--pictures_every=0", "--quiet")  # fmt: skip
    return folder / "run"


def evaluated(run: Path, *args: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    evaluate.main([str(run), "--checkpoint=last", "--num_chains=20", "--device=cpu", "--json", *args])
    return json.loads(capsys.readouterr().out)


def test_both_sides_and_the_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(run), "--checkpoint=last", "--num_chains=60", "--num_temperatures=300"])
    printed = capsys.readouterr().err
    first = printed.index("likelihood: both sides agreed within")
    assert first < printed.index("forward AIS") < printed.index("reverse AIS") < printed.index("Bennett")
    assert "diagnostic" in printed
    values = json.loads((run / "evaluation/last-0000040-60x300-linear.json").read_text())
    sides = values["sides"]
    assert sides["standing"]["kind"] == "agreed"
    assert list(sides["likelihood"]) == ["train", "val", "test"]
    test = sides["likelihood"]["test"]
    assert test["low_side"] <= test["mean"] <= test["high_side"] <= test["ceiling"] <= 0
    assert test["bits_per_dim"] == pytest.approx(-test["nats_per_site"] / np.log(2))
    assert sides["gradient_evaluations"] == {"forward": 18000, "reverse": 18000}
    config = (run / "config.yaml").read_bytes()
    assert values["run"]["config_sha256"] == hashlib.sha256(config).hexdigest()
    assert values["run"]["config"]["model"]["energy"]["init_args"] == {"num_hidden": 30, "scale": 0.01}
    assert (values["settings"]["schedule"], values["settings"]["ranks"]) == ("linear", 1)
    parts = {"pilot": 0, "forward": 18000, "steps before": 60 * 150, "reverse": 18000}
    assert values["gradient_evaluations"] == parts | {"in all": 45000}
    ahead, errors = sides["differences"]["train - test"], sides["bootstrap"]["data"]
    means = values["likelihood"]
    assert ahead["mean"] == pytest.approx(sides["likelihood"]["train"]["mean"] - test["mean"])
    assert ahead["stderr"] == pytest.approx(math.hypot(means["train"]["data_stderr"], test["data_stderr"]))
    assert errors["train"] == pytest.approx(means["train"]["data_stderr"], rel=0.25)
    assert [link["begin"] for link in sides["links"]] == pytest.approx(np.arange(10) / 10)
    assert sum(link["forward"] for link in sides["links"]) == pytest.approx(values["ais"]["log_z"])
    for other in (sides["mbar"], sides["thermodynamic"]):
        assert abs(other["log_z"] - sides["log_z"]) < 0.3
    assert sides["thermodynamic"]["low"] < sides["log_z"] < sides["thermodynamic"]["high"]
    assert values["seed"] == 0
    assert "code" in values["made by"]


def test_chains_that_the_model_cannot_make_anew_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two iterations with chains that began at the data have their correlations still; new chains have none.

    A run with the reference's chains is at one with new ones.
    """
    generator = np.random.default_rng(0)
    both = generator.integers(0, 2, (400, 1))
    x = np.where(generator.random((400, 12)) < 0.9, both, 1 - both)
    np.savez(tmp_path / "my.npz", x=x)
    for init, apart in (("data", True), ("reference", False)):
        run = [f"--data={tmp_path / 'my.npz'}", f"--model.chains.init={init}", "--pictures_every=0"]
        run_fit(tmp_path / init, "--trainer.max_steps=2", *run)
        capsys.readouterr()
        args = [str(tmp_path / init), "--checkpoint=last", "--num_chains=100", "--num_temperatures=50", "--json"]
        evaluate.main([*args, "--device=cpu"])
        printed = capsys.readouterr()
        found = json.loads(printed.out)["resample"]
        assert found["out of equilibrium"] is apart
        assert (found["pairs"]["chains"] > 0.5) is apart
        assert found["pairs"]["new"] < 0.5
        assert ("the model was trained out of equilibrium" in printed.err) is apart


def test_rounds_go_on_until_the_sides_meet(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two temperatures are too few for a gap of 0.02 nats; the last round says how many were enough."""
    sides = evaluated(run, "--num_temperatures=2", "--until_gap=0.05", capsys=capsys)["sides"]
    assert sides["standing"]["kind"] == "agreed"
    assert sides["standing"]["nats"] <= 0.05
    assert sides["gradient_evaluations"]["forward"] > 40
    assert not list((run / "evaluation").glob("*.partial.pt"))


def test_the_first_side_by_systems_that_resample(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another file, the same log Z; as many as the weights of systems allow are said to carry it."""
    args = ["--num_chains=100", "--num_temperatures=150"]
    plain = evaluated(run, *args, capsys=capsys)
    found = evaluated(run, *args, "--estimator=smc", capsys=capsys)
    assert (run / "evaluation/last-0000040-100x150-linear-smc.json").is_file()
    assert found["sides"]["standing"]["kind"] == "agreed"
    assert list(found["sides"]["routes"]) == ["forward SMC", "reverse AIS", "Bennett"]
    assert found["ais"]["num_systems"] == 20
    assert 15 < found["ais"]["ess"] <= 20
    assert abs(found["sides"]["log_z"] - plain["sides"]["log_z"]) < 0.2
    assert "links" not in found["sides"], "the works of copied chains"


@pytest.mark.parametrize(
    ("at", "more"),
    [
        (130, []),
        (150 + 130, []),
        (300 + 130, []),
        (300 + 300 + 130, []),
        (110, ["--num_chains=80", "--estimator=smc"]),
    ],
)
def test_a_killed_evaluation_goes_on_bit_for_bit(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: int, more: list[str]
) -> None:
    """In the first round forwards and backwards, in the second forwards and backwards."""
    args = ["--num_temperatures=150", "--until_gap=1e-9", "--max_minutes=1e3", *more]
    monkeypatch.setattr(rounds, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(rounds.Rounds, "_next", two_rounds)
    calm = evaluated(run, *args, f"--out={run}/calm.json", capsys=capsys)
    made, advance = [0], _Chains.advance

    def counted(chains: _Chains, end: int) -> None:
        made[0] += end - chains.t
        if made[0] > at:
            raise Killed
        advance(chains, end)

    with monkeypatch.context() as patch:
        patch.setattr(_Chains, "advance", counted)
        with pytest.raises(Killed):
            evaluated(run, *args, f"--out={run}/again.json", capsys=capsys)
    assert (run / "again.partial.pt").is_file()
    assert evaluated(run, *args, f"--out={run}/again.json", capsys=capsys) == calm
    assert (run / "again.json").read_text() == (run / "calm.json").read_text()
    assert not (run / "again.partial.pt").exists()


def two_rounds(self: rounds.Rounds, found: Any, took: float) -> tuple[int, int] | None:
    now = self.state.now
    return None if now.num_temperatures == 300 else (2 * now.num_chains, 300)


def test_time_that_is_up_keeps_the_last_round(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round that is cut short waits, and more minutes go on with it."""
    args = ["--num_temperatures=20", "--until_gap=1e-9", f"--out={run}/late.json"]
    monkeypatch.setattr(rounds.Rounds, "_next", two_rounds_of_20)
    first = evaluated(run, *args, "--max_minutes=1e-9", capsys=capsys)["sides"]
    assert first["gradient_evaluations"]["forward"] == 20 * 20
    assert first["standing"]["kind"] == "gap"
    assert (run / "late.partial.pt").is_file()
    assert evaluated(run, *args, "--max_minutes=1e-9", capsys=capsys)["sides"] == first
    more = evaluated(run, *args, "--max_minutes=9", capsys=capsys)["sides"]
    assert more["gradient_evaluations"]["forward"] == 40 * 40
    assert not (run / "late.partial.pt").exists()


def two_rounds_of_20(self: rounds.Rounds, found: Any, took: float) -> tuple[int, int] | None:
    return None if self.state.now.num_temperatures == 40 else (40, 40)


def rounds_of(run: Path, wanted: rounds.Wanted, name: str = "rounds", stop: Callable[[], bool] | None = None) -> Rounds:
    loaded = load_run(run, "last", device="cpu", trust="")
    waiting = Waiting(run / f"{name}.partial.pt", loaded.checkpoint)
    return Rounds(loaded, wanted, waiting, stop or (lambda: False), None)


def test_a_signal_early_in_the_reverse_side_loses_nothing(run: Path) -> None:
    """At its first look, long before the end of a segment."""
    wanted = rounds.Wanted(AISSettings(20, 150))
    calm = rounds_of(run, wanted).go()
    first = rounds_of(run, wanted, stop=lambda: first.state.now.starts is not None)
    assert first.go() is None
    assert first.state.where() == "0 of 150 reverse temperatures"
    again = rounds_of(run, wanted)
    assert again.state.now.starts is not None
    found = again.go()
    assert calm is not None
    assert found is not None
    assert found.sides is not None
    assert calm.sides is not None
    assert torch.equal(found.sides.reverse.log_weights, calm.sides.reverse.log_weights)


def test_time_that_is_up_early_in_the_reverse_side(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The round before is what is found."""
    monkeypatch.setattr(Rounds, "_next", two_rounds_of_20)
    late = rounds_of(run, rounds.Wanted(AISSettings(20, 20), until_gap=1e-9), "time")
    seconds = late._seconds
    second = lambda: late.state.now.num_temperatures == 40 and late.state.now.starts is not None  # noqa: E731
    late._seconds = lambda: 1e12 if second() else seconds()  # type: ignore[method-assign]
    found = late.go()
    assert found is not None
    assert found.estimate.num_temperatures == 20
    assert late.state.where() == "0 of 40 reverse temperatures"


def test_starts_that_are_settled_are_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed as it begins to go back has lost none of the steps before."""
    monkeypatch.setattr(rounds, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "reverse_of", killed)
    wanted = rounds.Wanted(AISSettings(20, 20))
    with pytest.raises(Killed):
        rounds_of(run, wanted, "settled").go()
    assert rounds_of(run, wanted, "settled").state.now.starts is not None


def test_a_mode_that_training_points_alone_know(run: Path) -> None:
    """Both sides agree without it, and are wrong by more than ten nats: its one point has e^11 times their mass."""
    found = rounds_of(run, rounds.Wanted(AISSettings(100, 50)), "mode")
    splits, energy = found.run.data.splits, found.module.energy
    assert isinstance(energy, RBMEnergy)
    mode = splits.parts["train"][0][0].float()
    with torch.no_grad():
        for values in energy.parameters():
            values.zero_()
        energy.weight[1] = 40 * (2 * mode - 1)
        energy.hidden_bias[1] = 12 + 31 * math.log(2) - 40 * mode.sum()
    found.wanted = found.wanted._replace(starts=found.module.space.uniform_codes(100, generator=torch.Generator()))
    outcome = found.go()
    assert outcome is not None
    assert outcome.sides is not None
    mass = mass_of(found.module.target, splits.parts["train"][0][:1])
    assert mass > max(route.log_z for route in outcome.sides.routes) + 9
    assert outcome.sides.log_z >= mass
    standing = judge(outcome.sides)
    assert standing.kind == "not to be quoted"
    assert "points that were seen have" in standing.sentence()


def test_rounds_that_wait_go_on_under_the_same_order_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chains, temperatures, schedule, sides, starts and their number: where one differs the estimate begins anew."""
    starts = torch.zeros(20, 30, dtype=torch.uint8)
    wanted = rounds.Wanted(AISSettings(20, 20), starts=starts)
    first = rounds_of(run, wanted, "order", stop=lambda: first.state.now.forward is not None)
    assert first.go() is None
    for other, name in (
        (wanted._replace(settings=AISSettings(30, 20)), "num chains"),
        (wanted._replace(settings=AISSettings(20, 40)), "num temperatures"),
        (wanted._replace(settings=AISSettings(20, 20, "sigmoid")), "schedule"),
        (wanted._replace(settings=AISSettings(20, 20, pilot=400)), "pilot"),
        (wanted._replace(two_sided=False), "two sided"),
        (wanted._replace(starts=1 - starts), "starts"),
        (wanted._replace(num_starts=10), "num starts"),
    ):
        capsys.readouterr()
        begun = rounds_of(run, other, "order").state
        assert (begun.where(), begun.now.num_chains) == ("", other.settings.num_chains)
        printed = " ".join(capsys.readouterr().err.split())
        assert f"the estimate that waits is of other settings ({name}): beginning anew" in printed
    assert rounds_of(run, wanted._replace(until_gap=1.0, max_minutes=5.0), "order").state.now.forward is not None


def killed(*args: Any, **settings: Any) -> Any:
    raise Killed


def test_samples_of_a_file_and_one_side_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample.main([str(run), "--checkpoint=last", "--num=30", "--num_steps=20", f"--out={run}/mine.npz"])
    sides = evaluated(run, "--num_temperatures=30", f"--starts={run}/mine.npz", capsys=capsys)["sides"]
    assert sides["num_starts"] == 20
    assert sides["checks"]["drift"] is None
    assert (run / "evaluation/last-0000040-20x30-linear-from-mine.json").is_file()
    assert "sides" not in evaluated(run, "--num_temperatures=30", "--sides=forward", capsys=capsys)


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros((30, 7), dtype=np.uint8))
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 30), dtype=np.uint8))
    for args, expected in (
        (["--num_temperatures=0"], "num_temperatures must be positive, got 0"),
        (["--num_chains=1"], "num_chains must be at least 2 for a standard error, got 1"),
        (["--checkpoint=none.ckpt"], "there is no checkpoint none.ckpt; the run has: "),
        ([f"--starts={tmp_path}/other.npz"], "7"),
        ([f"--starts={tmp_path}/one.npz"], "holds 1 points, at least 2 are needed"),
        ([f"--out={tmp_path}"], "is a folder, expected the path of a file"),
        ([f"--out={tmp_path}/one.npz"], "one.npz is there and holds no likelihoods"),
        (["--sides=back"], "sides must be one of both, forward, got 'back'"),
        (["--until_gap=0"], "until_gap must be positive, got 0.0"),
        (["--sides=forward", "--until_gap=1"], "until_gap and starts are of both sides, got sides = forward"),
    ):
        assert expected in fails(evaluate.main, [str(run), "--device=cpu", *args], capsys)


def test_a_run_without_chains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other side begins at the data; a model of few points is exact; an empty test set is refused as it is read."""
    x = np.random.default_rng(0).integers(0, 2, (60, 8))
    np.savez(tmp_path / "all.npz", x_train=x, x_none=x[:0])
    loss = ["--model.objective=PseudoLikelihood", "--trainer.max_steps=5", "--pictures_every=0", "--quiet"]
    few = [str(tmp_path / "all.npz"), *(arg for arg in SMALL if "chains" not in arg), *loss, "--data.train=x_train"]
    run_fit(tmp_path / "run", *few)
    sides = evaluated(tmp_path / "run", "--num_temperatures=30", "--until_gap=1e-9", capsys=capsys)["sides"]
    assert sides["standing"]["kind"] == "exact"
    assert sides["gradient_evaluations"]["forward"] == 20 * 30, "one round"
    assert sides["routes"]["reverse AIS"]["label"] == "diagnostic: from training points"
    assert sides["num_starts"] == 20
    assert sides["log_z"] == sides["routes"]["exact sum"]["log_z"]
    test = sides["likelihood"]["test"]
    assert test["low_side"] == test["mean"] == test["high_side"]
    args = [f"--run_dir={tmp_path}/none", *few, "--data.validation=x_none", "--data.test=x_none"]
    assert "at least three points, got (0, 8)" in fails(fit.main, args, capsys)
