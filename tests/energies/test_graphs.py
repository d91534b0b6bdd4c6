"""Models on graphs: who sees whom, what files are refused for, and models whose sums are known in closed form."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.energies import (
    EdgeFile,
    Energy,
    ErdosRenyi,
    IndependentEnergy,
    IsingGraphEnergy,
    IsingTorusEnergy,
    Lattice,
    PottsEnergy,
    PottsGraphEnergy,
    RBMEnergy,
)
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.samplers import GWG, PAS, BlockGibbs, Sampler, run_chain
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.testing import check_energy, random_target
from gwg_dist.testing.kernels import number_of
from tests.support.kernels import exact_pi


def pairs(ends: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(sorted(pair)) for pair in ends.tolist()}


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 3, 3), (2, 5), (1, 4), (2, 2)])
@pytest.mark.parametrize("periodic", [True, False])
def test_lattice_joins_sites_at_distance_one(shape: tuple[int, ...], periodic: bool) -> None:
    """Against distances of all pairs of coordinates."""
    places = list(itertools.product(*map(range, shape)))
    expected = set()
    for (i, a), (j, b) in itertools.combinations(enumerate(places), 2):
        gaps = [abs(p - q) for p, q in zip(a, b, strict=True)]
        if periodic:
            gaps = [min(gap, length - gap) for gap, length in zip(gaps, shape, strict=True)]
        if sum(gaps) == 1:
            expected.add((i, j))
    ends = Lattice(periodic=periodic).join(shape).ends
    assert pairs(ends) == expected
    assert len(ends) == len(expected)


def test_random_graph_has_the_degree_asked_for() -> None:
    """Mean and variance of the number of edges over 200 graphs are the binomial's."""
    counts = torch.tensor([float(len(ErdosRenyi(degree=4, seed=seed).join((60,)).ends)) for seed in range(200)])
    prob, num = 4 / 59, 60 * 59 // 2
    assert abs(float(counts.mean()) - 120) < 4 * math.sqrt(num * prob * (1 - prob) / 200)
    assert 0.75 < float(counts.var()) / (num * prob * (1 - prob)) < 1.3
    same, other = ErdosRenyi(degree=4, seed=3).join((6, 10)), ErdosRenyi(degree=4, seed=4).join((60,))
    assert torch.equal(same.ends, ErdosRenyi(degree=4, seed=3).join((60,)).ends)
    assert pairs(same.ends) != pairs(other.ends)
    assert len(ErdosRenyi(degree=9).join((10,)).ends) == 45
    assert len(ErdosRenyi(degree=0).join((10,)).ends) == 0


def test_a_lattice_without_edges_of_its_own_is_the_torus() -> None:
    space = Binary((3, 4))
    torus, graph = IsingTorusEnergy(space, sigma=0.3), IsingGraphEnergy(space, edges=Lattice(), coupling=0.6)
    x = space.all_codes().float()
    torch.testing.assert_close(graph(x), torus(x))


def test_potts_on_all_pairs_is_the_dense_one() -> None:
    space = Categorical(4, 3)
    sparse = PottsGraphEnergy(space, edges=ErdosRenyi(degree=3), scale=0.5).double()
    dense = PottsEnergy(space).double()
    with torch.no_grad():
        dense.pairs.view(4, 3, 4, 3)[sparse.ends[0], :, sparse.ends[1]] = sparse.pairs
        sparse.field.normal_()
        dense.field.copy_(sparse.field.flatten())
    x = space.encode(space.all_codes(), torch.float64)
    torch.testing.assert_close(sparse(x), dense(x))


