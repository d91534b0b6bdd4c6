"""The verdict on a run: right about the reference, right about the cause, with command lines that work as printed."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gwg_dist import evaluate, fit, sample
from gwg_dist.chains import ChainBuffer
from gwg_dist.energies import MLPEnergy
from gwg_dist.evaluation import (
    AISSettings,
    Assessment,
    Likelihood,
    assess,
    assessment_of,
    collapse_warning,
    exact_log_prob,
)  # fmt: skip
from gwg_dist.evaluation.ais import AISResult, summarize
from gwg_dist.module import EBMModule
from gwg_dist.objectives import PseudoLikelihood
from gwg_dist.samplers import GWG
from gwg_dist.spaces import Binary
from gwg_dist.training.sides_shown import likelihood_style
from gwg_dist.training.verdict import Training, Verdict, advise, another_run, next_commands, quoted, to_try
from tests.support.kernels import make_target
from tests.support.runs import run_fit

SPACE = Binary(8)
VERBS = {"gwg_dist.fit": fit.main, "gwg_dist.evaluate": evaluate.main, "gwg_dist.sample": sample.main}


def made_up(gain: float, data_stderr: float, *, mean: float = -5.0, log_weights: torch.Tensor | None = None):
    weights = torch.zeros(40) if log_weights is None else log_weights
    estimate = AISResult(*summarize(weights), weights, torch.zeros(1, 8), 70)
    likelihood = Likelihood(mean, estimate.stderr, 0.1, 100)
    gains = {"test": Likelihood(gain, estimate.stderr, data_stderr, 100)}
    return Assessment(estimate, {"test": likelihood}, {"test": mean - gain}, gains)


def test_the_gain_is_that_of_the_exact_model_and_its_error_is_paired() -> None:
    """All models find some points harder than others; the difference of two knows nothing of that."""
    target = make_target(Binary(6), "rbm", strength=0.3)
    codes = target.space.uniform_codes(80, generator=torch.Generator().manual_seed(0))
    log_prob, log_z = exact_log_prob(target)
    estimate = AISResult(float(log_z), 0.0, 40.0, torch.zeros(40), codes[:1], 10)
    found = assessment_of(estimate, target, {"test": (codes, None)})
    assert target.reference is not None
    places = (codes.long() * 2 ** torch.arange(5, -1, -1)).sum(1)
    exact = log_prob[places] - target.reference.log_prob(target.encode(codes)).double()
    assert abs(found.gains["test"].mean - float(exact.mean())) < 1e-9
    assert abs(found.gains["test"].data_stderr - float(exact.std(correction=0)) / math.sqrt(80)) < 1e-9
    whole = found.likelihoods["test"].mean - found.reference["test"]
    assert abs(found.gains["test"].mean - whole) < 1e-9


@pytest.mark.parametrize(
    ("assessment", "kind", "sentence"),
    [
        (made_up(3.0, 0.5), "better", "better than the reference by 3.00 ± 0.50 nats on test (+0.541 bits/dim)"),
        (made_up(-3.0, 0.5), "worse", "worse than the reference by 3.00 ± 0.50 nats on test (-0.541 bits/dim)"),
        (made_up(-0.9, 0.5), "no better", "no better than the reference: the difference is -0.90 ± 0.50 nats"),
        (made_up(3.0, 0.5, log_weights=torch.tensor([0.0] + [-1000.0] * 39)), "unknown", "unknown"),
        (made_up(9.0, 0.5, mean=0.7), "unknown", "the estimate has collapsed"),
        (made_up(math.nan, 0.5), "unknown", "unknown"),
    ],
)
def test_kinds(assessment: Assessment, kind: str, sentence: str) -> None:
    verdict = Verdict.of(assessment, SPACE)
    assert verdict.kind == kind
    assert sentence in verdict.sentence()
    json.dumps(verdict.json(), allow_nan=False)


def test_the_verdict_is_of_both_sides_where_there_are_both() -> None:
    """By the log Z that is printed, not by the optimistic side; unknown where it is not to be quoted."""
    target = make_target(Binary(6), "rbm", strength=2.0)
    log_prob, log_z = exact_log_prob(target)
    generator = torch.Generator().manual_seed(0)
    codes = target.space.all_codes()[torch.multinomial(log_prob.exp(), 60, replacement=True, generator=generator)]
    data = {"test": (codes, None)}
    found = assess(target, GWG(), data, AISSettings(60, 9), generator=generator, starts=codes)
    assert found.sides is not None
    sides = replace(found.sides, crooks=0.0, sites=0.0, num_elsewhere=0, drift=math.nan)
    forward = found.gains["test"]
    verdict = Verdict.of(replace(found, sides=sides), target.space)
    assert verdict.gain == pytest.approx(forward.mean + found.estimate.log_z - sides.log_z)
    assert verdict.stderr == pytest.approx(math.hypot(sides.stderr, forward.data_stderr))
    assert verdict.kind == "better"
    against = replace(found, sides=replace(sides, crooks=2.0))
    verdict = Verdict.of(against, target.space)
    assert verdict.kind == "unknown"
    assert "unknown whether the model is better than its reference: its likelihood is not" in verdict.sentence()
    assert (likelihood_style(found), likelihood_style(against)) == ("bold", "strike")
    exact = Verdict.of(replace(found, sides=replace(sides, crooks=2.0, exact=float(log_z))), target.space)
    assert exact.kind == "better"
    assert exact.stderr == pytest.approx(forward.data_stderr)


def test_a_likelihood_above_zero_is_no_likelihood() -> None:
    """No distribution over discrete points has one, however well the chains agree: nothing is chosen by it."""
    found = made_up(9.0, 0.5, mean=0.7)
    assert not found.estimate.collapsed
    assert found.collapsed
    assert found.metrics()["ais/collapsed"] == 1
    assert "a log-likelihood of +0.70 nats (test) is impossible" in collapse_warning(found)
    assert not made_up(9.0, 0.5, mean=-1e-9).collapsed


def module(**settings) -> EBMModule:
    return EBMModule(MLPEnergy(SPACE, num_hidden=4), chains=ChainBuffer(size=1000), **settings)


@pytest.mark.parametrize(
    ("verdict", "metrics", "cause", "changes"),
    [
        (Verdict("worse", spread=2.0), {"train/lag": 120.0}, "lag behind the model (train/lag 120",
         {"model.num_steps": 20, "model.chains.size": 250}),
        (Verdict("worse", spread=2.0), {"train/accept_prob": 0.001}, "stand still", {"model.learning_rate": 0.001}),
        (Verdict("no better", spread=0.0), {"train/lag": 99.0}, "tells no two points", {"model.learning_rate": 0.001}),
        (Verdict("no better", spread=2.0), {"train/lag": 3.0}, "", {}),
        (Verdict("worse", spread=2.0), {}, "",
         {"model.learning_rate": 0.001, "model.num_steps": 20, "model.chains.size": 250}),
    ],
)  # fmt: skip
def test_causes(verdict: Verdict, metrics: dict[str, float], cause: str, changes: dict) -> None:
    advice = advise(verdict, module(), Training(100, 100, metrics))
    assert cause in advice.cause
    assert bool(cause) == bool(advice.cause)
    assert advice.changes == changes


def test_settings_that_have_no_effect_are_not_advised() -> None:
    changes = advise(Verdict("worse"), module(objective=PseudoLikelihood()), Training(9, 100, {})).changes
    assert changes == {"model.learning_rate": 0.001}
    assert advise(Verdict("worse"), module(), Training(9, 1000, {})).changes.keys() == {
        "model.learning_rate", "model.num_steps",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["run", "my run's", "-x", "a$HOME", 'say "hi"'])
def test_folders_are_quoted(name: str) -> None:
    found = shlex.split(f"verb {quoted(Path(name))}")
    assert len(found) == 2
    assert Path(found[1]) == Path(name)
    assert not found[1].startswith("-")


def test_another_run_takes_a_name_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "run-2").mkdir()
    assert f"--run_dir {tmp_path / 'run-3'} --model.num_steps=4" in another_run(
        tmp_path / "run", {"model.num_steps": 4}
    )


def test_what_is_printed_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder with a space and a quote, of a run without best.ckpt: every command line does what it says."""
    folder = run_fit(
        tmp_path / "it's mine" / "a run", "--trainer.max_steps=4", "--evaluation.every=0", "--pictures_every=0"
    )
    printed = capsys.readouterr().err
    lines = [line.partition("python -m ")[2] for line in printed.splitlines() if "python -m " in line]
    verdict = json.loads((folder / "results.json").read_text())["verdict"]
    assert f"verdict: {verdict['kind']}" in printed
    assert len(lines) == 3 + (verdict["kind"] != "better")
    (folder / "best.ckpt").unlink()  # as where no estimate could be trusted
    named = next_commands(folder, 4, has_chains=True)
    assert named.count("--checkpoint last") == 2
    lines += [line.partition("python -m ")[2] for line in named.splitlines()[:2]]
    for line in lines:
        verb, *args = shlex.split(line)
        few = {"gwg_dist.sample": ["--num_steps=1"], "gwg_dist.evaluate": ["--num_temperatures=4", "--num_chains=3"]}
        VERBS[verb]([*args, *few.get(verb, [])])
    other = Verdict("worse", spread=1.0)
    advice = advise(other, module(), Training(4, 20, {"train/lag": 99.0}))
    verb, *args = shlex.split(to_try(other, advice, folder, 4, num_temperatures=9).partition("python -m ")[2])
    VERBS[verb](args)
    assert (tmp_path / "it's mine" / "a run-2" / "results.json").is_file()


def test_best_and_last_are_both_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best is of iteration 10, the last of 13: the closing estimate looks at both, and says both."""
    args = ["--evaluation.every=10", "--checkpoint_every=5", "--pictures_every=0"]
    folder = run_fit(tmp_path / "run", *args, "--trainer.max_steps=10")
    capsys.readouterr()
    fit.main(["--resume", str(folder), "--trainer.max_steps=13", "--evaluation.every=0"])
    printed = capsys.readouterr().err
    assert "ckpt (iteration 10)" in printed
    assert "ckpt (iteration 13)" in printed
    assert "is not the better one: log-likelihood" in printed
    assert next_commands(folder, 13, has_chains=True).count("--checkpoint") == 0
