"""Two and three processes with gloo, started as a user starts them.

Same gradient as one process, different chains on every rank, chains that survive every change of the number of ranks.
"""

from pathlib import Path

import pytest
import torch
import yaml

from gwg_dist.samplers import GWG
from gwg_dist.tools.distributed import share
from tests.soak import soak
from tests.support.runs import assert_same_state, checkpoint, command, run

STAY = ["--model.sampler=tests.plugins.Stay", "--evaluation.every=0", "--pictures_every=0"]


def fit(run_dir: Path, num_processes: int, *args: str) -> dict:
    """A run over ``num_processes`` gloo processes; the last checkpoint."""
    devices = ["--trainer.strategy=ddp", f"--trainer.devices={num_processes}"] if num_processes > 1 else []
    log = run_dir.with_suffix(".log")
    code = run("gwg_dist.fit", command(run_dir, *devices, "--ckpt_path=last", *args), log)
    assert code == 0, log.read_text()[-3000:]
    return checkpoint(run_dir / "last.ckpt")


@pytest.mark.parametrize(("total", "world_size"), [(10, 1), (10, 3), (3, 3), (2, 3), (0, 2)])
def test_shares_cover_everything_once(total: int, world_size: int) -> None:
    rows = [row for rank in range(world_size) for row in range(total)[share(total, rank, world_size)]]
    assert rows == list(range(total))
    sizes = [len(range(total)[share(total, rank, world_size)]) for rank in range(world_size)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_gradient_over_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    """21 points over two ranks: shares of 11 and 10, so an unweighted mean would be off by percents."""
    args = [
        "--model.objective=tests.plugins.DataOnly", *STAY, "--data.batch_size=21", "--data.binarization=dynamic",
        "--model.optimizer=SGD", "--model.optimizer.lr=0.01", "--trainer.max_steps=5",
    ]  # fmt: skip
    one, two = (fit(tmp_path / f"world{n}", n, *args) for n in (1, 2))
    assert one["global_step"] == two["global_step"] == 5
    initial = fit(tmp_path / "initial", 1, *args, "--trainer.max_steps=1", "--model.optimizer.lr=1e-30")
    for name, weight in one["current_model_state"].items():
        if name.startswith("energy."):
            torch.testing.assert_close(two["current_model_state"][name], weight, rtol=1e-5, atol=1e-7)
    moved = one["current_model_state"]["energy.weight"] - initial["current_model_state"]["energy.weight"]
    assert moved.abs().max() > 1e-4


@pytest.mark.slow
def test_every_rank_has_chains_of_its_own(tmp_path: Path) -> None:
    """Uniform chains, so that equal rows mean copied chains; the buffer must survive DDP and its broadcasts."""
    args = ["--model.chains.init=uniform", "--evaluation.every=5", "--trainer.max_steps=10"]
    last = fit(tmp_path / "run", 2, *args)
    packed, generators = last["chains"]["packed"], last["chains"]["generators"]
    assert packed.shape == (150, 8)
    assert len(packed.unique(dim=0)) == 150
    assert generators.shape[0] == 2
    assert not torch.equal(generators[0], generators[1])
    born = fit(tmp_path / "born", 2, *args, *STAY)["chains"]["packed"]
    moved = (packed != born).any(1)
    assert moved[:75].any()
    assert moved[75:].any()
    assert 20 <= int(moved.sum()) < 150, "10 iterations of 20 chains each"


@pytest.mark.slow
def test_no_chain_is_lost_or_doubled_from_two_ranks_to_one_to_three(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    born = fit(run_dir, 2, *STAY, "--trainer.max_steps=3")["chains"]
    on_one = fit(run_dir, 1, *STAY, "--trainer.max_steps=6")
    on_three = fit(run_dir, 3, *STAY, "--trainer.max_steps=9")
    assert on_one["global_step"] == 6
    assert on_three["global_step"] == 9
    assert on_three["chains"]["generators"].shape[0] == 3

    def rows(packed: torch.Tensor) -> list[list[int]]:
        return sorted(packed.tolist())

    assert rows(on_one["chains"]["packed"]) == rows(born["packed"])
    assert rows(on_three["chains"]["packed"]) == rows(born["packed"])
    assert len(born["packed"].unique(dim=0)) > 100


@pytest.mark.slow
def test_resuming_on_two_ranks_is_bit_for_bit(tmp_path: Path) -> None:
    args = ["--evaluation.every=5", "--pictures_every=0"]
    fit(tmp_path / "calm", 2, *args, "--trainer.max_steps=12")
    fit(tmp_path / "run", 2, *args, "--trainer.max_steps=7")
    fit(tmp_path / "run", 2, *args, "--trainer.max_steps=12")
    assert_same_state(tmp_path / "run/last.ckpt", tmp_path / "calm/last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("elsewhere", "given_up"), [(0.0, True), (0.3, False)])
def test_ranks_give_up_a_kernel_together(tmp_path: Path, elsewhere: float, given_up: bool) -> None:
    """On rank 0 it is good, on rank 1 poor; the mean over ranks, 0.45 or 0.6, decides for both."""
    sampler = ["--model.sampler=tests.plugins.Accepted", "--model.sampler.block=3", "--model.sampler.on_rank_0=0.9",
               f"--model.sampler.elsewhere={elsewhere}", "--trainer.callbacks+=tests.plugins.Kernels"]  # fmt: skip
    settings = ["--evaluation.every=0", "--pictures_every=0", "--adaptation.every=5", "--trainer.max_steps=12"]
    last = fit(tmp_path / "run", 2, *sampler, *settings)
    kernels = [(tmp_path / f"run/kernel.{rank}").read_text().splitlines()[-1] for rank in range(2)]
    assert kernels[0] == kernels[1]
    assert kernels[0].startswith(f"{GWG()} x 6" if given_up else "Accepted(")
    assert len(last["callbacks"]["Adaptation"]["decisions"]) == given_up


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["acceptance", "jump"])
def test_ranks_tune_alike(objective: str, tmp_path: Path) -> None:
    """They see different chains, and what is summed over them decides for both."""
    sampler = ["--model.sampler=tests.plugins.Flips", "--model.sampler.rate=0.2", f"--adaptation.objective={objective}",
               "--adaptation.warmup=24", "--trainer.callbacks+=tests.plugins.Kernels"]  # fmt: skip
    settings = ["--evaluation.every=0", "--pictures_every=0", "--adaptation.every=2", "--trainer.max_steps=26"]
    last = fit(tmp_path / "run", 2, *sampler, *settings)
    kernels = [(tmp_path / f"run/kernel.{rank}").read_text().splitlines()[-1] for rank in range(2)]
    assert kernels[0] == kernels[1]
    assert last["callbacks"]["Adaptation"]["frozen"]
    assert len({value for _, _, value in last["callbacks"]["Adaptation"]["decisions"]}) > 2


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    """Three kills of both processes or one of them, at random moments; see tests/soak.py for more of it."""
    soak(3, 0, tmp_path, steps=400)


@pytest.mark.slow
def test_ranks_choose_by_one_clock(tmp_path: Path) -> None:
    """Rank 1 is slower than rank 0: on its own it would choose a shorter run and fewer chains, and wait in vain."""
    args = [
        f"--run_dir={tmp_path}/run", "--model.energy=tests.plugins.SlowElsewhere", "--max_minutes=0.05",
        "--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu", "--evaluation.every=0",
        "--evaluation.num_chains=4", "--evaluation.final_temperatures=4", "--pictures_every=0",
    ]  # fmt: skip
    assert run("gwg_dist.fit", args, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-3000:]
    config, last = yaml.safe_load((tmp_path / "run/config.yaml").read_text()), checkpoint(tmp_path / "run/last.ckpt")
    assert last["global_step"] == config["trainer"]["max_steps"]
    assert len(last["chains"]["packed"]) == config["model"]["chains"]["init_args"]["size"]
    assert (tmp_path / "log").read_text().count("0.05 minutes: an iteration takes") == 1
