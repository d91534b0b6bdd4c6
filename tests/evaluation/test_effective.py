"""Couplings of any model: the mean second difference is a pair model's own coupling, and that of others by hand."""

import pytest
import torch

from gwg_dist.energies import Energy, IsingEnergy, IsingGraphEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.evaluation.contacts import pair_model, zero_sum
from gwg_dist.evaluation.effective import effective_couplings, num_evaluations, pairs_of
from gwg_dist.graph import Graph
from gwg_dist.reference import Reference
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.structure import SparseCategoricalPairs


def target_of(energy: Energy) -> Target:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(torch.randn_like(parameter))
    random = torch.rand(energy.space.num_sites, energy.space.num_categories)
    reference = Reference(energy.space).fit(energy.space.without_padding(random).softmax(1))
    return Target(energy.double(), reference.double())


PAIRS = [
    lambda: PottsEnergy(Categorical(4, 3), scale=1.0),
    lambda: PottsEnergy(Categorical(4, (2, 4, 3, 2)), scale=1.0),
    lambda: PottsEnergy(Binary(5)),
    lambda: IsingEnergy(Binary(5)),
    lambda: IsingGraphEnergy(Binary(5), edges=[(0, 1), (3, 1), (2, 4)]),
]


@pytest.mark.parametrize("make", PAIRS)
def test_of_a_pair_model_they_are_its_own_whatever_the_points(make) -> None:
    target = target_of(make())
    own = pairs_of(target)
    assert own is not None
    codes = target.space.uniform_codes(2, generator=torch.Generator().manual_seed(1))
    found = effective_couplings(target, codes)
    assert torch.allclose(found, own.zero_sum().couplings, atol=1e-10)
    assert float(found.abs().max()) > 0.1


@pytest.mark.parametrize("energy", [RBMEnergy(Binary(4), num_hidden=3), MLPEnergy(Categorical(3, 3), num_hidden=5)])
def test_of_other_models_they_are_the_second_differences_written_out(energy: Energy) -> None:
    target = target_of(energy)
    space = target.space
    assert pairs_of(target) is None
    codes = space.uniform_codes(3, generator=torch.Generator().manual_seed(2))
    num, k = space.num_sites, space.num_categories
    right = torch.zeros(num, num, k, k, dtype=torch.float64)
    for i in range(num):
        for j in range(num):
            for a in range(k):
                for b in range(k):
                    changed = codes.clone()
                    changed[:, i], changed[:, j] = a, b
                    if i != j:
                        right[i, j, a, b] = target.f(space.encode(changed, torch.float64)).mean()
    assert torch.allclose(effective_couplings(target, codes), zero_sum(right), atol=1e-10)


def test_the_cost_is_what_is_said() -> None:
    energy = target_of(MLPEnergy(Categorical(4, 3), num_hidden=5)).energy
    seen, done = [], []

    def counted(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return energy(x)

    target = Target(counted, Reference(Categorical(4, 3)).double(), space=Categorical(4, 3))
    effective_couplings(target, torch.zeros(2, 4, dtype=torch.uint8), advance=done.append)
    assert sum(seen) == num_evaluations(2, 4, 3)
    assert done[-1] <= sum(seen)


def test_a_model_on_a_graph_has_the_couplings_of_its_edges() -> None:
    torch.manual_seed(3)
    graph = Graph(5, torch.tensor([[0, 3], [4, 1], [1, 2]]))
    matrices = torch.randn(3, 3, 3, dtype=torch.float64)
    sparse = SparseCategoricalPairs(graph, graph.rows(matrices), torch.randn(5, 3).double(), torch.zeros(()).double())
    dense = sparse.dense()
    x = Categorical(5, 3).encode(torch.randint(3, (20, 5)), torch.float64)
    assert torch.allclose(dense.start(x).f, sparse.start(x).f, atol=1e-12)
    assert torch.allclose(dense.start(x).grad, sparse.start(x).grad, atol=1e-12)
    found = pair_model(dense.rows, dense.slope, dense.constant, 3).couplings
    assert torch.allclose(found[0, 3], matrices[0])
    assert torch.allclose(found[1, 4], matrices[1].T)
    assert not found[0, 1].any()


def test_points_are_needed() -> None:
    with pytest.raises(ValueError, match="need points"):
        effective_couplings(target_of(PottsEnergy(Binary(3))), torch.zeros(0, 3))
