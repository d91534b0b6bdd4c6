"""An estimate that is cut short goes on where it was: its numbers are those of one that nobody disturbed."""

import io
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from gwg_dist import evaluate
from gwg_dist.callbacks import AISLikelihood, Underway, assess_module, likelihood
from gwg_dist.data import Digits
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import (
    AISSettings,
    AnnealPoint,
    Assessment,
    TunedPath,
    Unfinished,
    ais_result,
    ais_start,
    anneal,
    set_aside,
    take_up,
)
from gwg_dist.evaluation.annealing import _Chains
from gwg_dist.module import EBMModule
from gwg_dist.samplers import DMALA, GWG, RandomWalk, Sampler
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.training.interruption import Interruption
from gwg_dist.training.waiting import Waiting
from tests.support.kernels import make_target
from tests.support.runs import assert_same_state, checkpoint, run_fit

SETTINGS = AISSettings(7, 250)


def interrupted(space: Space, *, every: int = 100) -> tuple[Unfinished, torch.Tensor, Any]:
    """An estimate as it is after 200 temperatures, its final weights, and a way to go on."""
    target = make_target(space)

    def points(start: AnnealPoint, generator: torch.Generator):
        return anneal(target, GWG(), start, SETTINGS.betas(), generator=generator, every=every)

    generator = torch.Generator().manual_seed(3)
    *_, before, last = points(ais_start(target, generator=generator, num_chains=7), generator)
    assert before.t == 200
    return set_aside(before, space, SETTINGS), ais_result(space, last).log_weights, points


def through_a_file(unfinished: Unfinished) -> Unfinished:
    file = io.BytesIO()
    torch.save(unfinished._asdict(), file)
    file.seek(0)
    return Unfinished(**torch.load(file, weights_only=True))


@pytest.mark.parametrize("space", [Binary(11), Categorical(4, 3), Categorical(3, 300)], ids=str)
def test_set_aside_and_taken_up_is_the_undisturbed_one(space: Space) -> None:
    unfinished, undisturbed, points = interrupted(space)
    assert unfinished.packed.dtype == (torch.uint8 if space.num_categories < 256 else torch.int16)
    assert unfinished.packed.shape == (7, 2 if space == Binary(11) else space.num_sites)
    generator = torch.Generator().manual_seed(99)
    start = take_up(through_a_file(unfinished), space, SETTINGS, dtype=torch.float64, generator=generator)
    assert start is not None
    *_, last = points(start, generator)
    assert torch.equal(ais_result(space, last).log_weights, undisturbed)


def test_another_estimate_begins_again() -> None:
    space = Binary(11)
    unfinished, _, _ = interrupted(space)

    def taken(settings: AISSettings = SETTINGS, **changed: Any) -> AnnealPoint | None:
        generator = torch.Generator().manual_seed(99)
        return take_up(unfinished._replace(**changed), space, settings, dtype=torch.float64, generator=generator)

    assert taken() is not None
    for other in (AISSettings(8, 250), AISSettings(7, 251), AISSettings(7, 250, "sigmoid")):
        assert taken(other) is None
    two = torch.cat([unfinished.generators] * 2)
    assert taken(generators=two) is None, "two ranks made it, this is one"
    assert taken(generators=unfinished.generators[:, :16]) is None, "a CUDA device made it, this is a CPU"


def test_another_kernel_begins_again() -> None:
    """Values of a pilot run are of the kernel that it tuned; what does not name a kernel is taken as before."""
    space = Binary(11)
    unnamed, _, _ = interrupted(space)
    x, log_weights = torch.zeros(7, 11), unnamed.log_weights
    point = AnnealPoint(200, x, log_weights, torch.Generator().get_state())

    def taken(unfinished: Unfinished, kernel: Sampler) -> bool:
        generator, found = torch.Generator(), through_a_file(unfinished)
        return take_up(found, space, SETTINGS, dtype=torch.float64, generator=generator, kernel=kernel) is not None

    for sampler in (RandomWalk(2), TunedPath(RandomWalk(2), (1.0, 2.0, 3.0))):
        named = set_aside(point, space, SETTINGS, sampler)
        assert taken(named, RandomWalk(2))
        assert not any(taken(named, other) for other in (RandomWalk(3), GWG(), DMALA(2.0)))
    assert taken(unnamed, GWG())
    assert taken(set_aside(point, space, SETTINGS, GWG()), GWG())


