"""Penalties end where the penalised loss does; a run ends where its chains have the data's correlations."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gwg_dist import fit
from gwg_dist.batch import Batch
from gwg_dist.callbacks import Regularisation, Stop
from gwg_dist.callbacks.regularisation import add_l2, rates, shrink
from gwg_dist.energies import Energy, IsingEnergy, IsingGraphEnergy, PottsEnergy, PottsGraphEnergy
from gwg_dist.energies.base import PairWeights
from gwg_dist.evaluation.contacts import pair_model
from gwg_dist.objectives import PseudoLikelihood
from gwg_dist.samplers import Target
from gwg_dist.spaces import Binary, Categorical
from tests.support.runs import SMALL, fails, run_fit

SITES = 5
POTTS = [option for option in SMALL if "RBM" not in option and "num_hidden" not in option]
POTTS += ["--model.energy=PottsEnergy", "--trainer.max_steps=300", "--trainer.log_every_n_steps=10"]


def codes_with_one_pair(num: int) -> torch.Tensor:
    """Sites 0 and 3 mostly agree; the others know nothing of each other."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (num, SITES), generator=generator, dtype=torch.uint8)
    same = torch.rand(num, generator=generator) < 0.8
    codes[:, 3] = torch.where(same, codes[:, 0], codes[:, 3])
    return codes


def descend(l2: float, group_l1: float) -> tuple[PairWeights, torch.Tensor]:
    """Pseudo-likelihood of Potts by gradient descent with the penalties; the couplings and the loss's own gradient."""
    torch.manual_seed(0)
    space = Categorical(SITES, 3)
    energy = PottsEnergy(space, scale=0.1).double()
    pairs, target, codes = energy.pair_weights(), Target(energy), codes_with_one_pair(300)
    batch, optimizer = Batch(codes, torch.ones(len(codes))), torch.optim.SGD(energy.parameters(), lr=0.4)
    gradient = torch.zeros(())
    for _ in range(600):
        optimizer.zero_grad()
        PseudoLikelihood()(target, batch, None, generator=torch.Generator()).loss.backward()
        assert pairs.parameter.grad is not None
        gradient = pairs.parameter.grad.clone()
        add_l2(pairs, l2)
        optimizer.step()
        shrink(pairs, group_l1 * rates(pairs, optimizer))
    return pairs, gradient


def test_l2_ends_where_the_penalised_loss_has_no_slope() -> None:
    pairs, gradient = descend(0.1, 0.0)
    assert float((gradient + 0.2 * pairs.parameter.detach()).abs().max()) < 1e-5
    assert float(gradient.abs().max()) > 0.01


def test_groups_end_at_zero_or_where_the_penalised_loss_has_no_slope() -> None:
    weight = 0.2
    pairs, gradient = descend(0.0, weight)
    norms = pairs.norms().detach()
    kept = norms > 0
    assert kept.nonzero().tolist() == [[0, 3]], "the one pair that the data couple"
    blocks = pairs.parameter.detach().view(SITES, 3, SITES, 3)
    slopes = gradient.view(SITES, 3, SITES, 3)
    balance = slopes[0, :, 3] + weight * blocks[0, :, 3] / norms[0, 3]
    assert float(balance.abs().max()) < 1e-5
    assert float(slopes.square().sum((1, 3)).sqrt()[~kept].max()) < weight


@pytest.mark.parametrize("energy", [
    PottsEnergy(Categorical(4, 3), scale=1.0), IsingEnergy(Binary(4), scale=1.0), IsingGraphEnergy(Binary(4)),
    PottsGraphEnergy(Categorical(4, 3), scale=1.0),
], ids=lambda energy: type(energy).__name__)  # fmt: skip
def test_the_norms_are_those_of_the_pairs(energy: Energy) -> None:
    """Scaling one block scales the couplings of that pair of sites, and no other's."""
    pairs = energy.double().pair_weights()
    assert pairs is not None

    def size() -> torch.Tensor:
        structure = energy.structure()
        dense = structure.dense()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        couplings = pair_model(dense.rows, dense.slope, dense.constant, energy.space.num_categories).couplings
        return couplings.square().sum((2, 3)).sqrt()

    before, norms = size(), pairs.norms()
    first = tuple(norms.nonzero()[0].tolist())
    factors = torch.ones_like(norms)
    factors[first] = 0.5
    with torch.no_grad():
        pairs.scale(factors)
    changed = (size() / before).nan_to_num(1.0)
    assert sorted(changed.flatten().tolist())[:3] == pytest.approx([0.5, 0.5, 1.0])
    kept = before[before > 0]
    factor = kept.max() / norms.max()  # of binary sites 4 J, where the energy holds J
    assert torch.allclose(factor * norms[norms > 0].sort().values, kept.sort().values[::2]), "each pair once"


