"""What a run chooses: from what, that given settings win, and that a run which goes on does not choose again."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace

from gwg_dist import fit
from gwg_dist.callbacks.averaging import averaged
from gwg_dist.chains import ChainBuffer
from gwg_dist.data import DiscreteData, Splits
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.training import budget, recipe
from gwg_dist.training.settings import CHOSEN, build_parser
from tests.support.runs import assert_same_state, checkpoint, fails

QUICK = ["--evaluation.every=0", "--evaluation.num_chains=4", "--evaluation.final_temperatures=4", "--pictures_every=0",
         "--trainer.accelerator=cpu"]  # fmt: skip
PARSER = build_parser()


class Points(DiscreteData):
    """Points of which only the space matters."""

    def load(self) -> Splits:
        none = torch.zeros(0, self.space.num_sites, dtype=self.space.code_dtype)
        return Splits(none, none, none)


def chosen(space: Space, *args: str) -> dict[str, object]:
    """What the recipe chooses for points of this space."""
    config = PARSER.parse_args(list(args))
    return {choice.key: choice.value for choice in recipe.settle(PARSER, config, Points(space))}


def test_every_choice_can_be_seen_and_given() -> None:
    config = PARSER.parse_args([])
    assert {key for key in CHOSEN if config[key] != "auto"} == set()
    choices = recipe.settle(PARSER, config, Points(Binary(64)))
    assert {choice.key for choice in choices} == {*CHOSEN, "model.chains.init_args.size"}
    assert [key for key in CHOSEN if config[key] == "auto"] == []
    assert all(choice.reason for choice in choices)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (Binary((8, 8)), "RBMEnergy"),
        (Binary(80), "RBMEnergy"),
        (Binary(81), "IsingEnergy"),
        (Binary((28, 28)), "IsingEnergy"),
        (Binary(4097), "MLPEnergy"),
        (Categorical((8, 8), 17), "PottsEnergy"),
        (Categorical(156, 21), "PottsEnergy"),
        (Categorical((28, 20), 16), "MLPEnergy"),
    ],
)
def test_the_energy_fits_the_data(space: Space, name: str) -> None:
    assert chosen(space)["model.energy"]["class_path"] == f"gwg_dist.energies.{name}"  # pyright: ignore


def test_what_is_given_wins() -> None:
    """Each setting alone, and what is chosen beside it belongs to it."""
    given = {
        "model.energy": "MLPEnergy", "model.num_steps": 3, "model.learning_rate": 0.5, "model.warmup_iterations": 7,
        "model.cooldown": 0.1, "model.weight_decay": 0.2, "evaluation.every": 11, "evaluation.num_chains": 12,
        "evaluation.num_temperatures": 13, "evaluation.final_temperatures": 14, "trainer.max_steps": 15,
        "pace.limit": 9,
    }  # fmt: skip
    assert given.keys() == CHOSEN.keys()
    for key, value in given.items():
        config = PARSER.parse_args([f"--{key}={value}"])
        choices = {choice.key for choice in recipe.settle(PARSER, config, Points(Binary(64)))}
        assert key not in choices
        found = config[key].class_path if key == "model.energy" else config[key]
        assert found == value if key != "model.energy" else found.endswith("MLPEnergy")
    assert chosen(Binary(64), "--model.energy=MLPEnergy")["model.learning_rate"] == 1e-3
    assert chosen(Binary(140))["model.learning_rate"] == 3e-3
    assert chosen(Binary(784))["model.learning_rate"] == pytest.approx(3e-3 * (150 / 784) ** 2, rel=0.05)
    assert "model.chains.init_args.size" not in chosen(Binary(64), "--model.chains.size=200")
    assert chosen(Binary(64), "--model.chains.init=uniform")["model.chains.init_args.size"] == 2000


def test_a_given_rate_is_not_lowered() -> None:
    assert chosen(Binary(64))["pace.limit"] == 25
    assert chosen(Binary(64), "--model.learning_rate=1e-3")["pace.limit"] == 0


def test_chains_are_visited_often_in_a_short_run() -> None:
    sizes = [
        chosen(Binary(64), f"--trainer.max_steps={num}")["model.chains.init_args.size"]
        for num in (20, 800, 3000, 6000, 10**6)
    ]
    assert sizes == [500, 500, 1000, 2000, 10_000]


def test_an_energy_of_ones_own_says_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from gwg_dist.energies import RBMEnergy\n\n\nclass Mine(RBMEnergy):\n    learning_rate = 0.125\n"
    (tmp_path / "my_energy_with_a_rate.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = chosen(Binary(64), "--model.energy=my_energy_with_a_rate.Mine")
    assert (found["model.learning_rate"], found["model.weight_decay"]) == (0.125, 0.1)


def test_a_class_alone_has_plain_defaults() -> None:
    assert ChainBuffer().size == ChainBuffer(size="auto").size == 10_000


def test_choices_are_said_and_written_and_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit.main([f"--run_dir={tmp_path}/run", "--trainer.max_steps=3", *QUICK])
    printed = capsys.readouterr().err
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert "--model.energy=RBMEnergy (num_hidden 192)" in printed
    assert "--model.chains.size=500" in printed
    assert config["model"]["energy"]["init_args"]["num_hidden"] == 192
    assert config["model"]["chains"]["init_args"]["size"] == 500
    assert config["model"]["num_steps"] == 10
    # A later version would choose otherwise; both ways of going on keep to what was chosen.
    for name, value in (("MIN_STEPS", 1), ("HIDDEN_PER_SITE", 1), ("MIN_REST", 2), ("COOLDOWN", 0.9)):
        monkeypatch.setattr(recipe, name, value)
    fit.main(["--resume", f"{tmp_path}/run", "--trainer.max_steps=4"])
    fit.main([f"--run_dir={tmp_path}/run", "--ckpt_path=last", "--trainer.max_steps=5", *QUICK])
    assert "recipe" not in capsys.readouterr().err
    config["trainer"]["max_steps"] = 5
    again = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert again == config


def test_the_average_of_a_short_run_forgets_how_it_began() -> None:
    """After t averages the oldest weights count for the product of (1 + s) / (10 + s), not for decay^t."""
    average = torch.ones(1, dtype=torch.float64)
    for num in range(1, 50):
        average = averaged(0.999, average, torch.zeros(1, dtype=torch.float64), torch.tensor(num))
    expected = torch.tensor([(1 + s) / (10 + s) for s in range(1, 50)], dtype=torch.float64).prod()
    torch.testing.assert_close(average[0], expected)
    late = averaged(0.9, torch.ones(1), torch.zeros(1), torch.tensor(10**6))
    torch.testing.assert_close(late, torch.tensor([0.9]))


def interrupt_at(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on runs die in this iteration, before they write a checkpoint."""

    def die(self: EBMModule, batch: object, batch_idx: int) -> None:
        if self.global_step == iteration and self.trainer.fit_loop.epoch_loop.batch_idx == iteration:
            raise ZeroDivisionError

    monkeypatch.setattr(EBMModule, "on_train_batch_start", die, raising=False)