def test_a_run_with_another_kernel_begins_its_estimate_again() -> None:
    """The values of a pilot run with DMALA are no radii: the assessment is that of a run that was never stopped."""
    torch.manual_seed(0)
    settings, data = AISSettings(8, 210, pilot=80), Digits()
    asked = iter([False] * 12 + [True])
    module = EBMModule(RBMEnergy(data.space, num_hidden=4), DMALA(0.2))
    module.reference.fit(data.frequencies())
    held = assess_module(module, data.splits, settings, Underway(1, stop=lambda: next(asked)))
    assert isinstance(held, Unfinished)
    assert len(held.values) == 8
    module.sampler = RandomWalk(2)
    again, calm = (
        assess_module(module, data.splits, settings, Underway(1, unfinished=begun)) for begun in (held, None)
    )
    assert isinstance(again, Assessment)
    assert isinstance(calm, Assessment)
    assert torch.equal(again.estimate.log_weights, calm.estimate.log_weights)


def test_only_the_end_of_a_segment_is_set_aside() -> None:
    space = Binary(3)
    point = AnnealPoint(5, torch.zeros(2, 3), torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="only the end of a segment can be set aside, got a point inside one, t = 5"):
        set_aside(point, space, SETTINGS)


# -- within a run -----------------------------------------------------------------------------------------------------


class Watch:
    """Notes the temperatures that assessments within a run make, and tells the run to stop at the ``stop_at``-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop_at, self.done, self.found = 0, 0, []
        assess, agreed, advance = likelihood.assess_module, Interruption.agreed, _Chains.advance
        self.inside = False

        def assess_module(*args: Any) -> Any:
            self.inside = True
            outcome = assess(*args)
            self.inside = False
            self.found.append(outcome)
            return outcome

        def told(interruption: Interruption) -> bool:
            if self.inside and self.done == self.stop_at:
                interruption.received = signal.SIGTERM
            return agreed(interruption)

        def counted(chains: _Chains, end: int) -> None:
            self.done += (end - chains.t) * self.inside
            advance(chains, end)

        monkeypatch.setattr(likelihood, "assess_module", assess_module)
        monkeypatch.setattr(Interruption, "agreed", told)
        monkeypatch.setattr(_Chains, "advance", counted)


def test_a_run_goes_on_with_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told at temperature 230 of 350: the resumed run makes the 150 after the 200th, and all is as undisturbed."""
    settings = ["--trainer.max_steps=6", "--evaluation.every=3", "--evaluation.num_temperatures=350",
                "--pictures_every=0"]  # fmt: skip
    calm, folder, watch = tmp_path / "calm", tmp_path / "run", Watch(monkeypatch)
    run_fit(calm, *settings)
    undisturbed, watch.found, watch.done = watch.found, [], 0
    watch.stop_at = 230
    with pytest.raises(SystemExit) as stopped:
        run_fit(folder, *settings)
    assert stopped.value.code == 75
    assert watch.done == 230
    (unfinished,) = watch.found
    assert unfinished.t == 200
    held = callback_state(folder)["unfinished"]
    assert (held["iteration"], held["t"], tuple(held["packed"].shape)) == (3, 200, (10, 8))

    watch.found, watch.done, watch.stop_at = [], 0, 0
    run_fit(folder, *settings, "--ckpt_path=last")
    assert watch.done == 150 + 350
    for ours, theirs in zip(watch.found, undisturbed, strict=True):
        assert torch.equal(ours.estimate.log_weights, theirs.estimate.log_weights)
        assert torch.equal(ours.estimate.codes, theirs.estimate.codes)
        assert (ours.metrics(), ours.likelihoods) == (theirs.metrics(), theirs.likelihoods)
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_state(folder / name, calm / name)
    assert callback_state(folder) == callback_state(calm) == {"due": False, "undecided": False, "unfinished": None}


