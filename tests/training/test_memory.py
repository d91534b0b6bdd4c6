"""What a run takes of the memory is said before, and refused where it is not there."""

from pathlib import Path

import pytest
import torch

from gwg_dist import fit
from gwg_dist.energies import MLPEnergy, RBMEnergy
from gwg_dist.spaces import Binary
from gwg_dist.tools.memory import free_memory, in_words
from gwg_dist.training.memory import build_energy, check_fits, needs
from gwg_dist.training.settings import build_parser, instantiate
from tests.support.runs import SMALL, fails


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--model.chains.size=10000000000000"], "model.chains.size: the run needs about"),
        (["--model.energy=RBMEnergy", "--model.energy.num_hidden=10000000000"], "model.energy, a smaller one: the run"),
        (["--model.energy=MLPEnergy", "--model.energy.num_hidden=1000000000"], "model.energy, a smaller one: the run"),
        (["--model.energy=MLPEnergy", "--model.energy.num_hidden=1000000000000"], "does not fit into memory"),
        (["--evaluation.num_chains=1000000000000"], "evaluation.num_chains: the run needs about"),
    ],
)
def test_what_does_not_fit_is_one_line(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(fit.main, args, capsys)
    assert list(tmp_path.iterdir()) == [], "nothing is written for a mistake"


def test_an_estimate_counts_what_is_there() -> None:
    parser = build_parser()
    objects = instantiate(parser, parser.parse_args(SMALL))
    found = {need.what: need.num_bytes for need in needs(objects)}
    assert found["chains"] == 2 * 150 * 8, "150 chains of 64 sites, eight a byte, kept twice while they are saved"
    assert found["weights"] == 5 * 4 * (64 * 8 + 64 + 8)
    assert found["an iteration"] == 8 * 4 * 20 * 64


def test_the_size_is_told_without_a_draw() -> None:
    """The weights are those of an energy that is made at once."""
    weights = []
    for make in (RBMEnergy, lambda *args, **kwargs: build_energy(RBMEnergy, *args, **kwargs)):
        torch.manual_seed(3)
        weights.append(torch.cat([p.detach().flatten() for p in make(Binary(9), num_hidden=4).parameters()]))
    assert torch.equal(*weights)


def test_what_an_energy_says_of_its_settings_is_heard() -> None:
    with pytest.raises(ValueError, match="num_hidden must be positive, got 0"):
        build_energy(MLPEnergy, Binary(9), num_hidden=0)


def test_a_container_has_less_than_the_machine(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert free_memory(tmp_path) is None
    check_fits([])
    write("proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     800 kB\n")
    assert free_memory(tmp_path) == 800 * 1024
    write("proc/self/cgroup", "0::/job/step\n")
    write("sys/fs/cgroup/job/step/memory.max", "max\n")
    write("sys/fs/cgroup/job/step/memory.current", "1000\n")
    assert free_memory(tmp_path) == 800 * 1024
    write("sys/fs/cgroup/job/memory.max", "50000\n")
    write("sys/fs/cgroup/job/memory.current", "20000\n")
    write("sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 700\n")
    assert free_memory(tmp_path) == 30_700
    write("proc/self/cgroup", "4:memory:/job\n")
    write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9000\n")
    write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "10000\n")
    assert free_memory(tmp_path) == 0


def test_bytes_in_words() -> None:
    assert [in_words(n) for n in (12, 1500, 2.5e9, 4e21)] == ["12 bytes", "1.5 kB", "2.5 GB", "4e+03 EB"]
