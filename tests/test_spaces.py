"""Spaces: three forms of a point, moves and their reverses, draws that never take what has no probability."""

import math

import pytest
import torch

from gwg_dist.draws import inverse_cdf
from gwg_dist.energies import PottsEnergy
from gwg_dist.reference import Reference
from gwg_dist.spaces import Binary, Categorical, Space

RAGGED = Categorical(4, (2, 5, 3, 2))
SPACES = [Binary(7), Binary((3, 4)), Categorical(5, 3), Categorical((2, 2), 300), Categorical(3, 2), RAGGED]


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
        if space.width > 1 and move % space.num_categories >= space.sizes[move // space.num_categories]:
            assert not chains.any(), "the padding is no move"
            continue
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


# -- sites of different sizes ------------------------------------------------------------------------------------------


def test_a_ragged_space_has_the_points_of_its_sites_alone() -> None:
    codes = RAGGED.all_codes()
    assert RAGGED.num_states == len(codes.unique(dim=0)) == 60
    assert codes.amax(0).tolist() == [1, 4, 2, 1]
    assert abs(RAGGED.log_num_states - math.log(60)) < 1e-12
    assert torch.equal((codes.long() * RAGGED.places()).sum(1), torch.arange(60))
    drawn = RAGGED.uniform_codes(60_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount((drawn.long() * RAGGED.places()).sum(1), minlength=60)
    assert ((counts - 1000) ** 2 / 1000).sum() < 59 + 6 * (2 * 59) ** 0.5


def test_one_size_for_all_is_the_plain_space() -> None:
    assert Categorical(3, (4, 4, 4)) == Categorical(3, 4)
    assert repr(Categorical(3, [4, 4, 4])) == "Categorical((3,), num_categories=4)"
    assert Categorical(4, 5) != RAGGED
    assert Categorical((4,), [2, 5, 3, 2]) == RAGGED
    assert str(RAGGED) == "Categorical((4,), 2 to 5 categories)"


def test_padding_is_no_move_and_is_never_drawn() -> None:
    """Whatever the gradient is there, nan and inf too, and for numbers at both ends of [0, 1)."""
    codes = RAGGED.all_codes()
    x = RAGGED.encode(codes, torch.float64)
    padding = RAGGED.without_padding(torch.zeros(4, 5), 1.0).bool()
    assert int(padding.sum()) == 8
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d = RAGGED.first_order_differences(x, grad)
    for there in (torch.nan, torch.inf, -torch.inf, 1e30):
        assert torch.equal(RAGGED.first_order_differences(x, grad.masked_fill(padding, there)), d)
        sites = RAGGED.site_differences(x, grad.masked_fill(padding, there))
        assert torch.equal(sites == -torch.inf, padding.expand_as(x))
    assert (torch.isfinite(d).sum(1) == 1 + 4 + 2 + 1).all()
    chosen = torch.ones(60, 4, dtype=torch.bool)
    for end in (0.0, 0.5, 1 - 2**-53):
        uniform = torch.full((60, 4), end, dtype=torch.float64)
        free = RAGGED.draw_sites(x, torch.zeros_like(x), uniform)
        changed = RAGGED.change_sites(x, None, chosen, uniform)
        for y in (free, changed, RAGGED.change_sites(x, d, chosen, uniform)):
            RAGGED.check_points(y)
        assert (RAGGED.hamming(x, changed) == 4).all()
        log_q = RAGGED.log_prob_changes(x, None, changed)
        torch.testing.assert_close(log_q, torch.full_like(log_q, -math.log(8)), rtol=0, atol=1e-12)
        log_q = RAGGED.log_prob_sites(x, torch.zeros_like(x), free)
        torch.testing.assert_close(log_q, torch.full_like(log_q, -math.log(60)), rtol=0, atol=1e-12)


def test_what_is_no_ragged_space_or_no_point_of_one() -> None:
    for shape, sizes, message in (
        (3, (2, 3), "one for each of 3 sites, got 2"),
        ((2, 2), (2, 3, 4), "one for each of 4 sites, got 3"),
        (3, (2, 1, 3), "at least 2, got 1 at site 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Categorical(shape, sizes)
    with pytest.raises(ValueError, match=r"train must lie in 0\.\.2 at site 2, got 3"):
        RAGGED.check_codes(torch.tensor([[1, 4, 0, 1], [0, 0, 3, 1]]), "train")
    x = torch.zeros(1, 4, 5)
    x[0, torch.arange(4), torch.tensor([0, 0, 3, 0])] = 1
    with pytest.raises(ValueError, match="must be one-hot"):
        RAGGED.check_points(x)


def test_a_ragged_reference_smooths_over_a_sites_own_categories() -> None:
    frequencies = torch.zeros(4, 5, dtype=torch.float64)
    frequencies[:, 0] = 1
    reference = Reference(RAGGED, smoothing=0.1).fit(frequencies)
    assert reference.probs[2].tolist() == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3, 0, 0])
    assert torch.isfinite(reference.weights).all()
    frequencies[0] = torch.tensor([0.5, 0, 0.5, 0, 0])
    with pytest.raises(ValueError, match="zero where a site has no such category"):
        reference.fit(frequencies)
    assert float(Reference(RAGGED).log_prob(RAGGED.encode(RAGGED.all_codes())).exp().sum()) == pytest.approx(1)


def test_rounding_leads_no_reference_draw_into_the_padding() -> None:
    """A cumulative sum that ends below one, and numbers above it."""
    reference = Reference(RAGGED)
    reference.probs.mul_(1 - 1e-3)
    codes = reference.sample(100_000, generator=torch.Generator().manual_seed(0))
    RAGGED.check_codes(codes)


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


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3), RAGGED], ids=repr)
def test_reference_is_normalised_and_sampled_as_it_says(space: Space) -> None:
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.rand(space.num_sites, space.num_categories, generator=generator, dtype=torch.float64)
    frequencies = space.without_padding(frequencies, 0.0)
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


def test_couplings_of_the_padding_are_zero_and_stay_so() -> None:
    """At any initial scale, through updates with momentum and weight decay."""
    torch.manual_seed(0)
    energy = PottsEnergy(RAGGED, scale=0.5)
    optimizer = torch.optim.AdamW(energy.parameters(), lr=0.1, weight_decay=0.1)
    padding = RAGGED.without_padding(torch.zeros(4, 5), 1.0).bool().flatten()
    for seed in range(3):
        codes = RAGGED.uniform_codes(20, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        energy(RAGGED.encode(codes)).square().sum().backward()
        optimizer.step()
    assert float(energy.coupling.detach()[~padding][:, ~padding].abs().max()) > 0.1
    assert not energy.coupling[padding].any()
    assert not energy.field[padding].any()
