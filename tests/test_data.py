"""Data sets: what they hold, that a batch depends on (seed, iteration) alone, and what bad files get."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist.data import MNIST, Arrays, Digits, DiscreteData, IsingSamples
from gwg_dist.energies import IsingTorusEnergy
from gwg_dist.errors import InputError
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical


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
    drawn = torch.cat([dynamic.batch(i) for i in range(24)]).double().mean()
    static = Digits(binarization="static").splits.train.double().mean()
    assert abs(drawn - grey) < 0.01
    assert abs(static - grey) < 0.005


def test_batches_are_a_function_of_seed_and_iteration() -> None:
    one, other = Digits(binarization="dynamic"), Digits(binarization="dynamic")
    for iteration in (0, 5, 11, 12, 13, 40):
        assert torch.equal(one.batch(iteration), other.batch(iteration))
    assert torch.equal(one.batch(5), other.batch(5))
    assert not torch.equal(one.batch(5), one.batch(6))
    other.seed = 1
    other._order = None
    assert not torch.equal(one.batch(5), other.batch(5))


def test_an_epoch_takes_every_point_once() -> None:
    data = IsingSamples(shape=(4, 4), num_train=60, num_steps=1, batch_size=20)
    epoch = torch.cat([data.batch(i) for i in (3, 4, 5)])
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


def test_arrays_take_named_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.integers(0, 3, (n, 2, 4)) for name, n in (("x_train", 200), ("x_test", 30), ("x_val", 20))}
    np.savez(tmp_path / "all.npz", **parts)  # pyright: ignore[reportArgumentType]
    data = Arrays(str(tmp_path / "all.npz"), test="x_test", validation="x_val")
    assert data.space == Categorical((2, 4), 3)
    assert np.array_equal(data.splits.test.numpy().reshape(30, 2, 4), parts["x_test"])
    assert np.array_equal(data.splits.validation.numpy().reshape(20, 2, 4), parts["x_val"])
    assert len(data.splits.train) == 200


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
        ({"path": str(tmp_path / "text.txt")}, "expected a .npz or .npy file"),
        ({"path": str(tmp_path / "torn.npz")}, "torn.npz is damaged"),
        ({"path": str(tmp_path / "pickled.npy")}, "more than plain arrays"),
        ({"path": saved("half.npz", x=np.full((20, 4), 0.5))}, "array 'x' of .*half.npz must hold integers"),
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