def test_a_run_ends_at_the_pearson_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", codes_with_one_pair(300).numpy())
    run = run_fit(tmp_path / "run", f"{tmp_path}/x.npy", *POTTS, "--model.learning_rate=0.02", "--stop.pearson=0.8",
                  "--stop.every=20", "--regularisation.l2=0.001", "--model.num_steps=5")  # fmt: skip
    printed = capsys.readouterr().err
    assert "connected correlations of the chains have Pearson 0." in printed
    last = torch.load(run / "last.ckpt", weights_only=True)
    assert 20 <= last["global_step"] < 300
    assert last["global_step"] % 20 == 0


def test_groups_of_a_run_end_at_zero(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", codes_with_one_pair(300).numpy())
    run = run_fit(tmp_path / "run", f"{tmp_path}/x.npy", *POTTS, "--model.objective=PseudoLikelihood",
                  "--regularisation.group_l1=0.3", "--model.learning_rate=0.02")  # fmt: skip
    state = torch.load(run / "last.ckpt", weights_only=True)["current_model_state"]
    pairs = next(value for name, value in state.items() if name.endswith("pairs"))
    norms = PairWeights(torch.nn.Parameter(pairs), 3).norms().detach()
    assert (norms > 0).sum() < 10, "not all ten pairs are left"
    assert norms[0, 3] > 0


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One update of rate 1e-9 leaves them where they were; chains and optimizer are the new run's own."""
    np.save(tmp_path / "x.npy", codes_with_one_pair(300).numpy())
    small = [f"{tmp_path}/x.npy", *POTTS, "--data.batch_size=20"]
    first = run_fit(tmp_path / "first", *small, "--model.objective=PseudoLikelihood", "--trainer.max_steps=20")
    second = run_fit(tmp_path / "second", *small, "--trainer.max_steps=1", f"--weights_from={first}",
                     "--model.learning_rate=1e-9")  # fmt: skip
    assert f"weights at the beginning: those of {first}" in capsys.readouterr().err
    a, b = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"]["energy.pairs"] for run in (first, second))
    assert a.abs().max() > 0.01
    assert torch.allclose(a, b, atol=1e-7)
    args = [*SMALL, "--trainer.max_steps=1", f"--run_dir={tmp_path}/third"]
    assert "weights_from: the checkpoint is of PottsEnergy" in fails(
        fit.main, [*args, f"--weights_from={first}"], capsys
    )
    assert "weights_from: there is no" in fails(fit.main, [*args, f"--weights_from={tmp_path}"], capsys)


@pytest.mark.parametrize(("options", "message"), [
    (["--regularisation.l2=-1"], "l2 must not be negative"),
    (["--regularisation.group_l1=.1"], "regularisation needs a model of pairs, such as PottsEnergy; RBMEnergy has no"),
    (["--stop.pearson=1"], "pearson must lie in [0, 1)"),
    (["--stop.pearson=.9", "--model.objective=PseudoLikelihood"], "stop.pearson needs persistent chains"),
])  # fmt: skip
def test_mistakes(tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*SMALL, f"--run_dir={tmp_path}/run", "--trainer.max_steps=2", *options]
    assert message in fails(fit.main, args, capsys)


def test_settings_outside_their_ranges() -> None:
    with pytest.raises(ValueError, match="group_l1"):
        Regularisation(group_l1=-1.0)
    with pytest.raises(ValueError, match="every"):
        Stop(every=0)
    with pytest.raises(ValueError, match="plateau"):
        Stop(plateau=-1)
