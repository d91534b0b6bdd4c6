"""Data sets: what they hold, that a batch depends on (seed, iteration) alone, and what bad files get."""

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from gwg_dist.data import MNIST, Arrays, Digits, DiscreteData, IsingSamples, Splits
from gwg_dist.energies import IsingTorusEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.errors import InputError


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold", "none"])
def test_digits(binarization: str) -> None:
    data = Digits(binarization=binarization)
    train, validation, test = data.splits
    assert (len(train), len(validation), len(test)) == (1257, 180, 360)
    assert train.is_floating_point() == (binarization == "dynamic")
    data.space.check_codes(test)
    if binarization == "none":
        assert data.space == Categorical((8, 8), 17)
        assert int(test.max()) == 16
    frequencies = data.frequencies()
    torch.testing.assert_close(frequencies.sum(1), torch.ones(64, dtype=torch.float64))


def test_dynamic_and_static_binarisation_have_the_grey_mean() -> None:
    grey = Digits(binarization="none").splits.train.double().mean() / 16
    dynamic = Digits(binarization="dynamic")
    dynamic.setup("fit")
    drawn = torch.cat([dynamic.batch(i).codes for i in range(24)]).double().mean()
    static = Digits(binarization="static").splits.train.double().mean()
    assert abs(drawn - grey) < 0.01
    assert abs(static - grey) < 0.005


def test_batches_are_a_function_of_seed_and_iteration() -> None:
    one, other = Digits(binarization="dynamic"), Digits(binarization="dynamic")
    for iteration in (0, 5, 11, 12, 13, 40):
        assert torch.equal(one.batch(iteration).codes, other.batch(iteration).codes)
    assert torch.equal(one.batch(5).codes, other.batch(5).codes)
    assert not torch.equal(one.batch(5).codes, one.batch(6).codes)
    other.seed = 1
    other._order = None
    assert not torch.equal(one.batch(5).codes, other.batch(5).codes)


def test_few_points_are_all_in_every_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.arange(50)[:, None] // 2 ** np.arange(6) % 2)
    data = Arrays(str(tmp_path / "few.npy"))
    assert len(data.splits.train) == data.batch_size == 40
    assert sorted(data.batch(3).codes.tolist()) == sorted(data.splits.train.tolist())
    with pytest.raises(InputError, match="batch_size must be at most the 40 training points, got 41"):
        _ = Arrays(str(tmp_path / "few.npy"), batch_size=41).splits


def test_an_epoch_takes_every_point_once() -> None:
    data = IsingSamples(shape=(4, 4), num_train=60, num_steps=1, batch_size=20)
    epoch = torch.cat([data.batch(i).codes for i in (3, 4, 5)])
    assert sorted(epoch.tolist()) == sorted(data.splits.train.tolist())


def test_mnist(shared_data: Path) -> None:
    data = MNIST(root=str(shared_data))
    data.prepare_data()
    train, validation, test = data.splits
    assert (len(train), len(validation), len(test)) == (50_000, 10_000, 10_000)
    assert data.space == Binary((28, 28))
    assert abs(float(train.mean()) - 0.1307) < 0.001
    assert abs(float(test.double().mean()) - 0.1325) < 0.002
    assert torch.equal(MNIST(root=str(shared_data / "mnist.npz")).splits.test, test)


@pytest.mark.parametrize(
    ("file", "space", "categories"),
    [
        ("dna_mlbench", Binary(180), None),
        ("freyfaces", Categorical((28, 20), 256), 256),
        ("mushroom_fann", Binary(115), None),
    ],
)
def test_arrays_of_real_data(file: str, space: object, categories: int | None, shared_data: Path) -> None:
    data = Arrays(str(shared_data / f"{file}.npz"), num_categories=categories)
    assert data.space == space
    sizes = [len(part) for part in data.splits]
    assert sizes[1] == sizes[2]
    assert abs(sizes[1] / sum(sizes) - 0.1) < 0.01


def test_a_protein_family(shared_data: Path) -> None:
    data = Arrays(str(shared_data / "family_DHFR.npz"), train="msa")
    assert data.space == Categorical(156, 21)
    assert sum(len(part) for part in data.splits) == 4107
    weighted = Arrays(str(shared_data / "family_DHFR.npz"), train="msa", weights="weights")
    assert torch.equal(weighted.splits.train, data.splits.train)
    total = sum(float(weights.sum()) for _, weights in weighted.splits.parts.values() if weights is not None)
    assert abs(total - 3629) < 1, "the effective number of sequences at 80 % identity"
    assert (weighted.frequencies() - data.frequencies()).abs().max() > 1e-3


def test_arrays_take_named_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.integers(0, 3, (n, 2, 4)) for name, n in (("x_train", 200), ("x_test", 30), ("x_val", 20))}
    np.savez(tmp_path / "all.npz", **parts)  # pyright: ignore[reportArgumentType]
    data = Arrays(str(tmp_path / "all.npz"), test="x_test", validation="x_val")
    assert data.space == Categorical((2, 4), 3)
    assert np.array_equal(data.splits.test.numpy().reshape(30, 2, 4), parts["x_test"])
    assert np.array_equal(data.splits.validation.numpy().reshape(20, 2, 4), parts["x_val"])
    assert len(data.splits.train) == 200