def test_files_say_the_same_by_lines_and_by_matrix(tmp_path: Path) -> None:
    (tmp_path / "edges.txt").write_text("# i j J\n0 1 0.5\n2,1,-1.5\n\n1 2 -1.5\n3 0 2\n")
    matrix = np.zeros((5, 5))
    for i, j, weight in ((0, 1, 0.5), (2, 1, -1.5), (3, 0, 2)):
        matrix[i, j] = matrix[j, i] = weight
    np.save(tmp_path / "edges.npy", matrix)
    space = Binary(5)
    x = space.all_codes().float()
    by_lines, by_matrix = (IsingGraphEnergy(space, edges=EdgeFile(str(tmp_path / f"edges.{kind}")))
                           for kind in ("txt", "npy"))  # fmt: skip
    torch.testing.assert_close(by_lines(x), by_matrix(x))
    s = 2 * x - 1
    torch.testing.assert_close(
        by_lines(x), -(0.5 * s[:, 0] * s[:, 1] - 1.5 * s[:, 1] * s[:, 2] + 2 * s[:, 0] * s[:, 3])
    )
    halved = IsingGraphEnergy(space, edges=EdgeFile(str(tmp_path / "edges.txt")), coupling=0.5)
    torch.testing.assert_close(halved(x), by_lines(x) / 2)
    (tmp_path / "plain.txt").write_text("0 1\n1 2\n")
    plain = IsingGraphEnergy(space, edges=EdgeFile(str(tmp_path / "plain.txt")))
    assert plain.coupling.tolist() == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n2 2\n", "line 2: no site sees itself, got 2 2"),
        ("0 1 0.5\n1 0 0.25\n", "line 2: weights must be symmetric, got 0.25 and, on line 1, 0.5"),
        ("0 1 0.5\n0 1 0.5\n", "line 2: the edge 0 1 is on line 1 already"),
        ("0 1 0.5\n1 2\n", "some lines have a weight and others have none"),
        ("0 7\n", "line 1: sites must lie in 0..4, got 0 and 7"),
        ("0 1\na b\n", "line 2: expected 'i j' or 'i j weight', got 'a b'"),
        ("0 1 nan\n", "line 1: expected 'i j' or 'i j weight' with a finite weight"),
        ("0\n", "line 1: expected 'i j' or 'i j weight', got '0'"),
    ],
)
def test_files_that_are_no_graph_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "edges.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        IsingGraphEnergy(Binary(5), edges=EdgeFile(str(path)))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.__setitem__((0, 1), 1), r"symmetric, got 1 at \(0, 1\) and 0 at \(1, 0\)"),
        (lambda m: m.__setitem__((2, 2), 1), r"no site sees itself, entry \(2, 2\) is not 0"),
        (lambda m: m.__setitem__((2, 1), math.nan), r"finite, entry \(2, 1\) is not"),
        (lambda m: m.resize((4, 4), refcheck=False), r"expected a matrix of shape \(5, 5\), got \(4, 4\)"),
    ],
)
def test_matrices_that_are_no_graph_name_the_entry(tmp_path: Path, spoil, message: str) -> None:
    matrix = np.zeros((5, 5))
    spoil(matrix)
    np.save(tmp_path / "edges.npy", matrix)
    with pytest.raises(ValueError, match=message):
        IsingGraphEnergy(Binary(5), edges=EdgeFile(str(tmp_path / "edges.npy")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IsingGraphEnergy(Binary(5), edges=EdgeFile("/nowhere/at/all")), "cannot be read, No such file"),
        (lambda: IsingGraphEnergy(Binary(5), edges=ErdosRenyi(degree=5)), "degree must be at most 4 for 5 sites"),
        (lambda: ErdosRenyi(degree=-1), "degree must not be negative"),
        (lambda: IsingGraphEnergy(Binary(5), edges=[(0, 1, 2)]), r"edges must be pairs of sites, got \(0, 1, 2\)"),
        (lambda: IsingGraphEnergy(Binary(5), edges=[(0, 0)]), "edges must join different sites"),
        (lambda: PottsGraphEnergy(Binary(5)), "PottsGraphEnergy is for Categorical spaces"),
        (lambda: IndependentEnergy(Binary(5), scale=-1), "scale must not be negative"),
    ],
)
def test_bad_settings_name_themselves(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("space", [Binary(4), Categorical(4, 3), Categorical(3, (2, 4, 3))], ids=str)
def test_log_z_of_independent_sites(space: Space) -> None:
    energy = IndependentEnergy(space)
    target = random_target(energy, spread=1.0)
    assert target.reference is not None
    exact = exact_log_prob(target)[1]
    found = energy.log_z(target.reference)
    torch.testing.assert_close(found.detach(), exact, rtol=0, atol=1e-6)  # the reference's constant is a sum of floats


MODELS: dict[str, tuple[Energy, float]] = {
    "independent": (IndependentEnergy(Binary(4)), 1.0),
    "independent, categorical": (IndependentEnergy(Categorical(3, 3)), 1.0),
    "Ising on a random graph": (IsingGraphEnergy(Binary(5), edges=ErdosRenyi(degree=2)), 0.7),
    "Potts on a lattice": (PottsGraphEnergy(Categorical((2, 2), 3)), 0.6),
    "categorical RBM": (RBMEnergy(Categorical(3, 3), num_hidden=3), 0.6),
}


@pytest.mark.parametrize("name", MODELS)
def test_contract(name: str) -> None:
    energy, spread = MODELS[name]
    random_target(energy, spread=spread)
    check_energy(energy)


@pytest.mark.parametrize("kernel", [GWG(), PAS(max_length=3), BlockGibbs()], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("name", MODELS)
def test_chains_from_the_model_stay_with_it(name: str, kernel: Sampler) -> None:
    """From exact samples; binary chains through whatever fast path a run takes. 4,000 chains tell 0.06 apart."""
    energy, spread = MODELS[name]
    pi = exact_pi(random_target(energy, spread=spread), 1.0)
    target = random_target(energy, spread=spread, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    start = torch.multinomial(pi, 4000, replacement=True, generator=generator)
    x = target.encode(target.space.all_codes()[start])
    backend = "auto" if isinstance(target.space, Binary) else "eager"
    after = run_chain(kernel, target, x, num_steps=30, generator=generator, backend=backend).x
    energy.double()
    counts = torch.bincount(number_of(target, after), minlength=len(pi)).double()
    noise = (2 * pi / (math.pi * 4000)).sqrt().sum() / 2
    assert float((counts / 4000 - pi).abs().sum() / 2) < 1.6 * noise + 0.005
