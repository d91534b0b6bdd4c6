"""One-, two- and three-site statistics against sums written out, and Pearson as the field takes it."""

import itertools

import numpy as np
import pytest
import torch

from gwg_dist.evaluation.statistics import (
    agreement,
    pair_statistics,
    pearson_of_pairs,
    three_site_moments,
    triple_sites,
)

NUM, SITES, K = 50, 4, 3


@pytest.fixture(scope="module")
def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(K, (NUM, SITES), generator=generator, dtype=torch.uint8)
    codes[:, 2] = codes[:, 0]
    return codes, torch.rand(NUM, generator=generator, dtype=torch.float64)


def one_hot(codes: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(codes.long(), K).double()


@pytest.mark.parametrize("weighted", [False, True])
def test_frequencies_are_the_sums_written_out(points: tuple[torch.Tensor, torch.Tensor], weighted: bool) -> None:
    codes, weights = points
    share = weights / weights.sum() if weighted else torch.full((NUM,), 1 / NUM, dtype=torch.float64)
    x = one_hot(codes)
    found = pair_statistics(codes, K, weights if weighted else None)
    assert torch.allclose(found.single, torch.einsum("n,nia->ia", share, x), atol=1e-12)
    both = torch.einsum("n,nia,njb->ijab", share, x, x)
    first, second = torch.triu_indices(SITES, SITES, 1)
    assert torch.allclose(found.double, both[first, second], atol=1e-12)
    connected = both - torch.einsum("ia,jb->ijab", found.single, found.single)
    assert torch.allclose(found.connected(), connected[first, second], atol=1e-12)


def test_weights_are_counts(points: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A point of weight two is there twice; weights that are dropped would be seen."""
    codes, _ = points
    counts = torch.arange(NUM) % 3
    found, right = pair_statistics(codes, K, counts.double()), pair_statistics(codes.repeat_interleave(counts, 0), K)
    assert torch.allclose(found.double, right.double, atol=1e-12)
    assert not torch.allclose(pair_statistics(codes, K).double, right.double, atol=1e-3)
    triples = triple_sites(SITES, 100)
    moments = three_site_moments(codes, K, triples, counts.double())
    assert torch.allclose(moments, three_site_moments(codes.repeat_interleave(counts, 0), K, triples), atol=1e-12)


def test_a_pseudocount_is_that_share_of_uniform_points(points: tuple[torch.Tensor, torch.Tensor]) -> None:
    codes, _ = points
    every = torch.tensor(list(itertools.product(range(K), repeat=SITES)), dtype=torch.uint8)
    weights = torch.cat([torch.full((NUM,), 0.7 / NUM), torch.full((len(every),), 0.3 / len(every))])
    right = pair_statistics(torch.cat([codes, every]), K, weights.double())
    found = pair_statistics(codes, K).with_pseudocount(0.3)
    assert torch.allclose(found.double, right.double, atol=1e-7)
    assert torch.allclose(found.single, right.single, atol=1e-7)


def test_three_site_moments_are_central(points: tuple[torch.Tensor, torch.Tensor]) -> None:
    codes, weights = points
    share = weights / weights.sum()
    x = one_hot(codes)
    centred = x - torch.einsum("n,nia->ia", share, x)
    triples = triple_sites(SITES, 100)
    assert triples.tolist() == [list(t) for t in itertools.combinations(range(SITES), 3)]
    right = torch.einsum("n,ntabc->tabc", share, torch.stack([
        torch.einsum("na,nb,nc->nabc", *(centred[:, site] for site in triple)) for triple in triples
    ], 1))  # fmt: skip
    assert torch.allclose(three_site_moments(codes, K, triples, weights), right, atol=1e-12)


def test_triples_are_distinct_sites_in_order() -> None:
    triples = triple_sites(30, 200)
    assert len(triples) == 200
    assert (triples[:, 0] < triples[:, 1]).all()
    assert (triples[:, 1] < triples[:, 2]).all()
    assert torch.equal(triples, triple_sites(30, 200))


def test_pearson_and_slope_are_numpys() -> None:
    x, y = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    y = 0.3 * x + 0.1 * y
    found = agreement(x, y)
    assert found.pearson == pytest.approx(np.corrcoef(x.double(), y.double())[0, 1], abs=1e-12)
    assert found.slope == pytest.approx(np.polyfit(x.double(), y.double(), 1)[0], abs=1e-9)
    assert np.isnan(agreement(x, torch.zeros(500)).pearson)


def test_pearson_sees_couplings_and_not_fields() -> None:
    """Samples whose sites are right one by one, and independent, have no Pearson; without - f_i f_j they would."""
    generator = torch.Generator().manual_seed(2)
    shared = torch.rand(20_000, 1, generator=generator)
    data = ((torch.rand(20_000, 8, generator=generator) < 0.5) & (shared < 0.5)).to(torch.uint8)
    alone = torch.stack([data[torch.randperm(len(data), generator=generator), i] for i in range(8)], 1)
    of_data, of_alone = pair_statistics(data, 2), pair_statistics(alone, 2)
    assert abs(pearson_of_pairs(of_data, of_alone).pearson) < 0.5
    assert agreement(of_data.double, of_alone.double).pearson > 0.9
    assert pearson_of_pairs(of_data, pair_statistics(data[:10_000], 2)).pearson > 0.9


def test_what_cannot_be_counted() -> None:
    codes = torch.zeros(3, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got none"):
        pair_statistics(codes[:0], 2)
    with pytest.raises(ValueError, match="3 numbers"):
        pair_statistics(codes, 2, torch.ones(2))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pair_statistics(codes, 2).with_pseudocount(1.5)
    with pytest.raises(ValueError, match="three sites"):
        triple_sites(2, 10)
