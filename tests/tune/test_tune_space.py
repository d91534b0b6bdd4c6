"""The space of a sweep and what becomes of it, without Ray: domains, mistakes, settings of a trial, who wins."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from gwg_dist.tools.errors import InputError
from gwg_dist.tune.recipe import Recipe
from gwg_dist.tune.records import (
    Trial,
    TrialEvaluation,
    append_evaluation,
    best_trial,
    mark_ended,
    read_evaluations,
    read_trial,
    read_trials,
    trial_folder,
    write_point,
)  # fmt: skip
from gwg_dist.tune.space import end_points, grid_points, parse_domain, parse_space, random_points
from tests.support.runs import SMALL

RATE, STEPS, SAMPLER, HEAT = "model.learning_rate", "model.num_steps", "model.sampler", "model.sampler.temperature"
SMALL_SETTINGS: dict[str, Any] = dict(arg[2:].split("=", 1) for arg in SMALL)
SMALL_SETTINGS["trainer.max_steps"] = 20
SMALL_SETTINGS["evaluation.every"] = 10
SMALL_SETTINGS.pop(STEPS)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (3, "give one of choice, uniform, log_uniform, int, log_int"),
        ({"choise": [1]}, "'choise' is none of choice, uniform, log_uniform, int, log_int (did you mean choice?)"),
        ({"points": 3}, "give exactly one of"),
        ({"uniform": [0, 1], "choice": [1]}, "got choice, uniform"),
        ({"choice": []}, "choice needs a list, got []"),
        ({"choice": "GWG"}, "choice needs a list, got 'GWG'"),
        ({"choice": [1, 2], "points": 2}, "a choice has no points"),
        ({"uniform": [1]}, "uniform needs two numbers, [low, high], got [1]"),
        ({"uniform": [0, "many"]}, "uniform needs two numbers"),
        ({"uniform": [2, 1]}, "low must be below high, got 2 and 1"),
        ({"int": [1.5, 3]}, "int needs two integers"),
        ({"int": [True, 3]}, "int needs two integers"),
        ({"log_uniform": [0, 1]}, "log_uniform needs low above 0, got 0"),
        ({"log_int": [-1, 4]}, "log_int needs low above 0, got -1"),
        ({"uniform": [0, math.inf]}, "uniform needs finite ends"),
        ({"uniform": [0, 1], "points": 0}, "points must be a positive integer, got 0"),
        ({"uniform": [0, 1], "points": 2.5}, "points must be a positive integer, got 2.5"),
    ],
)
def test_a_mistake_names_the_key(raw: Any, expected: str) -> None:
    with pytest.raises(InputError) as error:
        parse_space({"model.learning_rate": raw})
    assert str(error.value).startswith("space: model.learning_rate: ")
    assert expected in str(error.value)


def test_classes_come_before_their_settings() -> None:
    space = parse_space({HEAT: {"uniform": [1, 2]}, RATE: {"uniform": [1, 2]}, SAMPLER: {"choice": ["GWG"]}})
    assert list(space) == [RATE, SAMPLER, HEAT]


@pytest.mark.parametrize("kind", ["uniform", "log_uniform", "int", "log_int"])
def test_samples_fill_their_range(kind: str) -> None:
    """Inside it, to both ends; half of them below the middle of the range or of its logarithm."""
    low, high = (1, 1000) if "int" in kind else (0.01, 10.0)
    domain = parse_domain("k", {kind: [low, high]})
    rng = random.Random(0)
    values = [domain.sample(rng) for _ in range(4000)]
    assert all(low <= value <= high for value in values)
    assert all(isinstance(value, int) for value in values) == ("int" in kind)
    middle = math.sqrt(low * high) if "log" in kind else (low + high) / 2
    below = sum(value < middle for value in values)
    assert abs(below - 2000) < 5 * math.sqrt(1000)  # five standard deviations
    assert min(values) < low * 1.5 if "log" in kind else min(values) < low + 0.01 * (high - low)
    assert max(values) > high / 1.5 if "log" in kind else max(values) > high - 0.01 * (high - low)


def test_both_ends_of_an_integer_range_are_drawn() -> None:
    rng = random.Random(0)
    for kind in ("int", "log_int"):
        assert {parse_domain("k", {kind: [2, 4]}).sample(rng) for _ in range(300)} == {2, 3, 4}


@pytest.mark.parametrize(
    "raw", [{"uniform": [0.5, 4]}, {"log_uniform": [1e-5, 1e-2]}, {"int": [1, 3]}, {"log_int": [1, 9]}]
)
def test_mutations_stay_inside_and_reach_the_ends(raw: dict) -> None:
    domain = parse_domain("k", raw)
    low, high = domain.values
    rng = random.Random(0)
    value, seen = domain.sample(rng), []
    for _ in range(2000):
        value = domain.mutate(value, rng)
        seen.append(value)
    assert all(low <= value <= high for value in seen)
    assert {low, high} <= set(seen)


def test_a_mutated_choice_is_a_neighbour_or_new() -> None:
    domain = parse_domain("k", {"choice": ["a", "b", "c", "d"]})
    rng = random.Random(0)
    moves = [domain.mutate("b", rng) for _ in range(1000)]
    near = sum(move in ("a", "c") for move in moves)
    assert 800 < near < 950  # 3/4 neighbours, and half of the 1/4 that are drawn anew: 7/8


def test_a_grid_is_every_combination_end_to_end() -> None:
    space = parse_space({
        RATE: {"log_uniform": [1e-4, 1e-2], "points": 3}, STEPS: {"int": [1, 2], "points": 5},
        SAMPLER: {"choice": ["GWG", "Gibbs"]},
    })  # fmt: skip
    points = grid_points(space)
    assert len(points) == 3 * 2 * 2, "five points of two integers are two"
    assert len({tuple(point.items()) for point in points}) == 12
    assert sorted({point[RATE] for point in points}) == [1e-4, 1e-3, 1e-2]
    with pytest.raises(InputError, match=f"space: {STEPS}: a grid needs points"):
        grid_points(parse_space({STEPS: {"int": [1, 2]}}))


def test_more_random_points_begin_with_the_same() -> None:
    space = parse_space({RATE: {"log_uniform": [1e-4, 1e-2]}, STEPS: {"int": [1, 9]}})
    assert random_points(space, 20, seed=3)[:7] == random_points(space, 7, seed=3)
    assert random_points(space, 7, seed=3) != random_points(space, 7, seed=4)


def test_ends_hold_every_choice_and_both_sides_of_a_range() -> None:
    space = parse_space({f"k{i}": {"uniform": [0, i + 1]} for i in range(8)} | {"c": {"choice": [1, 2, 3]}})
    few, many = end_points(space, limit=10), end_points(space, limit=10_000)
    assert len(many) == 2**8 * 3
    for points in (few, many):
        assert all({point[key] for point in points} == set(domain.values) for key, domain in space.items())
    assert len(few) < 30


# -- settings of a trial ----------------------------------------------------------------------------------------------


def recipe(space: dict, **settings: Any) -> Recipe:
    """The space with small settings for what it does not vary."""
    fixed = {key: value for key, value in SMALL_SETTINGS.items() if key not in space}
    return Recipe(None, fixed | settings, parse_space(space))


def test_a_setting_that_a_class_lacks_is_left_out() -> None:
    ours = recipe({SAMPLER: {"choice": ["GWG", "Gibbs"]}, HEAT: {"uniform": [1, 3]}})
    ours.check("val/log_likelihood")
    warm, gibbs = ({SAMPLER: name, HEAT: 1.5} for name in ("GWG", "Gibbs"))
    assert ours.config(warm).model.sampler.init_args.temperature == 1.5
    assert HEAT in ours.settings(warm)
    assert HEAT not in ours.settings(gibbs)
    assert ours.config(gibbs).model.sampler.class_path.endswith(".Gibbs")
    keys = list(ours.settings(warm))
    assert keys.index(SAMPLER) < keys.index(HEAT)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"model.nm_steps": {"int": [1, 2]}}, "model.nm_steps=1: unrecognized arguments: --model.nm_steps=1 (did you"),
        ({STEPS: {"int": [0, 3]}}, "model.num_steps=0: num_steps must be positive, got 0"),
        ({STEPS: {"uniform": [1, 3]}}, "model.num_steps=1.0"),
        ({RATE: {"choice": [1e-3, "fast"]}}, "model.learning_rate=fast"),
        ({SAMPLER: {"choice": ["GWG", "GWGG"]}}, "there is no class GWGG (did you mean GWG?)"),
        ({SAMPLER: {"choice": ["Gibbs"]}, HEAT: {"uniform": [1, 3]}}, "temperature fits no choice of model.sampler"),
        ({"data.binarization": {"choice": ["threshold", "dynamic"]}}, "data.binarization changes what the"),
        ({"evaluation.schedule": {"choice": ["linear", "sigmoid"]}}, "evaluation.schedule changes what the"),
        ({"trainer.max_steps": {"int": [10, 20]}}, "trainer.max_steps must be the same for all trials"),
        ({"trainer.devices": {"int": [1, 2]}}, "trainer.devices is set by the sweep: see workers"),
        ({"model.chains.size": {"choice": [150, 10]}}, "model.chains.size=10"),
    ],
)  # fmt: skip
def test_ends_that_would_not_run(space: dict, expected: str) -> None:
    with pytest.raises(InputError) as error:
        recipe(space).check("val/log_likelihood")
    assert str(error.value).startswith("space: ")
    assert expected in str(error.value)


def test_an_end_that_only_fails_with_another_names_both() -> None:
    ours = recipe({"data.batch_size": {"choice": [20, 140]}, "model.chains.size": {"choice": [100, 150]}})
    with pytest.raises(InputError, match=r"size must be at least data\.batch_size, got 100 and 140") as error:
        ours.check("val/log_likelihood")
    assert "data.batch_size=140" in str(error.value)


def test_a_key_is_fixed_or_varies() -> None:
    with pytest.raises(InputError, match=f"space: {RATE} is fixed in settings as well"):
        recipe({RATE: {"uniform": [1, 2]}}, **{RATE: 1})


def test_an_evaluation_is_needed() -> None:
    with pytest.raises(InputError, match=r"evaluation\.every must lie in 1 to trainer\.max_steps"):
        recipe({RATE: {"uniform": [1, 2]}}, **{"evaluation.every": 0}).check("val/log_likelihood")


@pytest.mark.parametrize(
    "key", ["model.energy", "model.smoothing", "model.optimizer", "model.chains.size", "data.batch_size"]
)
def test_pbt_refuses_what_a_checkpoint_fixes(key: str) -> None:
    ours = Recipe(None, {}, parse_space({key: {"choice": [1, 2]}}))
    with pytest.raises(InputError, match=f"space: {key} cannot change while a trial goes on"):
        ours.check_mutable()
    Recipe(
        None, {}, parse_space({RATE: {"choice": [1]}, SAMPLER: {"choice": [1]}, HEAT: {"choice": [1]}})
    ).check_mutable()


# -- what trials leave ------------------------------------------------------------------------------------------------


def a_trial(number: int, *values: float | None) -> Trial:
    evaluations = [
        TrialEvaluation(10 * i, value, 0.1, 5.0, "" if value is not None else "collapsed")
        for i, value in enumerate(values)
    ]
    return Trial(number, {}, Path(), evaluations=evaluations)


@pytest.mark.parametrize(("mode", "expected"), [("max", 2), ("min", 1)])
def test_a_collapsed_estimate_never_wins(mode: str, expected: int) -> None:
    trials = [a_trial(0, None, None), a_trial(1, -30.0, None), a_trial(2, -10.0, -20.0)]
    best = best_trial(trials, mode)
    assert best is not None
    assert best.number == expected
    assert best_trial(trials[:1], mode) is None
    best.state = "diverged"
    second = best_trial(trials, mode)
    assert second is not None
    assert second.number == 3 - expected, "settings that diverge are no settings to go on with"
    collapsed = trials[0].evaluations[0].objective(mode)
    assert all((collapsed < value) == (mode == "max") for value in (-1e9, 1e9))


def test_a_folder_says_how_its_trial_stands(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, 3)
    folder.mkdir(parents=True)
    assert read_trials(tmp_path) == []
    write_point(folder, 3, {RATE: 0.1, HEAT: 1}, (HEAT,))
    trial = read_trial(folder)
    assert trial is not None
    assert (trial.number, trial.state, trial.settings) == (3, "open", {RATE: 0.1})
    first = TrialEvaluation(10, -20.0, 0.1, 5.0)
    append_evaluation(folder, first)
    append_evaluation(folder, first)
    with open(folder / "reports.jsonl", "a") as file:
        file.write('{"iteration": 20, "val')
    assert read_evaluations(folder) == [first], "once, and without the torn line"
    mark_ended(folder, "stopped")
    assert [trial.state for trial in read_trials(tmp_path)] == ["stopped"]
    (folder / "results.json").write_text('{"iteration": 20}')
    assert [trial.state for trial in read_trials(tmp_path)] == ["finished"]


@pytest.mark.parametrize("text", ["", '{"iteration": 2'])
def test_a_torn_results_file_leaves_the_trial_open(text: str, tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, 0)
    folder.mkdir(parents=True)
    write_point(folder, 0, {RATE: 0.1}, ())
    (folder / "results.json").write_text(text)
    assert [trial.state for trial in read_trials(tmp_path)] == ["open"]