def test_minutes_become_numbers_and_a_killed_run_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after it has decided and before it has a checkpoint; what measuring did left no trace in the run."""
    monkeypatch.setattr(budget, "measure", lambda *_: budget.Speed(0.02, 0.01, 0.0))
    args = [f"--run_dir={tmp_path}/run", "--max_minutes=0.01", *QUICK]
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        with pytest.raises(ZeroDivisionError):
            fit.main(args)
    assert "0.01 minutes: an iteration takes 20 ms" in capsys.readouterr().err
    assert not (tmp_path / "run/last.ckpt").exists()
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert kept["max_minutes"] is None
    all_of_it = budget.TRAINING_SHARE * 0.6 / 0.02  # at least half of the time is left when it has measured
    assert int(all_of_it / 2) <= kept["trainer"]["max_steps"] <= all_of_it
    assert kept["model"]["warmup_iterations"] == kept["trainer"]["max_steps"] // 20
    monkeypatch.setattr(budget, "measure", lambda *_: pytest.fail("measured again"))
    fit.main(["--resume", f"{tmp_path}/run"])
    numbers = [f"--trainer.max_steps={kept['trainer']['max_steps']}"]
    fit.main([f"--run_dir={tmp_path}/other", *numbers, *QUICK])
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "other/last.ckpt")


def test_measuring_moves_nothing_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has measured is bit for bit the run with the same numbers that has not."""
    real = budget.measure
    monkeypatch.setattr(budget, "MOST", 5)
    found: list[budget.Speed] = []

    def measured(*args: Any) -> budget.Speed:
        found.append(real(*args))
        return budget.Speed(0.05, 0.01, 0.0)

    monkeypatch.setattr(budget, "measure", measured)
    fit.main([f"--run_dir={tmp_path}/run", "--max_minutes=0.01", *QUICK])
    assert found[0].iteration > 0
    assert found[0].temperature > 0
    steps = checkpoint(tmp_path / "run/last.ckpt")["global_step"]
    fit.main([f"--run_dir={tmp_path}/other", f"--trainer.max_steps={steps}", *QUICK])
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "other/last.ckpt")


