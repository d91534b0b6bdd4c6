"""An assessment: likelihoods that are those of the exact model, and a verdict on them."""

import math

import pytest
import torch

from gwg_dist.evaluation import (
    AISSettings,
    Assessment,
    Likelihood,
    assess,
    assessment_of,
    collapse_warning,
    describe,
    exact_log_z,
    unnormalised_log_prob,
)  # fmt: skip
from gwg_dist.evaluation.ais import AISResult, ais, summarize
from gwg_dist.samplers import DMALA, GWG, ParallelTempering, Target
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target


def made_up(log_weights: torch.Tensor) -> Assessment:
    estimate = AISResult(*summarize(log_weights), log_weights, torch.zeros(1, 4), 70)
    return Assessment(estimate, {"val": Likelihood(-5.25, estimate.stderr, 0.1, 7)}, {"val": -6.0})


def test_likelihoods_are_those_of_the_exact_model() -> None:
    target = make_target(Binary(6), "rbm", strength=0.7)
    codes = target.space.uniform_codes(60, generator=torch.Generator().manual_seed(0))
    splits = {"val": codes[:20], "test": codes[20:], "none": codes[:0]}
    unweighted = {name: (part, None) for name, part in splits.items()}
    found = assess(target, GWG(), unweighted, AISSettings(500, 100), generator=torch.Generator().manual_seed(1))
    assert list(found.likelihoods) == list(found.reference) == ["val", "test"]
    assert not found.collapsed
    for name, likelihood in found.likelihoods.items():
        exact = float(unnormalised_log_prob(target, splits[name]).mean()) - exact_log_z(target)
        assert abs(likelihood.mean - exact) < 4 * likelihood.stderr < 0.2
        assert likelihood.num == len(splits[name])
        reference = target.reference
        assert reference is not None
        by_hand = reference.log_prob(target.space.encode(splits[name], torch.float64)).mean()
        assert abs(found.reference[name] - float(by_hand)) < 1e-12


def test_all_at_once_and_from_an_estimate_is_the_same() -> None:
    target, settings = make_target(Binary(6)), AISSettings(20, 30, "sigmoid")
    splits = {"test": (target.space.all_codes()[:9], None)}
    once = assess(target, GWG(), splits, settings, generator=torch.Generator().manual_seed(1))
    estimate = ais(
        target, GWG(), generator=torch.Generator().manual_seed(1), num_chains=20, num_temperatures=30,
        schedule="sigmoid",
    )  # fmt: skip
    assert once.metrics() == assessment_of(estimate, target, splits).metrics()


def test_replicas_are_assessed_by_their_kernel() -> None:
    """With a pilot run, which tunes what is inside."""
    target, settings = make_target(Binary(6)), AISSettings(20, 30, pilot=80)
    splits = {"test": (target.space.all_codes()[:9], None)}
    found = [
        assess(target, sampler, splits, settings, generator=torch.Generator().manual_seed(1))
        for sampler in (DMALA(), ParallelTempering(DMALA()))
    ]
    assert found[0].metrics() == found[1].metrics()
    assert found[1].estimate.path is not None


def test_the_verdict() -> None:
    sound, collapsed = made_up(torch.zeros(40)), made_up(torch.tensor([0.0] + [-1000.0] * 39))
    assert not sound.collapsed
    assert collapsed.collapsed
    assert sound.metrics() == {
        "val/log_likelihood": -5.25, "ais/log_z": 0.0, "ais/log_z_stderr": 0.0, "ais/ess": 40.0, "ais/collapsed": 0.0,
    }  # fmt: skip
    assert collapsed.metrics()["ais/collapsed"] == 1.0
    assert describe(sound) == "log-likelihood val -5.25 ± 0.00 nats (AIS, 70 temperatures, ESS 40 of 40)"
    assert collapse_warning(collapsed).startswith("warning: 1.0 of 40 AIS chains carry the estimate; do not believe")


def test_bad_settings_name_themselves() -> None:
    with pytest.raises(ValueError, match="num_chains must be at least 2 for a standard error, got 1"):
        AISSettings(num_chains=1)
    with pytest.raises(ValueError, match="num_temperatures must be positive, got 0"):
        AISSettings(num_temperatures=0)
    target = make_target(Binary(4))
    estimate = made_up(torch.zeros(3)).estimate
    with pytest.raises(ValueError, match="an assessment needs a target with a reference"):
        assessment_of(estimate, Target(target.energy), {})
    assert math.isclose(float(AISSettings(num_temperatures=4).betas()[1]), 0.25)