def told_at(monkeypatch: pytest.MonkeyPatch, temperature: int) -> list[int]:
    """Whoever asks at that temperature is told to stop; the list counts the temperatures made."""
    made, agreed, advance = [0], Interruption.agreed, _Chains.advance

    def told(interruption: Interruption) -> bool:
        if made[0] == temperature:
            interruption.received = signal.SIGTERM
        return agreed(interruption)

    def counted(chains: _Chains, end: int) -> None:
        made[0] += end - chains.t
        advance(chains, end)

    monkeypatch.setattr(Interruption, "agreed", told)
    monkeypatch.setattr(_Chains, "advance", counted)
    return made


def stops(command: Any, *args: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(*args)
    assert stopped.value.code == 75


def test_evaluate_goes_on_with_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the same as from an undisturbed call; other settings leave what waits alone."""
    folder = run_fit(tmp_path / "run", "--trainer.max_steps=3", "--pictures_every=0")
    args = [str(folder), "--num_chains=20", "--num_temperatures=350", "--device=cpu"]
    evaluate.main(args)
    (path,) = (folder / "evaluation").glob("*.json")
    undisturbed = path.read_text()
    path.unlink()
    with monkeypatch.context() as patch:
        made = told_at(patch, 230)
        stops(evaluate.main, args)
        assert made == [230]
        (partial,) = (folder / "evaluation").iterdir()
        assert partial.name.endswith(".partial.pt")
        made[0] = 1000
        evaluate.main([*args[:2], "--num_temperatures=10", "--device=cpu"])
        assert partial.is_file()
        evaluate.main(args)
        assert made == [1000 + 2 * 10 + 150 + 350]
    assert path.read_text() == undisturbed
    assert not list((folder / "evaluation").glob("*.partial.pt"))


def test_the_closing_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--trainer.max_steps=3", "--evaluation.every=0", "--evaluation.final_temperatures=350",
                "--pictures_every=0"]  # fmt: skip
    calm = run_fit(tmp_path / "calm", *settings)
    made = told_at(monkeypatch, 230)
    stops(run_fit, tmp_path / "run", *settings)
    made[0] = 1000
    folder = run_fit(tmp_path / "run", *settings, "--ckpt_path=last")
    assert made == [1000 + 150 + 350]
    assert (folder / "results.json").read_text() == (calm / "results.json").read_text()
    assert list((folder / "evaluation").iterdir()) == []


def test_what_waits_is_for_those_weights_alone(tmp_path: Path) -> None:
    """A damaged file, other weights, another seed: the estimate begins again."""
    unfinished, _, _ = interrupted(Binary(11))
    contents = {"gwg_dist": {"seed": 1}, "state_dict": {"weight": torch.ones(3, dtype=torch.bfloat16)}}
    path = tmp_path / "evaluation/x.partial.pt"
    Waiting(path, contents).write(unfinished)
    found = Waiting(path, contents).read()
    assert found is not None
    assert found.t == 200
    assert torch.equal(found.packed, unfinished.packed)
    assert Waiting(path, {**contents, "gwg_dist": {"seed": 2}}).read() is None
    assert Waiting(path, {**contents, "state_dict": {"weight": 2 * torch.ones(3)}}).read() is None
    path.write_bytes(path.read_bytes()[:100])
    assert Waiting(path, contents).read() is None


def callback_state(folder: Path) -> dict[str, Any]:
    return checkpoint(folder / "last.ckpt")["callbacks"]["AISLikelihood"]


def test_a_checkpoint_of_before_loads() -> None:
    callback = AISLikelihood()
    callback.load_state_dict({"due": True, "undecided": True})
    assert callback.due
    assert callback.unfinished is None
