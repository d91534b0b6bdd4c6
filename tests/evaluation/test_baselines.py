"""What is said of missing sites without a model."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from gwg_dist.evaluation import baselines
from gwg_dist.evaluation.baselines import commonest, judge, logistic

CELLS = torch.tensor([[0, 0], [0, 2], [2, 2]])


def test_a_judge_counts_and_takes_logarithms() -> None:
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.0, 1.0]]).double()
    guess = judge(probs, torch.tensor([1, 1, 0]))
    assert guess.accuracy == pytest.approx(1 / 3)
    assert guess.stderr == pytest.approx((2 / 9 / 3) ** 0.5)
    assert guess.log_prob == pytest.approx(torch.tensor([0.8, 0.4, 1e-6]).double().log().mean())


def test_the_commonest_category_is_that_of_the_site() -> None:
    frequencies = torch.rand(3, 4).softmax(1)
    assert torch.equal(commonest(frequencies, CELLS), frequencies[[0, 2, 2]].double())


def test_a_regression_finds_what_hangs_together() -> None:
    """Site 2 copies site 0 (K = 3), site 1 is noise; nothing is hidden in training where little is hidden here."""
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(3, (400, 3), generator=generator)
    train[:, 2] = train[:, 0]
    given = torch.randint(3, (50, 3), generator=generator)
    truth = given[:, 0].clone()
    given[:, 2] = -1
    cells = torch.stack([torch.arange(50), torch.full((50,), 2)], 1)
    found = logistic(train, given, cells, 3)
    assert found is not None
    assert judge(found, truth).accuracy > 0.95
    assert torch.allclose(found.sum(1), torch.ones(50).double())


def test_with_nothing_hidden_it_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(2, (300, 4), generator=generator)
    train[:, 3] = train[:, 0] | train[:, 1]
    given = torch.randint(2, (4000, 4), generator=generator)
    given[0, 3] = -1
    found = logistic(train, given, torch.tensor([[0, 3]]), 2)
    model = LogisticRegression(max_iter=200).fit(train[:, :3].numpy(), train[:, 3].numpy())
    assert found is not None
    assert float(found[0, 1]) == pytest.approx(model.predict_proba(given[:1, :3].numpy())[0, 1], abs=0.02)


def test_constant_sites_and_too_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    train = functional.one_hot(torch.zeros(20, dtype=torch.int64), 3)
    given = torch.tensor([[-1, 0, 0], [0, 0, 0], [0, 0, -1]])
    cells = torch.tensor([[0, 0], [2, 2]])
    assert logistic(train, given, cells, 2).tolist() == [[0, 1], [1, 0]]  # pyright: ignore[reportOptionalMemberAccess]
    alone = logistic(torch.tensor([[0], [1], [1], [1]]), torch.tensor([[-1]]), torch.tensor([[0, 0]]), 2)
    assert alone.tolist() == [[0.25, 0.75]], "a site that is the only one"  # pyright: ignore[reportOptionalMemberAccess]
    monkeypatch.setattr(baselines, "MAX_WORK", -1)
    assert logistic(train, given, cells, 2) is None
