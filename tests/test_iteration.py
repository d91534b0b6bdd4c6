"""How far chains lag behind the model: the formula, over ranks, and in a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from gwg_dist import iteration
from gwg_dist.chains import ChainBuffer, DataChains
from gwg_dist.data import Digits
from gwg_dist.energies import RBMEnergy
from gwg_dist.iteration import chain_lag
from gwg_dist.module import EBMModule
from gwg_dist.objectives import PseudoLikelihood
from tests.support.runs import run_fit


def lag(before: list[float], after: list[float], hops: float = 0.5, **settings: Any) -> float:
    given = {"interval": 10.0, "num_steps": 4, "num_sites": 16} | settings
    return float(chain_lag(torch.tensor(before), torch.tensor(after), torch.full((len(before),), hops), **given))


def test_the_formula() -> None:
    """Standard deviations 2 and 0.2, eight visits until 4 * 0.5 moves have reached 16 sites, 10 iterations a visit."""
    assert lag([1.0, 5.0], [1.1, 5.5]) == pytest.approx(10 * 8 * 0.2 / 2)
    assert lag([1.0, 5.0], [1.1, 5.5], interval=1.0) == pytest.approx(8 * 0.1)
    assert lag([1.0, 5.0], [1.1, 5.5], num_steps=400) == pytest.approx(10 * 0.1), "a visit at least"
    assert lag([1.0, 5.0], [1001.1, 1005.5]) == pytest.approx(8.0, rel=1e-3), "a constant drops out"


def test_its_ends() -> None:
    assert lag([1.0, 5.0], [1.0, 5.0]) == 0.0, "a model that no longer changes"
    assert lag([1.0, 5.0], [1.0, 5.0], hops=0.0) == 0.0
    assert lag([1.0, 5.0], [1.1, 5.5], hops=0.0) == math.inf, "chains that stand still"
    assert lag([3.0, 3.0], [1.0, 5.0]) == math.inf, "a model that was flat"


def test_it_is_of_the_chains_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of 3 and 2 chains give the number of all five, on both ranks."""
    generator = torch.Generator().manual_seed(0)
    before, change, hops = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    settings = {"interval": 7.0, "num_steps": 3, "num_sites": 20}
    whole = chain_lag(before, before + change, hops, **settings)
    parts: list[torch.Tensor] = []
    monkeypatch.setattr(iteration, "all_sum", lambda value: parts.append(value) or value)
    for share in (slice(0, 3), slice(3, 5)):
        chain_lag(before[share], (before + change)[share], hops[share], **settings)
    monkeypatch.setattr(iteration, "all_sum", lambda value: parts[0] + parts[1])
    for share in (slice(0, 3), slice(3, 5)):
        found = chain_lag(before[share], (before + change)[share], hops[share], **settings)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)


def test_iterations_between_two_visits() -> None:
    assert ChainBuffer(size=1000).interval(100) == 10
    assert DataChains().interval(100) == 1


def trained(module: EBMModule, num: int) -> EBMModule:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=num, enable_model_summary=False, num_sanity_val_steps=0, **quiet)
    trainer.fit(module, datamodule=Digits(batch_size=20))
    return module


def test_it_is_measured_every_tenth_iteration() -> None:
    torch.manual_seed(0)
    energy = RBMEnergy(Digits().space, num_hidden=4)
    assert trained(EBMModule(energy, chains=ChainBuffer(size=100), num_steps=2), 9).stats.lag is None  # pyright: ignore[reportOptionalMemberAccess]
    module = trained(EBMModule(energy, chains=ChainBuffer(size=100), num_steps=2), 12)
    assert module.stats is not None
    assert module.stats.lag is not None
    assert 0 < float(module.stats.lag) < math.inf
    module = trained(EBMModule(energy, objective=PseudoLikelihood()), 10)
    assert module.stats is not None
    assert module.stats.lag is None, "nothing lags without chains"


def test_measuring_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for every in (10, 1000):
        monkeypatch.setattr("gwg_dist.module.LAG_EVERY", every)
        torch.manual_seed(0)
        module = EBMModule(RBMEnergy(Digits().space, num_hidden=4), chains=ChainBuffer(size=100), num_steps=2)
        weights.append(torch.cat([p.detach().flatten() for p in trained(module, 15).energy.parameters()]))
    assert torch.equal(weights[0], weights[1])


def test_it_is_logged(tmp_path: Path) -> None:
    quiet = ["--evaluation.every=0", "--pictures_every=0", "--trainer.log_every_n_steps=10"]
    run_fit(tmp_path / "run", *quiet, "--trainer.max_steps=20")
    header, *rows = (tmp_path / "run/metrics/from_0000000/metrics.csv").read_text().splitlines()
    column = header.split(",").index("train/lag")
    assert [float(row.split(",")[column]) > 0 for row in rows[:2]] == [True, True]