def weighted_file(tmp_path: Path, num: int = 60) -> tuple[str, np.ndarray, np.ndarray]:
    """A file whose points say their own number, and weights that differ by a factor of a hundred."""
    x = (np.arange(num)[:, None] >> np.arange(6)) & 1
    weights = np.random.default_rng(0).uniform(0.01, 1, num)
    np.savez(tmp_path / "weighted.npz", x=x, weights=weights)
    return str(tmp_path / "weighted.npz"), x, weights


def numbers(codes: torch.Tensor) -> list[int]:
    return (codes.long() << torch.arange(6)).sum(1).tolist()


def test_weights_stay_with_their_points(tmp_path: Path) -> None:
    """Through the shuffle, the cut and the batch."""
    path, _, weights = weighted_file(tmp_path)
    data = Arrays(path, train="x", weights="weights", batch_size=8)
    seen = []
    for points, theirs in data.splits.parts.values():
        assert theirs is not None
        np.testing.assert_array_equal(theirs, weights[numbers(points)])
        seen += numbers(points)
    assert sorted(seen) == list(range(60))
    batch = data.batch(3)
    expected = weights[numbers(batch.codes)]
    np.testing.assert_allclose(batch.weights, expected / expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("world", [1, 3])
def test_weights_have_mean_one_over_all_ranks(tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What DDP averages, mean of w E times share over batch times ranks, is the weighted mean of the whole batch."""
    path, _, weights = weighted_file(tmp_path)
    data = Arrays(path, train="x", weights="weights", batch_size=10)
    monkeypatch.setattr("gwg_dist.data.base.world_size", lambda: world)
    energy, total, rows = np.random.default_rng(1).normal(size=60), 0.0, []
    for rank in range(world):
        monkeypatch.setattr("gwg_dist.data.base.rank", lambda rank=rank: rank)
        codes, share = data.batch(2)
        rows += numbers(codes)
        local = float((share.double() * torch.from_numpy(energy[numbers(codes)])).mean())
        total += local * len(codes) * world / 10 / world
    assert len(rows) == 10
    assert abs(total - np.average(energy[rows], weights=weights[rows])) < 1e-6


def test_statistics_are_weighted(tmp_path: Path) -> None:
    path, x, weights = weighted_file(tmp_path)
    data = Arrays(path, train="x", weights="weights", batch_size=8)
    rows = numbers(data.splits.train)
    mean = np.average(x[rows], axis=0, weights=weights[rows])
    np.testing.assert_allclose(data.frequencies()[:, 1], mean, rtol=0, atol=1e-12)
    drawn = np.bincount(numbers(data.sample_codes(40_000)), minlength=60)[rows]
    p_value = stats.chisquare(drawn, 40_000 * weights[rows] / weights[rows].sum()).pvalue
    assert p_value > 1e-6
    assert stats.chisquare(drawn).pvalue < 1e-6, "points drawn equally often would pass as well"


def test_points_without_weight_are_not_learned_from(tmp_path: Path) -> None:
    x, weights = (np.arange(60)[:, None] >> np.arange(6)) & 1, np.tile([0.0, 0.0, 1.0], 20)
    np.savez(tmp_path / "zeros.npz", x=x, weights=weights)
    data = Arrays(str(tmp_path / "zeros.npz"), train="x", weights="weights", batch_size=3)
    for iteration in range(20):
        batch = data.batch(iteration)
        assert torch.equal(batch.weights, torch.ones(3))
        assert (weights[numbers(batch.codes)] == 1).all()


def test_no_weights_are_weights_of_one(tmp_path: Path) -> None:
    """The same points, in the same order, of the same weight, bit for bit."""
    path, x, _ = weighted_file(tmp_path)
    np.savez(tmp_path / "ones.npz", x=x, weights=np.ones(60))
    plain, ones = Arrays(path, train="x"), Arrays(str(tmp_path / "ones.npz"), train="x", weights="weights")
    plain.batch_size = ones.batch_size = 8
    for iteration in (0, 7):
        for a, b in zip(plain.batch(iteration), ones.batch(iteration), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(plain.batch(0).weights, torch.ones(8))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(59), r"array 'w' of .*x.npz must have shape \(60,\), one for each point, got \(59,\)"),
        (np.ones((60, 2)), r"must have shape \(60,\).* got \(60, 2\)"),
        (np.r_[np.ones(59), -1], "must be finite and not negative, got values from -1.0 to 1.0"),
        (np.r_[np.ones(59), np.nan], "must be finite and not negative"),
        (np.zeros(60), "must not all be zero"),
        (np.full(60, "a"), "array 'w' of .*x.npz must hold numbers, got <U1"),
    ],
)
def test_bad_weights_name_file_and_field(weights: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((60, 4), dtype=int), w=weights)
    with pytest.raises(InputError, match=f"data.weights: .*{message}"):
        Arrays(str(tmp_path / "x.npz"), train="x", weights="w")
    with pytest.raises(InputError, match=r"data.weights: .*x.npz has no array 'v'; it has w, x"):
        Arrays(str(tmp_path / "x.npz"), train="x", weights="v")


def test_a_data_sets_own_weights_are_checked() -> None:
    class Mine(Digits):
        def load(self) -> Splits:
            return replace(super().load(), test_weights=torch.ones(3))

    with pytest.raises(InputError, match=r"data Mine: test weights must have shape \(360,\).* got \(3,\)"):
        _ = Mine().splits


def test_bad_files_name_file_and_field(tmp_path: Path) -> None:
    def saved(name: str, **arrays: np.ndarray) -> str:
        np.savez(tmp_path / name, **arrays)  # pyright: ignore[reportArgumentType]
        return str(tmp_path / name)

    good = np.zeros((20, 4), dtype=int)
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 this is no archive")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    cases: list[tuple[dict, str]] = [
        ({"path": str(tmp_path / "none.npz")}, r"data.path: there is no file .*none.npz"),
        ({"path": str(tmp_path / "text.txt")}, "expected a .npz, .npy or .mat file"),
        ({"path": str(tmp_path / "torn.npz")}, "torn.npz is damaged"),
        ({"path": str(tmp_path / "pickled.npy")}, "more than plain arrays"),
        (
            {"path": saved("half.npz", x=np.full((20, 4), 0.5))},
            "array 'x' of .*half.npz: .* such as 0.5 are grey",
        ),
        ({"path": saved("nan.npz", x=np.full((20, 4), np.nan))}, "must hold integers"),
        ({"path": saved("minus.npz", x=good - 1)}, "smallest value of -1"),
        ({"path": saved("line.npz", x=np.zeros(20, dtype=int))}, r"shape \(N, sites\).* got \(20,\)"),
        ({"path": saved("one.npz", x=good[:1])}, r"at least three points, got \(1, 4\)"),
        ({"path": saved("huge.npz", x=good + 2**40)}, "must hold integers below"),
        ({"path": saved("two.npz", a=good, b=good)}, "data.train: name the training array .* a, b"),
        ({"path": saved("ok.npz", x=good), "test": "y"}, "array 'y' of .*ok.npz does not exist; there are x"),
        ({"path": saved("big.npz", x=good + 5), "num_categories": 4}, "num_categories is 4, but .* holds a value of 5"),
        ({"path": saved("odd.npz", x=good, t=good[:, :3]), "train": "x", "test": "t"}, "must agree in all axes"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message):
            Arrays(**settings)


def test_bad_mnist_folders(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((5, 28, 28), dtype=np.uint8))
    with pytest.raises(InputError, match="no array 'x_test'; it has x_train"):
        _ = MNIST(root=str(tmp_path)).splits
    np.savez(
        tmp_path / "mnist.npz",
        x_train=np.zeros((5, 8, 8), dtype=np.uint8),
        x_test=np.zeros((5, 28, 28), dtype=np.uint8),
    )
    with pytest.raises(InputError, match=r"x_train of .* must be uint8 of shape \(N, 28, 28\), got uint8 \(5, 8, 8\)"):
        _ = MNIST(root=str(tmp_path)).splits
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    (tmp_path / "mnist.npz").unlink()
    with pytest.raises(InputError, match="not a gzipped idx file"):
        _ = MNIST(root=str(tmp_path)).splits


@pytest.mark.parametrize(
    ("header", "message"),
    [((2051, 2, 28, 28), "cannot reshape"), ((2051, 2**30, 28, 28), "states 1073741824 images of 28x28"),
     ((2051, 1, 30000, 30000), "states 1 images of 30000x30000"), ((2051, -1, 28, 28), "states -1 images")],
)  # fmt: skip
def test_an_idx_file_is_read_no_further_than_its_header_states(
    header: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    """What follows may inflate a thousandfold."""
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(np.array(header, ">i4").tobytes() + bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        MNIST(root=str(tmp_path)).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_ising_samples_have_the_exact_moments() -> None:
    data: DiscreteData = IsingSamples(shape=(3, 3), sigma=0.15, num_train=6000, num_steps=200)
    s = 2 * data.splits.train.double() - 1
    target = Target(IsingTorusEnergy(Binary((3, 3)), sigma=0.15))
    pi = exact_log_prob(target)[0].exp()
    states = 2 * target.space.all_codes().double() - 1
    exact = (states * pi[:, None]).T @ states
    found = s.T @ s / len(s)
    error = (1 - exact.square()).clamp(min=1e-12).div(len(s)).sqrt()
    assert ((found - exact).abs() <= 5 * error + 1e-12).all()
    assert exact.abs().min() > 0.1


def test_frequencies_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Digits(binarization="none")
    whole, train = data.frequencies(), data.splits.train
    monkeypatch.setattr("gwg_dist.data.base.NUMBERS_AT_ONCE", 64 * 100)
    assert torch.equal(data.frequencies(), whole)
    assert torch.equal(whole, torch.stack([(train == k).double().mean(0) for k in range(17)], 1))
