"""Independent streams: equal names give equal streams, and names that share 32 bits of their seed differ."""

import itertools

import torch

from gwg_dist.tools.seeding import FIRST_WORD, NUM_WORDS, fixed_generator, make_generator, stream_seed


def first_numbers(generator: torch.Generator) -> list[int]:
    return torch.randint(1 << 31, (20,), generator=generator).tolist()


def test_a_stream_is_made_by_its_name() -> None:
    assert first_numbers(make_generator(3, "chains", 1)) == first_numbers(make_generator(3, "chains", 1))
    names = list(itertools.product((0, 1), ("chains", "data noise"), (0, 1, 10)))
    assert len({tuple(first_numbers(make_generator(*name))) for name in names}) == len(names)


def test_names_that_share_32_bits_of_their_seed_differ() -> None:
    """Searched for, not made up: among 200,000 names about five pairs share them."""
    seen: dict[int, int] = {}
    pairs = []
    for index in range(200_000):
        other = seen.setdefault(stream_seed(0, "data noise", index) & 0xFFFFFFFF, index)
        if other != index:
            pairs.append((other, index))
    assert pairs
    for one, other in pairs:
        assert first_numbers(make_generator(0, "data noise", one)) != first_numbers(
            make_generator(0, "data noise", other)
        )


def test_where_torch_keeps_the_words_of_its_state() -> None:
    """The Mersenne Twister's own initialisation is found there; a torch that moved them would fail here."""
    words = [5489]
    for index in range(1, NUM_WORDS):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + index) & 0xFFFFFFFF)
    state = torch.Generator().manual_seed(5489).get_state()
    assert state[FIRST_WORD : FIRST_WORD + 8 * NUM_WORDS].view(torch.int64).tolist() == words


def test_numbers_of_a_stream_are_uniform_and_streams_are_uncorrelated() -> None:
    """256 streams of 4,096 numbers; five standard errors, for each of 256 cells and 255 correlations."""
    numbers = torch.stack(
        [torch.rand(4096, generator=make_generator(7, "check", index), dtype=torch.float64) for index in range(256)]
    )
    counts = torch.histc(numbers, 256, 0, 1)
    assert ((counts - 4096).abs() / 64).max() < 5
    centred = (numbers - 0.5) * 12**0.5
    correlation = (centred[1:] * centred[:-1]).mean(1) * 4096**0.5
    assert correlation.abs().max() < 5


def test_a_stream_goes_on_where_it_was_saved() -> None:
    generator = make_generator(1, "chains")
    first_numbers(generator)
    state = generator.get_state()
    expected = first_numbers(generator)
    other = torch.Generator()
    other.set_state(state)
    assert first_numbers(other) == expected


def test_a_data_set_keeps_its_split() -> None:
    """Recorded before streams took more than 32 bits: old runs still evaluate on their own test points."""
    assert torch.randperm(10, generator=fixed_generator("split")).tolist() == [5, 3, 1, 2, 0, 6, 4, 9, 8, 7]
