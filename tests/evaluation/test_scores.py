"""Scores of points and of single-site changes are those of the model, summed here one point at a time."""

import pytest
import torch

from gwg_dist.evaluation import exact_log_prob, scores, unnormalised_log_prob
from gwg_dist.evaluation.scores import score_points, single_site_changes
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.target import Target
from tests.support.kernels import SPACES, exact_pi, make_target


@pytest.mark.parametrize("name", SPACES)
def test_scores_are_energies_and_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_target(SPACES[name])
    codes = target.space.all_codes()
    monkeypatch.setattr(scores, "NUMBERS_AT_ONCE", 70)  # several batches
    found = score_points(target, codes)
    log_prob, log_z = exact_log_prob(target)
    assert torch.allclose(found.unnormalised - log_z, log_prob, atol=1e-10)
    assert torch.allclose((found.unnormalised - log_z).exp(), exact_pi(target, 1.0), atol=1e-10)
    assert float(found.log_reference.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", SPACES)
def test_every_change_of_one_site_has_the_ratio_of_two_probabilities(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target(SPACES[name])
    space, codes = target.space, target.space.all_codes().long()
    monkeypatch.setattr(scores, "NUMBERS_AT_ONCE", 70)
    log_pi = exact_pi(target, 1.0).log()
    number = {tuple(code): n for n, code in enumerate(codes.tolist())}
    for row in (0, 11, len(codes) - 1):
        found = single_site_changes(target, codes[row])
        for site in range(space.num_sites):
            for k in range(space.sizes[site]):
                other = codes[row].tolist()
                other[site] = k
                assert float(found[site, k]) == pytest.approx(
                    float(log_pi[number[tuple(other)]] - log_pi[row]), abs=1e-9
                )
            assert bool((found[site, space.sizes[site] :] == -torch.inf).all())
        assert bool((found.gather(1, codes[row][:, None]) == 0).all())


def test_points_of_another_size_are_refused() -> None:
    target = make_target(SPACES["binary"])
    with pytest.raises(ValueError, match="codes must have shape"):
        single_site_changes(target, torch.zeros(4, dtype=torch.int64))


def test_no_more_points_at_once_than_the_energy_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    target, seen = make_target(Binary(4), "mlp"), []
    assert isinstance(target.energy, torch.nn.Module)
    monkeypatch.setattr(type(target.energy), "cpu_chains_at_once", 3)
    target.energy.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    score_points(target, Binary(4).all_codes())
    single_site_changes(target, Binary(4).all_codes()[5])
    assert max(seen) == 3
    assert sum(seen) == 16 + 1 + 4 + 4  # every site has both categories, its own one too


def test_wide_points_are_scored_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 levels of 560 pixels are 143,360 numbers a point: 4,096 of them at once would take gigabytes."""
    target, sizes = make_target(Categorical((8, 8), 64)), []
    encode = Target.encode
    monkeypatch.setattr(Target, "encode", lambda self, codes: sizes.append(len(codes)) or encode(self, codes))
    codes = target.space.uniform_codes(50, generator=torch.Generator().manual_seed(0))
    whole = unnormalised_log_prob(target, codes)
    monkeypatch.setattr(scores, "NUMBERS_AT_ONCE", 20 * 64 * 64)
    assert torch.allclose(unnormalised_log_prob(target, codes), whole)
    assert sizes == [50, 20, 20, 10]
