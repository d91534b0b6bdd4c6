"""The running estimate of log Z between annealed ones."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gwg_dist import fit
from gwg_dist.callbacks.online import Online
from gwg_dist.chains.base import Start
from gwg_dist.evaluation import exact_log_z
from gwg_dist.samplers import Gibbs, run_chain
from gwg_dist.spaces import Binary
from tests.support.kernels import make_target
from tests.support.runs import assert_same_state, checkpoint, command, fails, run_fit

SETTINGS = ["--trainer.max_steps=90", "--evaluation.every=30", "--trainer.log_every_n_steps=10", "--pictures_every=0",
            "--model.learning_rate=3e-4", "--ema.decay=0.9", "--evaluation.num_temperatures=100",
            "--evaluation.num_chains=50"]  # fmt: skip


@pytest.mark.parametrize("restarts", [False, True])
def test_chains_that_lag_behind_carry_log_z(restarts: bool) -> None:
    """A tenth of 1,000 chains moves by two steps in each of 200 updates that go their own way, by more than 5 errors.

    The chains' mean work alone, as if they followed the model, ends elsewhere.
    """
    target = make_target(Binary(8), "rbm", strength=0.3)
    generator, online = torch.Generator().manual_seed(1), Online()
    assert target.reference is not None
    codes = target.reference.sample(1000, generator=generator)
    chains: Any = SimpleNamespace(of_reference=True, last_start=None, first_codes=lambda num: codes[:num])
    module: Any = SimpleNamespace(
        target=target, chains=chains, global_step=0, device=torch.device("cpu"), chain_energies=None,
        energy_of=lambda x: -target.f(x).detach(),
    )  # fmt: skip
    online.begin(module)
    parameters = list(target.energy.parameters())  # pyright: ignore
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    naive = begin = exact_log_z(target)
    for _ in range(200):
        rows = torch.randperm(1000, generator=generator)[:100]
        fresh = torch.rand(100, 1, generator=generator) < 0.05 if restarts else None
        start = codes[rows]
        if fresh is not None:
            start = torch.where(fresh, target.reference.sample(100, generator=generator), start)
        moved = run_chain(Gibbs(), target, target.encode(start), num_steps=2, generator=generator)
        codes[rows] = target.space.decode(moved.x).to(codes.dtype)
        chains.last_start, module.chain_energies = Start(start, rows, fresh), module.energy_of(moved.x)
        online.moved(module)
        before = module.energy_of(moved.x)
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += 4e-3 * d
        naive += float((before - module.energy_of(moved.x)).logsumexp(0)) - torch.tensor(100.0).log().item()
    found, exact = online.log_z(module), exact_log_z(target)
    assert found is not None
    error = (1 / found[1] - 1) ** 0.5 / 1000**0.5
    assert 0.1 < found[1] < 0.95
    assert abs(exact - begin) > 5 * error
    assert abs(found[0] - exact) < 4 * error
    assert restarts or abs(naive - exact) > 4 * error


def test_a_state_that_was_put_back_is_forgotten() -> None:
    start = Start(torch.zeros(2, 3), torch.arange(2), None)
    module = SimpleNamespace(chains=SimpleNamespace(last_start=start), chain_energies=torch.ones(2))
    module.energy_of = lambda x: torch.zeros(len(x))
    online = Online()
    online.b = torch.zeros(3)
    online.forget()
    online.moved(module)  # pyright: ignore[reportArgumentType]
    assert online.log_z(module) is None  # pyright: ignore[reportArgumentType]
    assert online.state() is None


def logged(folder: Path, name: str) -> dict[int, float]:
    found = {}
    for path in sorted((folder / "metrics").glob("*/metrics.csv")):
        with open(path, newline="") as file:
            found |= {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    return found


def test_a_run_logs_it_learns_as_without_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = run_fit(tmp_path / "whole", *SETTINGS, "--evaluation.online=true")
    without = run_fit(tmp_path / "without", *SETTINGS)
    found, drift = logged(whole, "val/online"), logged(whole, "ais/online_drift")
    low, high = logged(whole, "val/low_side"), logged(whole, "val/high_side")
    assert list(found) == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert list(drift) == [30, 60, 90]
    assert all(low[n] - 0.5 < found[n] < high[n] + 0.5 for n in (30, 60, 90))
    assert all(abs(each) < 0.5 for each in drift.values())
    assert logged(without, "val/log_likelihood") == logged(whole, "val/log_likelihood")
    both, one = (checkpoint(folder / "last.ckpt") for folder in (whole, without))
    assert all(torch.equal(value, one["state_dict"][name]) for name, value in both["state_dict"].items())
    run_fit(tmp_path / "parts", *SETTINGS, "--evaluation.online=true", "--trainer.max_steps=60")
    parts = run_fit(tmp_path / "parts", *SETTINGS, "--evaluation.online=true", "--ckpt_path=last")
    assert logged(parts, "val/online") == found
    assert_same_state(parts / "last.ckpt", whole / "last.ckpt")


def test_what_has_no_running_estimate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, what in (
        (["--model.objective=PseudoLikelihood"], "evaluation.online needs an objective with chains"),
        (["--trainer.precision=bf16-mixed"], "needs trainer.precision in full, 32-true, got bf16-mixed"),
    ):
        args = command(tmp_path / "run", *SETTINGS, "--evaluation.online=true", *settings)
        assert what in fails(fit.main, args, capsys)