def test_minutes_that_set_nothing_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit.main([f"--run_dir={tmp_path}/run", "--max_minutes=5", "--trainer.max_steps=1", *QUICK])
    assert "max_minutes has no effect: trainer.max_steps is 1, not auto" in capsys.readouterr().err
    assert "max_minutes must be positive, got 0.0" in fails(fit.main, ["--max_minutes=0"], capsys)


def test_time_is_shared_between_training_and_estimates() -> None:
    config = PARSER.parse_args(["--evaluation.num_temperatures=77"])
    data = Points(Binary(64))
    choices = recipe.settle(PARSER, config, data)
    objects = Namespace(choices=choices, data=data)
    speed = budget.Speed(iteration=0.01, temperature=0.002, held_out=0.5)
    found = {c.key: c.value for c in budget.decide(config, objects, speed, 100.0)}
    assert found["trainer.max_steps"] == 7000
    assert found["evaluation.final_temperatures"] == (12 - 0.5) / 0.002
    assert found["model.chains.init_args.size"] == 2300
    assert "evaluation.num_temperatures" not in found, "what is given stays"
    later = {c.key: c.value for c in budget.decide(config, objects, speed, 100.0, start=1000)}
    assert later["trainer.max_steps"] == 8000


def test_killed_while_it_measures_a_run_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been decided yet, so the same command decides."""
    args = [f"--run_dir={tmp_path}/run", "--ckpt_path=last", "--max_minutes=0.01", *QUICK]

    def die(*_: Any) -> budget.Speed:
        raise ZeroDivisionError

    monkeypatch.setattr(budget, "measure", die)
    with pytest.raises(ZeroDivisionError):
        fit.main(args)
    assert not (tmp_path / "run/config.yaml").exists()
    monkeypatch.setattr(budget, "measure", lambda *_: budget.Speed(0.05, 0.01, 0.0))
    fit.main(args)
    steps = checkpoint(tmp_path / "run/last.ckpt")["global_step"]
    assert steps == yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["max_steps"]
    monkeypatch.setattr(budget, "measure", lambda *_: pytest.fail("measured again"))
    fit.main(args)  # finished, and said to have been


def test_a_network_reads_many_categories_as_a_few_numbers() -> None:
    def embedding(space: Space) -> object:
        return chosen(space)["model.energy"].get("init_args", {}).get("num_embedding")  # pyright: ignore

    assert embedding(Categorical((28, 20), 256)) == 4
    assert embedding(Categorical((28, 20), 64)) == 3
    assert embedding(Categorical((28, 20), 16)) is None
    assert embedding(Binary(4097)) is None
