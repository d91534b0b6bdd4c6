"""Kernels that are tuned or given up while a run goes on: alike everywhere, once and for all, and remembered."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer

from gwg_dist import evaluate, fit, sample
from gwg_dist.callbacks import Adaptation, adapt, adaptation
from gwg_dist.energies import MLPEnergy, RBMEnergy
from gwg_dist.module import EBMModule, IterationStats
from gwg_dist.samplers import DMALA, GWG, Sampler, SurrogateGWG, Target, run_chain
from gwg_dist.spaces import Binary
from gwg_dist.tools.errors import InputError
from gwg_dist.training.loading import load_run
from tests.plugins import Accepted, Flips
from tests.support.runs import assert_same_state, checkpoint, run_fit

QUIET = ["--evaluation.every=0", "--pictures_every=0", "--checkpoint_every=10"]
POOR = ["--model.sampler=tests.plugins.Accepted", "--model.sampler.block=3", "--adaptation.every=10", *QUIET]
TUNED = ["--model.sampler=tests.plugins.Flips", "--model.sampler.rate=0.2", "--adaptation.every=5",
         "--adaptation.warmup=20", *QUIET]  # fmt: skip


class FakeTrainer:
    """Counts iterations."""

    is_global_zero = True
    global_step = 0


def start(callback: Adaptation, module: EBMModule) -> Trainer:
    trainer = cast(Trainer, FakeTrainer())
    callback.on_train_start(trainer, module)
    return trainer


def iterate(callback: Adaptation, module: EBMModule, trainer: Trainer, accept_prob: float | torch.Tensor) -> None:
    """As if an iteration had ended with this acceptance."""
    module.stats = IterationStats(*[torch.as_tensor(accept_prob)] * 5)
    cast(FakeTrainer, trainer).global_step += 1
    callback.on_train_batch_end(trainer, module, None, None, 0)


def remembered(callback: Adaptation, module: EBMModule) -> None:
    """Resume ``module`` from the state of ``callback``."""
    again = Adaptation()
    again.load_state_dict(callback.state_dict())
    start(again, module)


# -- giving up ---------------------------------------------------------------------------------------------------------


def test_a_run_gives_up_a_surrogate_that_is_refused_too_often(caplog) -> None:
    module = EBMModule(MLPEnergy(Binary(5)), SurrogateGWG(temperature=3.0, block=4), num_steps=5)
    callback = Adaptation(every=1)
    trainer = start(callback, module)
    iterate(callback, module, trainer, 0.9)
    assert isinstance(module.sampler, SurrogateGWG)
    with caplog.at_level(logging.WARNING, logger="gwg_dist"):
        iterate(callback, module, trainer, 0.2)
    assert module.sampler == GWG(3.0)
    assert module.num_steps == 20
    said = [record.message for record in caplog.records if record.name == "gwg_dist"]
    assert said == ["iteration 2: 20 % of the bfloat16 blocks are accepted; going on in full precision"]
    iterate(callback, module, trainer, 0.1)
    assert (module.sampler, module.num_steps) == (GWG(3.0), 20)


def test_acceptance_is_looked_at_every_so_often() -> None:
    module = EBMModule(MLPEnergy(Binary(5)), SurrogateGWG(), num_steps=5)
    callback = Adaptation(every=3)
    trainer = start(callback, module)
    for _ in range(2):
        iterate(callback, module, trainer, 0.0)
        assert isinstance(module.sampler, SurrogateGWG)
    iterate(callback, module, trainer, 0.0)
    assert module.sampler == GWG()


@pytest.mark.parametrize(("mine", "other", "given_up"), [(0.9, 0.0, True), (0.0, 0.9, True), (0.1, 0.95, False)])
def test_the_mean_over_ranks_decides(mine: float, other: float, given_up: bool, monkeypatch) -> None:
    monkeypatch.setattr(adaptation, "all_sum", lambda value: value + other)
    monkeypatch.setattr(adaptation, "world_size", lambda: 2)
    module = EBMModule(MLPEnergy(Binary(5)), SurrogateGWG())
    callback = Adaptation(every=1)
    iterate(callback, module, start(callback, module), mine)
    assert isinstance(module.sampler, GWG) == given_up


def test_a_resumed_run_has_given_up_too(tmp_path: Path) -> None:
    """Bit for bit the undisturbed run, whose acceptance would not be looked at again before iteration 20."""
    run_fit(tmp_path / "calm", *POOR, "--trainer.max_steps=18")
    run_fit(tmp_path / "run", *POOR, "--trainer.max_steps=13")
    kernels = ["--trainer.callbacks+=tests.plugins.Kernels"]
    run_fit(tmp_path / "run", *POOR, *kernels, "--trainer.max_steps=18", "--ckpt_path=last")
    assert (tmp_path / "run/kernel.0").read_text().splitlines() == [f"{GWG()} x 6"] * 2
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    entries = [checkpoint(tmp_path / f"{name}/last.ckpt")["callbacks"]["Adaptation"] for name in ("calm", "run")]
    assert entries[0] == entries[1]
    ((iteration, accept_prob, value),) = entries[0]["decisions"]
    assert (iteration, value) == (10, None)
    assert accept_prob == pytest.approx(0.2)

    assert load_run(tmp_path / "run", "last", device="cpu", trust="tests").module.sampler == GWG()
    assert load_run(tmp_path / "run", "last", device="cpu", trust="tests").module.num_steps == 6
    evaluate.main(
        [str(tmp_path / "run"), "--trust=tests", "--checkpoint=last", "--num_chains=20", "--num_temperatures=30"]
    )
    sample.main([str(tmp_path / "run"), "--trust=tests", "--checkpoint=last", "--num=9", "--num_steps=5"])


def test_a_kernel_that_the_user_chose_on_resuming_wins(tmp_path: Path, caplog) -> None:
    run_fit(tmp_path / "run", *POOR, "--trainer.max_steps=13")
    kernels = ["--trust", "--trainer.callbacks+=tests.plugins.Kernels"]
    with caplog.at_level(logging.WARNING, logger="gwg_dist"):
        fit.main(
            ["--trust", "--resume", str(tmp_path / "run"), "--trainer.max_steps=15", "--model.sampler=Gibbs", *kernels]
        )
    assert (tmp_path / "run/kernel.0").read_text().splitlines() == ["Gibbs(scan='random') x 2"] * 2
    assert "going on with Gibbs(scan='random') of the settings: the checkpoint has adapted another" in caplog.text
    assert checkpoint(tmp_path / "run/last.ckpt")["callbacks"]["Adaptation"]["decisions"] == []


def test_a_checkpoint_from_before_there_was_adaptation(tmp_path: Path) -> None:
    run_dir = run_fit(tmp_path / "run", *QUIET, "--trainer.max_steps=5")
    old = checkpoint(run_dir / "last.ckpt")
    del old["callbacks"]["Adaptation"]
    torch.save(old, run_dir / "last.ckpt")
    config = (run_dir / "config.yaml").read_text()
    without = config[: config.index("adaptation:")] + config[config.index("trainer:") :]
    (run_dir / "config.yaml").write_text(without)
    assert load_run(run_dir, "last", device="cpu").module.sampler == GWG()
    fit.main(["--resume", str(run_dir), "--trainer.max_steps=8"])
    assert checkpoint(run_dir / "last.ckpt")["global_step"] == 8


# -- tuning ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keeps(Flips):
    """Flips with probability 1 - ``keep``: accepted more often for a larger value."""

    keep: float = 0.5

    tunable = "keep"
    acceptance_rises = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", 1 - self.keep)
        super().__post_init__()


@dataclass(frozen=True)
class WrongSign(Flips):
    """A mutant."""

    acceptance_rises = True


def warmed_up(sampler: Sampler, target_acceptance: float | None = None) -> tuple[EBMModule, float]:
    """A module after a warm-up of 40 changes on a fixed model, and the acceptance of its kernel."""
    torch.manual_seed(0)
    module = EBMModule(RBMEnergy(Binary(30), num_hidden=15, scale=0.5), sampler)
    callback = Adaptation(warmup=40, every=1, target_acceptance=target_acceptance)
    generator = torch.Generator().manual_seed(0)
    trainer, x = start(callback, module), torch.zeros(100, 30)
    for _ in range(40):
        end = run_chain(module.sampler, Target(module.energy), x, num_steps=10, generator=generator)
        x = end.x
        iterate(callback, module, trainer, end.accept_prob.mean())
    assert callback.frozen
    frozen = module.sampler
    for accept_prob in (0.0, 1.0):
        iterate(callback, module, trainer, accept_prob)
    assert module.sampler == frozen
    end = run_chain(frozen, Target(module.energy), x, num_steps=500, generator=generator)
    return module, float(end.accept_prob.mean())


@pytest.mark.parametrize("start_at", [Flips(0.003), Flips(0.5), Keeps(keep=0.5)], ids=str)
@pytest.mark.parametrize("target", [None, 0.574])
def test_a_warm_up_brings_the_acceptance_to_its_target_and_freezes(start_at: Flips, target: float | None) -> None:
    _, accept_prob = warmed_up(start_at, target)
    assert abs(accept_prob - (target or Flips.target_acceptance)) < 0.05


def test_the_wrong_sign_is_caught() -> None:
    _, accept_prob = warmed_up(WrongSign(0.1))
    assert abs(accept_prob - WrongSign.target_acceptance) > 0.1


def test_a_step_is_that_of_robbins_and_monro() -> None:
    for gain, accept_prob, target in ((0.7, 0.9, None), (0.1, 0.0, 0.4)):
        error = accept_prob - (target or 0.234)
        for sampler in (Flips(0.1), WrongSign(0.1)):
            sign = -1 if sampler.acceptance_rises else 1
            log_ratio = torch.tensor(sampler.adapted(accept_prob, gain=gain, target=target).rate / 0.1).log()
            assert float(log_ratio) == pytest.approx(sign * gain * error, abs=1e-6)
    assert Flips(0.9).adapted(1.0, gain=3.0) == Flips(0.9), "2.2 would be refused"
    assert GWG().adapted(0.1, gain=3.0) == GWG(), "nothing to tune"


def test_a_whole_number_stays_one() -> None:
    @dataclass(frozen=True)
    class Radius(Flips):
        radius: int = 3
        tunable = "radius"

    for accept_prob, expected in ((1.0, 6), (0.0, 2), (0.234, 3)):
        radius = Radius().adapted(accept_prob, gain=1.0).radius
        assert (type(radius), radius) == (int, expected)
    assert Radius(radius=1).adapted(0.0, gain=9.0).radius == 1


def test_tuning_survives_a_stop_bit_for_bit(tmp_path: Path) -> None:
    """Stopped in the warm-up and once more after it."""
    run_fit(tmp_path / "calm", *TUNED, "--trainer.max_steps=30")
    for steps in (12, 24, 30):
        run_fit(tmp_path / "run", *TUNED, f"--trainer.max_steps={steps}", "--ckpt_path=last")
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    entries = [checkpoint(tmp_path / f"{name}/last.ckpt")["callbacks"]["Adaptation"] for name in ("calm", "run")]
    assert entries[0] == entries[1]
    assert [iteration for iteration, _, _ in entries[0]["decisions"]] == [5, 10, 15, 20]
    assert entries[0]["frozen"]
    values = [value for _, _, value in entries[0]["decisions"]]
    assert len({0.2, *values}) == 5
    assert load_run(tmp_path / "run", "last", device="cpu", trust="tests").module.sampler == Flips(values[-1])


@pytest.mark.parametrize(
    "more",
    [
        ["--adaptation.objective=jump"],
        ["--model.sampler=MultiGWG"],
        ["--model.sampler=DMALA", "--adaptation.precondition=true"],
        ["--model.sampler=ACS", "--model.sampler.cycle=6", "--adaptation.objective=cyclical"],
    ],
    ids=["jump", "whole", "sites", "cyclical"],
)
def test_a_search_survives_a_stop_bit_for_bit(more: list[str], tmp_path: Path) -> None:
    """The search by jump distance, stopped within a round of three looks, and the real number beside a whole one."""
    sampler = [] if "sampler" in more[0] else ["--model.sampler=tests.plugins.Flips", "--model.sampler.rate=0.2"]
    settings = [*sampler, *more, "--adaptation.every=2", "--adaptation.warmup=18", *QUIET]
    run_fit(tmp_path / "calm", *settings, "--trainer.max_steps=22")
    for steps in (7, 20, 22):
        run_fit(tmp_path / "run", *settings, f"--trainer.max_steps={steps}", "--ckpt_path=last")
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")
    entries = [checkpoint(tmp_path / f"{name}/last.ckpt")["callbacks"]["Adaptation"] for name in ("calm", "run")]
    assert entries[0] == entries[1]
    assert len({value for _, _, value in entries[0]["decisions"]}) > 2
    assert entries[0]["frozen"]


def test_a_checkpoint_from_before_there_were_objectives() -> None:
    callback, module = Adaptation(warmup=9, every=1), EBMModule(MLPEnergy(Binary(5)), Flips(0.1))
    trainer = start(callback, module)
    for _ in range(3):
        iterate(callback, module, trainer, 0.4)
    old = {key: value for key, value in callback.state_dict().items() if key not in ("objective", "tuner")}
    resumed, again = EBMModule(MLPEnergy(Binary(5)), Flips(0.1)), Adaptation(warmup=9, every=1)
    again.load_state_dict(old)
    again_trainer = start(again, resumed)
    cast(FakeTrainer, again_trainer).global_step = cast(FakeTrainer, trainer).global_step
    for _ in range(4):
        assert resumed.sampler == module.sampler
        iterate(callback, module, trainer, 0.4)
        iterate(again, resumed, again_trainer, 0.4)


def test_another_value_in_the_settings_wins() -> None:
    callback, module = Adaptation(warmup=3, every=1), EBMModule(MLPEnergy(Binary(5)), Flips(0.1))
    trainer = start(callback, module)
    for _ in range(3):
        iterate(callback, module, trainer, 0.9)
    entry: dict[str, Any] = {"callbacks": {"Adaptation": callback.state_dict()}}
    for mine, expected in ((Flips(0.1), module.sampler), (Flips(0.05), Flips(0.05)), (GWG(), GWG())):
        loaded = EBMModule(MLPEnergy(Binary(5)), mine)
        adapt(loaded, entry)
        assert loaded.sampler == expected
        resumed = EBMModule(MLPEnergy(Binary(5)), mine)
        remembered(callback, resumed)
        assert resumed.sampler == expected


@pytest.mark.parametrize("began", [True, False])
def test_a_search_that_has_begun_keeps_its_objective_and_says_so(began: bool, caplog) -> None:
    callback, module = Adaptation(warmup=9, every=1, objective="jump"), EBMModule(MLPEnergy(Binary(5)), Flips(0.1))
    trainer = start(callback, module)
    for _ in range(2 * began):
        iterate(callback, module, trainer, 0.4)
    for objective in ("jump", "acceptance"):
        again = Adaptation(warmup=9, every=1, objective=objective)
        again.load_state_dict(callback.state_dict())
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="gwg_dist"):
            start(again, EBMModule(MLPEnergy(Binary(5)), Flips(0.1)))
        overruled = began and objective != "jump"
        assert again.objective == ("jump" if began else objective)
        expected = "going on with adaptation.objective jump of the checkpoint, not with acceptance of the settings"
        assert [record.message.partition(":")[0] for record in caplog.records] == [expected] * overruled


def test_nothing_is_tuned_unless_asked(monkeypatch) -> None:
    """No collective, no synchronisation and no other kernel."""
    monkeypatch.setattr(adaptation, "all_sum", lambda value: pytest.fail("looked at the acceptance"))
    for sampler, warmup in ((Flips(0.1), 0), (GWG(), 0), (GWG(), 10)):
        callback, module = Adaptation(warmup=warmup, every=1), EBMModule(MLPEnergy(Binary(5)), sampler)
        trainer = start(callback, module)
        for _ in range(5):
            iterate(callback, module, trainer, 0.0)
        assert module.sampler is sampler


def test_freezing_is_one_line(caplog) -> None:
    callback, module = Adaptation(warmup=5, every=2), EBMModule(MLPEnergy(Binary(5)), Flips(0.1))
    trainer = start(callback, module)
    with caplog.at_level(logging.INFO, logger="gwg_dist"):
        for _ in range(9):
            iterate(callback, module, trainer, 0.234)
    said = [record.message for record in caplog.records if record.name == "gwg_dist"]
    assert said == ["iteration 4: 23 % of the proposals were accepted; Flips goes on with rate = 0.1, frozen"]


def test_a_given_up_kernel_is_followed_by_a_tuned_one() -> None:
    @dataclass(frozen=True)
    class ToFlips(Accepted):
        def retreat(self, accept_prob: float) -> Any:
            found = super().retreat(accept_prob)
            return None if found is None else found._replace(sampler=Flips(0.1))

    callback, module = Adaptation(warmup=4, every=1), EBMModule(MLPEnergy(Binary(5)), ToFlips(block=3), num_steps=2)
    trainer = start(callback, module)
    for accept_prob in (0.9, 0.2, 0.8, 0.8):
        iterate(callback, module, trainer, accept_prob)
    assert isinstance(module.sampler, Flips)
    assert module.sampler.rate > 0.2
    resumed = EBMModule(MLPEnergy(Binary(5)), ToFlips(block=3), num_steps=2)
    remembered(callback, resumed)
    assert (resumed.sampler, resumed.num_steps) == (module.sampler, 6)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_search_that_is_not_for_the_kernel_is_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"objective": "cyclical"}, r"adaptation.objective cyclical needs a kernel that goes through cycles .* Flips"),
        ({"precondition": True}, r"adaptation.precondition needs a kernel with a step size for each site, .* Flips"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message):
            start(Adaptation(warmup=9, every=1, **settings), EBMModule(MLPEnergy(Binary(5)), Flips(0.1)))
        start(Adaptation(**settings), EBMModule(MLPEnergy(Binary(5)), Flips(0.1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every must be positive, got 0"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"warmup": 20}, "warmup must be 0 or at least the 50 iterations of every, got 20"),
        ({"warmup": 10_000}, "every must be at least 154 for a warmup of 10000, .* got 50"),
        ({"target_acceptance": 1.0}, r"target_acceptance must lie in \(0, 1\), got 1.0"),
        ({"objective": "hops"}, "objective must be one of acceptance, jump.*, got 'hops'"),
    ],
)
def test_a_setting_outside_its_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptation(**settings)
    Adaptation(warmup=10_000, every=154)


def test_a_setting_without_an_effect_warns(caplog) -> None:
    cases: list[tuple[Sampler, dict[str, Any], str]] = [
        (GWG(), {"warmup": 100}, "adaptation.warmup has no effect: GWG has nothing to tune"),
        (Flips(), {"target_acceptance": 0.3}, "adaptation.target_acceptance has no effect: adaptation.warmup is 0"),
        (Flips(), {"objective": "jump"}, "adaptation.objective has no effect: adaptation.warmup is 0"),
        (DMALA(), {"precondition": True}, "adaptation.precondition has no effect: adaptation.warmup is 0"),
        (GWG(), {"warmup": 100, "objective": "jump"}, "adaptation.warmup has no effect: GWG has nothing to tune"),
        (
            SurrogateGWG(),
            {"warmup": 100, "precondition": True},
            "adaptation.precondition has no effect: SurrogateGWG has no step size for each site",
        ),
        (
            Flips(),
            {"warmup": 100, "objective": "jump", "target_acceptance": 0.3},
            "adaptation.target_acceptance has no effect: adaptation.objective is jump",
        ),
        (DMALA(), {"warmup": 100, "precondition": True, "target_acceptance": 0.3}, ""),
        (Flips(), {"warmup": 100}, ""),
        (SurrogateGWG(), {"warmup": 100}, ""),
    ]
    for sampler, settings, expected in cases:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="gwg_dist"):
            start(Adaptation(**settings), EBMModule(MLPEnergy(Binary(5)), sampler))
        assert [record.message for record in caplog.records] == ([expected] if expected else [])
