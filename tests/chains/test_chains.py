"""How chains are born, and updates of the weights that chains veto."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gwg_dist.chains import ChainBuffer, buffer
from gwg_dist.energies import RBMEnergy
from gwg_dist.module import EBMModule
from gwg_dist.reference import Reference
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.updates import make_optimizer
from tests.support.runs import checkpoint, command, run, run_fit

MILLION = """
import sys, torch
from pathlib import Path
from gwg_dist.chains import ChainBuffer
from gwg_dist.reference import Reference
from gwg_dist.spaces import Binary

def size(name):  # getrusage would count what the parent held when it forked
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) / 2**20

torch.set_num_threads(1)
space, generator = Binary((28, 28)), torch.Generator().manual_seed(0)
data, reference = space.uniform_codes(10_000, generator=generator), Reference(space)
chains = ChainBuffer(size=1_000_000, init=sys.argv[1])
before = size("VmRSS")
chains.setup(space, reference, data, generator=generator)
assert chains.packed.shape == (1_000_000, 98)
print(size("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("init", buffer.INITS)
def test_a_million_chains_take_little_memory_to_be_born(init: str) -> None:
    """98 MB of them, and at most half a GiB while they are made."""
    done = subprocess.run([sys.executable, "-c", MILLION, init], capture_output=True, text=True, check=True)
    print(f"{init}: {float(done.stdout):.2f} GiB")
    assert 0.05 < float(done.stdout) <= 0.5


@pytest.mark.parametrize("init", buffer.INITS)
@pytest.mark.parametrize(
    "space", [Binary(20), Binary((8, 8)), Categorical(7, 5), Categorical(4, (2, 9, 3, 5))], ids=str
)
def test_chains_born_in_parts_are_those_born_at_once(space: Space, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the parts: the same chains, and the generator at the same place."""
    frequencies = torch.rand(space.num_sites, space.num_categories, generator=torch.Generator().manual_seed(1))
    reference = Reference(space).fit(space.without_padding(frequencies).double().softmax(1))
    data = space.uniform_codes(50, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(3)
    at_once = {
        "reference": lambda: reference.sample(300, generator=generator),
        "uniform": lambda: space.uniform_codes(300, generator=generator),
        "data": lambda: data[torch.randint(50, (300,), generator=generator)],
    }[init]()
    then = torch.rand(1, generator=generator)
    for part in (1, 1000, 2400, 2**23):
        monkeypatch.setattr(buffer, "PART", part)
        generator.manual_seed(3)
        chains = ChainBuffer(size=300, init=init)
        chains.setup(space, reference, data, generator=generator)
        assert torch.equal(space.unpack(chains.packed), at_once)
        assert torch.equal(torch.rand(1, generator=generator), then)


VETO = [
    "--model.chains=tests.plugins.VetoEveryThird",
    "--evaluation.every=0",
    "--pictures_every=0",
    "--ema.decay=0.5",
]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_vetoed_update_leaves_weights_and_optimizer_as_they_were(processes: int, tmp_path: Path) -> None:
    """The third and sixth of six updates: the state after them is that before, bit for bit, and training moves on."""

    def after(iterations: int) -> dict:
        run_dir, args = tmp_path / f"{iterations}", [*VETO, f"--trainer.max_steps={iterations}"]
        if processes == 1:
            run_fit(run_dir, *args)
        else:
            more = ["--trainer.strategy=ddp", f"--trainer.devices={processes}"]
            log = tmp_path / "log"
            assert run("gwg_dist.fit", command(run_dir, *args, *more), log) == 0, log.read_text()[-3000:]
        return checkpoint(run_dir / "last.ckpt")

    second, third, fourth = after(2), after(3), after(4)
    for state in ("current_model_state", "optimizer_states"):
        assert differing_tensors(second[state], third[state]) == 0, state
        assert differing_tensors(third[state], fourth[state]) > 0, state
    averaged = third["state_dict"]["energy.weight"], second["state_dict"]["energy.weight"]
    trained = second["current_model_state"]["energy.weight"]
    old = min(0.5, (1 + 2) / (10 + 2))  # the weight of the old average after two iterations
    torch.testing.assert_close(averaged[0], old * averaged[1] + (1 - old) * trained)


def differing_tensors(a: object, b: object) -> int:
    """How many tensors differ in a bit; numbers and names must agree."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        return sum(differing_tensors(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return sum(differing_tensors(x, y) for x, y in zip(a, b, strict=True))
    return int(isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and not torch.equal(a, b))


def test_an_optimizer_takes_the_learning_rate_unless_it_has_its_own() -> None:
    weights = [torch.zeros(2, requires_grad=True)]
    assert make_optimizer(None, weights, 0.1).param_groups[0]["lr"] == 0.1
    assert make_optimizer(torch.optim.SGD, weights, 0.1).param_groups[0]["lr"] == 0.1
    assert make_optimizer(lambda p: torch.optim.SGD(p, lr=0.5), weights, 0.1).param_groups[0]["lr"] == 0.5
    module = EBMModule(RBMEnergy(Binary(4)), optimizer=torch.optim.SGD, learning_rate=0.1)
    made = module.configure_optimizers()["optimizer"]
    assert isinstance(made, torch.optim.SGD)
    assert made.param_groups[0]["lr"] == 0.1


def test_learning_rate_reaches_the_optimizer_of_the_command_line(tmp_path: Path) -> None:
    args = ["--model.optimizer=SGD", "--model.learning_rate=0.1", "--trainer.max_steps=2", "--evaluation.every=0"]
    run_fit(tmp_path / "run", *args)
    group = checkpoint(tmp_path / "run/last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == 0.1
