"""Spaces: three forms of a point, moves and their reverses, draws that never take what has no probability."""

import pytest
import torch

from gwg_dist.draws import inverse_cdf
from gwg_dist.reference import Reference
from gwg_dist.spaces import Binary, Categorical, Space

SPACES = [Binary(7), Binary((3, 4)), Categorical(5, 3), Categorical((2, 2), 300), Categorical(3, 2)]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_forms_are_inverses(space: Space) -> None:
    codes = space.uniform_codes(50, generator=torch.Generator().manual_seed(0))
    space.check_codes(codes)
    assert torch.equal(space.unpack(space.pack(codes)), codes)
    assert torch.equal(space.decode(space.encode(codes)), codes)
    assert space.encode(codes).dtype == torch.float32


def test_ten_thousand_binary_images_take_one_megabyte() -> None:
    space = Binary((28, 28))
    packed = space.pack(space.uniform_codes(10_000, generator=torch.Generator().manual_seed(0)))
    assert packed.element_size() * packed.numel() == 980_000


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_every_move_changes_one_site_and_its_reverse_undoes_it(space: Space) -> None:
    codes = space.uniform_codes(20, generator=torch.Generator().manual_seed(1))
    x = space.encode(codes)
    d = space.first_order_differences(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    for move in range(0, d.shape[1], 1 + d.shape[1] // 40):
        chains = d[:, move] > -torch.inf
        moves = torch.full((20,), move)
        change = space.change(x, moves)
        y = space.apply(x, change)
        assert torch.equal(space.hamming(x, y)[chains], torch.ones(20)[chains])
        assert torch.equal(y[~chains], x[~chains])
        back = change.reversed()
        assert torch.equal(space.apply(y, back)[chains], x[chains])


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_differences_are_exact_for_a_linear_function(space: Space) -> None:
    generator = torch.Generator().manual_seed(3)
    x = space.encode(space.uniform_codes(4, generator=generator), torch.float64)
    slope = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    d = space.first_order_differences(x, slope.expand_as(x))
    for move in range(0, d.shape[1], 1 + d.shape[1] // 40):
        chains = d[:, move] > -torch.inf
        y = space.apply(x, space.change(x, torch.full((4,), move)))
        change = ((y - x) * slope).flatten(1).sum(1)
        torch.testing.assert_close(d[chains, move], change[chains], rtol=0, atol=1e-12)
        single = space.first_order_difference(slope.expand_as(x), space.change(x, torch.full((4,), move)))
        torch.testing.assert_close(single[chains], change[chains], rtol=0, atol=1e-12)


def test_all_codes_counts_in_order() -> None:
    assert Categorical(2, 3).all_codes().tolist() == [[a, b] for a in range(3) for b in range(3)]
    with pytest.raises(ValueError, match="too many to enumerate"):
        Binary((28, 28)).all_codes()


def test_what_is_not_a_point_is_refused() -> None:
    space = Categorical(3, 4)
    for codes, message in (
        (torch.zeros(2, 4, dtype=torch.uint8), r"shape \(any, 3\)"),
        (torch.zeros(2, 3), "must hold integers"),
        (torch.full((2, 3), 4), r"must lie in 0..3 .* from 4 to 4"),
    ):
        with pytest.raises(ValueError, match=message):
            space.check_codes(codes, "codes")
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Categorical(3, 1)
    with pytest.raises(ValueError, match="positive sizes"):
        Binary((3, 0))


def test_the_draw_follows_the_probabilities_and_never_takes_zero() -> None:
    log_p = torch.tensor([[0.0, 0.2, 0.0, 0.5, 0.3, 0.0]]).log()
    uniform = torch.linspace(0, 1 - 2**-53, 100_001, dtype=torch.float64)
    drawn = inverse_cdf(log_p.exp().expand(len(uniform), -1), uniform)
    frequency = torch.bincount(drawn, minlength=6) / len(uniform)
    torch.testing.assert_close(frequency, log_p.exp()[0], rtol=0, atol=2e-5)
    assert set(drawn.tolist()) == {1, 3, 4}


def test_the_draw_keeps_rare_moves_and_survives_nan() -> None:
    """A move of probability 1e-9 behind one that takes nearly all is drawn by the numbers that stand for it."""
    log_p = torch.tensor([[1 - 1e-9, 1e-9]], dtype=torch.float64).log().float()
    uniform = torch.tensor([1 - 2e-9, 1 - 0.5e-9], dtype=torch.float64)
    assert inverse_cdf(log_p.exp().expand(2, -1), uniform).tolist() == [0, 1]
    assert inverse_cdf(torch.full((1, 5), torch.nan), uniform[:1]).tolist() == [4]


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3)], ids=repr)
def test_reference_is_normalised_and_sampled_as_it_says(space: Space) -> None:
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.rand(space.num_sites, space.num_categories, generator=generator, dtype=torch.float64)
    frequencies[0] = torch.eye(space.num_categories)[0]
    reference = Reference(space, smoothing=0.1).double().fit(frequencies / frequencies.sum(1, keepdim=True))
    log_prob = reference.log_prob(space.encode(space.all_codes(), torch.float64))
    assert abs(float(torch.logsumexp(log_prob, 0))) < 1e-12
    draws = reference.sample(200_000, generator=generator)
    for site in range(space.num_sites):
        frequency = torch.bincount(draws[:, site].long(), minlength=space.num_categories) / len(draws)
        torch.testing.assert_close(frequency.double(), reference.probs[site], rtol=0, atol=0.006)


def test_reference_of_the_paper() -> None:
    """p = mean (1 - 2ε) + ε with ε = 0.01 is a smoothing of 0.02."""
    mean = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    reference = Reference(Binary(3)).fit(torch.stack([1 - mean, mean], 1))
    torch.testing.assert_close(reference.probs[:, 1], mean * 0.98 + 0.01, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="smoothing must lie"):
        Reference(Binary(3), smoothing=0.0)
    with pytest.raises(ValueError, match="sum to one"):
        Reference(Binary(3)).fit(torch.ones(3, 2))
