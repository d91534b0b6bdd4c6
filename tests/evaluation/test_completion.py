"""Missing sites: exact marginals are sums over completions, chains agree with them, given sites come back."""

import pytest
import torch

from gwg_dist.evaluation.completion import ChainSettings, complete, mixing_of, without_blanks
from gwg_dist.samplers import DMALA, Gibbs, Kernel
from gwg_dist.target import Target
from tests.support.kernels import SPACES, exact_pi, make_target


def rows(target: Target, seed: int = 0) -> torch.Tensor:
    """Points with no, one, two, and three sites missing."""
    given = target.space.uniform_codes(4, generator=torch.Generator().manual_seed(seed)).long()
    given[1, 0] = given[2, 1] = given[2, 2] = -1
    given[3, :3] = -1
    return given


def brute(target: Target, given: torch.Tensor) -> list[torch.Tensor]:
    """p(x_i = k | given) of each missing site, ``(missing, K)`` a row, from the whole distribution."""
    codes, pi = target.space.all_codes().long(), exact_pi(target, 1.0)
    found = []
    for row in given:
        agrees = ((codes == row) | (row < 0)).all(1)
        law = pi * agrees / (pi * agrees).sum()
        found += [
            torch.stack([law[codes[:, site] == k].sum() for k in range(target.space.num_categories)])
            for site in (row < 0).nonzero()[:, 0]
        ]
    return found


@pytest.mark.parametrize("name", SPACES)
def test_few_completions_are_enumerated(name: str) -> None:
    target = make_target(SPACES[name], strength=0.7)
    given = rows(target)
    found = complete(target, given, generator=torch.Generator().manual_seed(1), settings=ChainSettings(4000, 16))
    torch.testing.assert_close(found.probs, torch.stack(brute(target, given)), atol=1e-9, rtol=0)
    assert bool(found.exact.all())
    assert found.cells.tolist() == [[1, 0], [2, 1], [2, 2], [3, 0], [3, 1], [3, 2]]
    known = given >= 0
    assert bool((found.samples == given)[:, known].all())
    assert torch.equal(found.mode[known], given[known])
    for (row, site), probs in zip(found.cells.tolist(), found.probs, strict=True):
        share = torch.bincount(found.samples[:, row, site], minlength=target.space.num_categories) / 4000
        assert float((share - probs).abs().max()) < 5 * (0.25 / 4000) ** 0.5


@pytest.mark.parametrize("max_exact", [4096, 1], ids=["enumerated", "chains"])
@pytest.mark.parametrize("name", SPACES)
def test_a_blank_is_no_answer(name: str, max_exact: int) -> None:
    """p(x_missing | x_given) is that of the model, given that no site is blank."""
    target = make_target(SPACES[name], strength=0.4)
    blanks = torch.tensor([-1 if site == 1 else size - 1 for site, size in enumerate(target.space.sizes)])
    codes, pi = target.space.all_codes().long(), exact_pi(target, 1.0)
    row = torch.zeros(1, target.space.num_sites).long()
    row[:, :3] = -1
    law = pi * ((codes == row) | (row < 0)).all(1) * (codes != blanks).all(1)
    right = torch.stack(
        [torch.stack([(law * (codes[:, site] == k)).sum() for k in range(target.space.num_categories)]) / law.sum()
         for site in range(3)]
    )  # fmt: skip
    barring = without_blanks(target, blanks)
    settings = ChainSettings(400, 100 if max_exact == 1 else 16)
    found = complete(barring, row, generator=torch.Generator().manual_seed(1), settings=settings, max_exact=max_exact)
    tolerance = 0.04 if max_exact == 1 else 1e-9
    torch.testing.assert_close(found.probs, right, atol=tolerance, rtol=0)
    assert (found.samples[..., :3] != blanks[:3]).all()
    assert torch.equal(exact_pi(target, 1.0), pi), "the target itself is as it was"
    assert without_blanks(target, torch.full_like(blanks, -1)) is target


@pytest.mark.parametrize("kernel", [None, DMALA(step_size=1.0), Gibbs()], ids=["gwg", "dmala", "gibbs_is_replaced"])
@pytest.mark.parametrize("name", SPACES)
def test_chains_find_the_same_marginals(name: str, kernel: Kernel | None) -> None:
    target = make_target(SPACES[name], "mlp", strength=0.4)
    given = rows(target).repeat(40, 1)
    found = complete(
        target, given, generator=torch.Generator().manual_seed(1), settings=ChainSettings(4, 300), kernel=kernel,
        max_exact=1,
    )  # fmt: skip
    assert found.exact.tolist() == [True, False, False, False] * 40
    again = found.probs.unflatten(0, (40, -1))
    error = (again.mean(0) - torch.stack(brute(target, given[:4]))).abs()
    assert bool((error < 5 * again.std(0) / 40**0.5 + 1e-3).all())
    assert float(error.max()) < 0.04
    known = given >= 0
    assert bool((found.samples == given)[:, known].all())
    assert bool((found.samples >= 0).all())
    assert float(found.trusted().double().mean()) > 0.8


def test_chains_that_disagree_are_not_trusted() -> None:
    """Two basins that no chain leaves: R-hat says so."""
    target = make_target(SPACES["binary"], "ising", strength=25.0)
    given = torch.full((1, 5), -1)
    given[0, 0] = 1
    found = complete(target, given.repeat(20, 1), generator=torch.Generator().manual_seed(0), max_exact=1)
    assert float(found.trusted().double().mean()) < 0.4, "four chains are in one basin by 2 / 2^4"
    assert mixing_of(torch.zeros(10, 2)) == (1.0, 20.0)
    assert not mixing_of(torch.tensor([[0.0, 1.0]]).repeat(10, 1))[0] <= 1.1


def test_what_cannot_be_completed_is_refused() -> None:
    target, generator = make_target(SPACES["binary"]), torch.Generator()
    with pytest.raises(ValueError, match="no rows"):
        complete(target, torch.empty(0, 5, dtype=torch.int64), generator=generator)
    with pytest.raises(ValueError, match="given must have shape"):
        complete(target, torch.zeros(2, 4, dtype=torch.int64), generator=generator)
    with pytest.raises(ValueError, match="given must lie in"):
        complete(target, torch.full((2, 5), 2), generator=generator)
    for settings in ({"num_chains": 1}, {"num_steps": 5}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            ChainSettings(**settings)
