"""``gwg_dist classify`` and the losses of labels: the closed form of the RBM, enumeration, mistakes."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import classify, fit
from gwg_dist.batch import Batch
from gwg_dist.data import Digits
from gwg_dist.energies import MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.evaluation import exact_log_prob, label_probs
from gwg_dist.objectives import ContrastiveDivergence, HybridLikelihood, LabelLikelihood
from gwg_dist.reference import Reference
from gwg_dist.spaces import Categorical
from gwg_dist.testing import check_gradient, random_target
from gwg_dist.tools.errors import InputError
from gwg_dist.training.loading import load_run
from tests.support.runs import fails, run_fit

SIZES = (2, 2, 3)  # the last one is the label


def test_label_of_an_rbm_has_its_closed_form() -> None:
    """p(y | x) ∝ ref(y) exp(d_y + sum_h softplus(c_h + U_hy + (W x)_h)), equation 2 of Larochelle and Bengio (2008)."""
    space = Categorical(3, SIZES)
    target = random_target(RBMEnergy(space, num_hidden=4), spread=0.8)
    energy, reference = target.energy, target.reference
    assert isinstance(energy, RBMEnergy)
    assert isinstance(reference, Reference)
    codes = space.all_codes()
    weight, bias = energy.weight.detach().unflatten(1, (3, 3)), energy.visible_bias.detach().view(3, 3)
    closed = torch.zeros(len(codes), 3, dtype=torch.float64)
    for n, (a, b, _) in enumerate(codes.tolist()):
        for y in range(3):
            hidden = energy.hidden_bias.detach() + weight[:, 0, a] + weight[:, 1, b] + weight[:, 2, y]
            closed[n, y] = reference.probs[2, y].log() + bias[2, y] + torch.log1p(hidden.exp()).sum()
    torch.testing.assert_close(label_probs(target, codes, 2), closed.softmax(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [MLPEnergy, PottsEnergy, RBMEnergy])
@pytest.mark.parametrize("site", [0, 2])
def test_labels_by_enumeration_and_the_loss_of_them(make, site: int) -> None:
    space = Categorical(3, SIZES)
    target = random_target(make(space), spread=0.6)
    codes = space.all_codes()
    with torch.no_grad():
        pi = exact_log_prob(target)[0].exp()
    others = [i for i in range(3) if i != site]
    same = (codes[:, None, others] == codes[None, :, others]).all(2)
    total = torch.where(same, pi, 0.0).sum(1)
    probs = label_probs(target, codes, site)
    assert probs.shape == (len(codes), SIZES[site])
    found = probs.gather(1, codes[:, site : site + 1].long())[:, 0]
    torch.testing.assert_close(found, pi / total, rtol=0, atol=1e-7)
    weights = torch.rand(len(codes), dtype=torch.float64)
    loss = LabelLikelihood(site=site)(target, Batch(codes, weights), None, generator=torch.Generator()).loss
    torch.testing.assert_close(loss.detach(), -(weights * (pi / total).log()).mean(), rtol=0, atol=1e-7)


def test_hybrid_is_the_sum() -> None:
    space = Categorical(3, SIZES)
    target = random_target(RBMEnergy(space, num_hidden=4), spread=0.8)
    batch, x = Batch(space.all_codes(), torch.ones(12)), target.encode(space.all_codes().flip(0))
    generator = torch.Generator()
    parts = [loss(target, batch, x, generator=generator).loss for loss in (LabelLikelihood(), ContrastiveDivergence())]
    hybrid = HybridLikelihood(generative=0.3)(target, batch, x, generator=generator).loss
    torch.testing.assert_close(hybrid, parts[0] + 0.3 * parts[1])
    check_gradient(LabelLikelihood(), PottsEnergy(space), exact=lambda t, b: LabelLikelihood()(
        t, b, None, generator=generator).loss)  # fmt: skip
    with pytest.raises(InputError, match=r"site must lie in -3..2, got 3"):
        LabelLikelihood(site=3)(target, batch, None, generator=generator)
    with pytest.raises(ValueError, match="generative must be positive, got 0"):
        HybridLikelihood(generative=0)


def test_digits_carry_their_labels() -> None:
    plain, labelled = Digits(), Digits(labels=True)
    assert labelled.space.sizes[-2:] == (2, 10)
    assert torch.equal(labelled.splits.test[:, :64], plain.splits.test)
    counts = torch.bincount(labelled.splits.train[:, 64].long())
    assert len(counts) == 10
    assert counts.min() > 100
    with pytest.raises(ValueError, match="binarization must not be dynamic"):
        Digits(labels=True, binarization="dynamic")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A discriminative RBM of labelled digits, trained for seconds."""
    folder = tmp_path_factory.mktemp("classify")
    return run_fit(folder / "run", "--data=Digits", "--data.labels=true", "--data.batch_size=100",
                   "--model.energy=RBMEnergy",
                   "--model.energy.num_hidden=40", "--model.objective=LabelLikelihood", "--trainer.max_steps=300",
                   "--model.learning_rate=0.02", "--model.warmup_iterations=0", "--ema.decay=0.9",
                   "--evaluation.every=0", "--evaluation.final_temperatures=1",
                   "--evaluation.num_chains=2", "--pictures_every=0", "--trainer.accelerator=cpu",
                   "--quiet")  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_classifies_what_it_has_not_seen(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classify.main([str(run), "test", f"--out={tmp_path / 'labels.csv'}"])
    found = rows(tmp_path / "labels.csv")
    assert len(found) == 360
    assert sum(row["given"] == row["label"] for row in found) / 360 > 0.85
    assert "accuracy" in capsys.readouterr().err
    for row in found[:20]:
        probs = [float(row[f"p({k})"]) for k in range(10)]
        assert sum(probs) == pytest.approx(1)
        assert probs[int(row["label"])] == max(probs)


def test_labels_may_be_missing_and_nothing_else(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = load_run(run, "last").data.splits.test[:5].numpy().astype(np.int64)
    test[:, 64] = -1
    np.savez(tmp_path / "points.npz", x=test)
    classify.main([str(run), str(tmp_path / "points.npz"), f"--out={tmp_path / 'a.csv'}", "--site=label"])
    assert {row["given"] for row in rows(tmp_path / "a.csv")} == {""}
    assert "accuracy" not in capsys.readouterr().err
    test[3, 10] = -1
    np.savez(tmp_path / "holes.npz", x=test)
    line = fails(classify.main, [str(run), str(tmp_path / "holes.npz")], capsys)
    assert "point 4, site 11 is missing; gwg_dist complete fills it in" in line
    line = fails(classify.main, [str(run), str(tmp_path / "points.npz"), "--site=lable"], capsys)
    assert "site: lable is no name (1, 2, 3, ...) and no number from 1 to 65" in line
    line = fails(classify.main, [str(run), str(tmp_path / "points.npz"), f"--out={tmp_path / 'a.csv'}"], capsys)
    assert "nothing is overwritten" in line


def test_a_missing_cell_of_a_table_is_what_the_run_learnt_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is a category of its own. The column of labels need not be there."""
    rows_of = [f"{('', 'b', 'c')[n % 3]},{n % 2},{'yn'[n % 2]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,label", *rows_of]) + "\n")
    few = ["--trainer.max_steps=2", "--data.batch_size=10", "--evaluation.every=0", "--evaluation.final_temperatures=2",
           "--evaluation.num_chains=2", "--trainer.accelerator=cpu", "--quiet"]  # fmt: skip
    fit.main([str(tmp_path / "t.csv"), f"--run_dir={tmp_path / 'run'}", *few])
    classify.main([str(tmp_path / "run"), str(tmp_path / "t.csv"), f"--out={tmp_path / 'a.csv'}"])
    (tmp_path / "less.csv").write_text("\n".join(["a,b", *(row[:-2] for row in rows_of)]) + "\n")
    capsys.readouterr()
    classify.main([str(tmp_path / "run"), str(tmp_path / "less.csv"), f"--out={tmp_path / 'b.csv'}"])
    assert "has no column 'label': it is missing in every row" in capsys.readouterr().err
    given, found = rows(tmp_path / "a.csv"), rows(tmp_path / "b.csv")
    assert [row["label"] for row in given] == [row["label"] for row in found]
    assert {row["given"] for row in found} == {""}
    load = load_run(tmp_path / "run", "last")
    codes = load.data.encode_file(tmp_path / "t.csv")[0]
    probs = label_probs(load.module.target, codes, 2)
    assert [float(row["p(n)"]) for row in given] == pytest.approx(probs[:, 0].tolist())
