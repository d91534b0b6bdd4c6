"""Chains shared among threads: each moved once, the same to a bit by any number of threads, in forks too."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, BlockGibbs, Sampler, Target
from gwg_dist.samplers.fast import fastest, native
from gwg_dist.spaces import Binary, Categorical

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler")

HEADER = Path(native.__file__).with_name("parallel.h")
CHILD_SECONDS = 30
TRIES = 10  # on a busy machine another thread may wake too late to find work
COUNT = """
#include <stdint.h>
#include <unistd.h>
%s
/* Counts the visits of each chain, slowly enough that others wake up, and who was there. */
struct Counts { int64_t *visits, *by; };
void count(int64_t thread, int64_t from, int64_t to, const void *arguments) {
    const struct Counts *a = arguments;
    usleep(2000);
    for (int64_t b = from; b < to; b++) { a->visits[b]++; a->by[b] = thread; }
}
"""


def built(folder: Path, header: str) -> ctypes.CDLL:
    source = folder / "count.c"
    source.write_text(COUNT % header)
    command = ["-O1", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-o", str(folder / "count.so"), str(source)]
    subprocess.run([native.compiler() or "cc", *command], check=True, capture_output=True)
    return ctypes.CDLL(str(folder / "count.so"))


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return built(tmp_path_factory.mktemp("threads"), HEADER.read_text())


def visits(library: ctypes.CDLL, threads: int, chains: int) -> tuple[list[int], set[int]]:
    """How often each chain was visited, and by whom."""
    counts, by = (ctypes.c_int64 * chains)(), (ctypes.c_int64 * chains)()
    arguments = (ctypes.c_void_p * 2)(ctypes.addressof(counts), ctypes.addressof(by))
    library.for_chains(ctypes.c_int64(threads), ctypes.c_int64(chains), library["count"], arguments)
    return list(counts), set(by)


@pytest.mark.parametrize(("threads", "chains"), [(1, 7), (2, 1), (2, 100), (3, 2), (5, 64), (5, 333)])
def test_every_chain_is_moved_once_by_one_of_the_threads(counting: ctypes.CDLL, threads: int, chains: int) -> None:
    seen: set[int] = set()
    for _ in range(TRIES):
        counts, by = visits(counting, threads, chains)
        assert counts == [1] * chains
        seen |= by
        if len(seen) > 1:
            break
    assert seen <= set(range(threads))
    assert len(seen) > 1 or min(threads, chains) == 1 or chains == 2


def test_little_work_stays_with_its_caller(counting: ctypes.CDLL) -> None:
    worth = ctypes.c_int64.in_dll(counting, "worth_sharing")
    before, worth.value = worth.value, 10**12
    try:
        assert visits(counting, 4, 100) == ([1] * 100, {0})
    finally:
        worth.value = before


def test_callers_do_not_wait_for_each_other(counting: ctypes.CDLL) -> None:
    results: list[Any] = []
    callers = [threading.Thread(target=lambda: results.append(visits(counting, 3, 64))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [counts for counts, _ in results] == [[1] * 64] * 4


def in_a_child(function: Callable[[], bool]) -> bool:
    """What ``function`` says in a child of a fork; False where it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(CHILD_SECONDS)
        os._exit(0 if function() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_has_threads_of_its_own(counting: ctypes.CDLL, tmp_path: Path) -> None:
    def shares(library: ctypes.CDLL) -> bool:
        for _ in range(TRIES):
            counts, by = visits(library, 3, 64)
            if counts != [1] * 64 or len(by) > 1:
                return counts == [1] * 64
        return False

    assert shares(counting)
    assert in_a_child(lambda: shares(counting))
    assert shares(counting)
    mutant = built(tmp_path, HEADER.read_text().replace("pthread_atfork(NULL, NULL, forget_threads);", ""))
    assert shares(mutant)
    assert not in_a_child(lambda: shares(mutant)), "threads of the parent are counted as the child's"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_the_work_hangs_nobody(counting: ctypes.CDLL) -> None:
    caller = threading.Thread(target=visits, args=(counting, 2, 200))
    caller.start()
    time.sleep(0.01)
    assert in_a_child(lambda: visits(counting, 2, 64)[0] == [1] * 64)
    caller.join()


CASES: dict[str, tuple[Sampler, Energy]] = {
    "torus": (GWG(), IsingTorusEnergy(Binary((12, 12)), sigma=0.15)),
    "sweep": (BlockGibbs(), IsingTorusEnergy(Binary((12, 12)), sigma=0.15)),
    "dense sweep": (BlockGibbs("metropolised"), PottsEnergy(Categorical(20, 5), scale=0.2)),
    "ising": (GWG(), IsingEnergy(Binary(60), scale=0.05)),
    "potts": (GWG(), PottsEnergy(Categorical(20, 5), scale=0.2)),
    "rbm": (GWG(), RBMEnergy(Binary(100), num_hidden=40, scale=0.3)),
    "mlp": (GWG(), MLPEnergy(Binary(30), num_hidden=8)),
    "path, torus": (PAS(), IsingTorusEnergy(Binary((12, 12)), sigma=0.15)),
    "path, ising": (PAS(), IsingEnergy(Binary(60), scale=0.05)),
    "path, rbm": (PAS(), RBMEnergy(Binary(100), num_hidden=40, scale=0.3)),
    "flips, torus": (DMALA(), IsingTorusEnergy(Binary((12, 12)), sigma=0.15)),
    "flips, ising": (DMALA(), IsingEnergy(Binary(60), scale=0.05)),
    "flips, rbm": (DMALA(), RBMEnergy(Binary(100), num_hidden=40, scale=0.3)),
    "pair sweep": (BlockGibbs(), PottsEnergy(Categorical(20, 5), scale=0.2)),
}


@pytest.fixture
def all_shared() -> Iterator[None]:
    """However little work there is, it is shared."""
    library = native.library()
    assert library is not None
    worth = ctypes.c_int64.in_dll(library, "worth_sharing")
    before, worth.value = worth.value, -1
    yield
    worth.value = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_threads_gives_the_same_chains(name: str, dtype: torch.dtype, all_shared: None) -> None:
    """To a bit. torch itself keeps its own number: its products may differ."""
    sampler, energy = CASES[name]
    target = Target(energy.to(dtype), Reference(energy.space).to(dtype)).frozen()
    x = energy.space.encode(energy.space.uniform_codes(37, generator=torch.Generator().manual_seed(0)), dtype)
    ends = []
    for threads in (1, 2, 5):
        generator, beta = torch.Generator().manual_seed(1), torch.ones((), dtype=dtype)
        kernel = fastest(sampler, target, x, beta)
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "num_threads", lambda threads=threads: threads)
            state: Any = kernel.init(target, x, beta)
            infos = []
            for _ in range(30):
                state, info = kernel.step(target, state, kernel.draw(state, generator))
                infos.append(info)
        ends.append((state.x, state.f, *(torch.stack(each) for each in zip(*infos, strict=True))))
    assert not torch.equal(ends[0][0], x)
    for end in ends[1:]:
        for one, other in zip(ends[0], end, strict=True):
            assert torch.equal(one, other)
