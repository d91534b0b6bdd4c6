"""Chains at a ladder of betas in training: swaps that are exact, and nothing lost on the way through a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gwg_dist import fit
from gwg_dist.batch import Batch
from gwg_dist.chains import TemperedChains, restore_chains, save_chains, tempered
from gwg_dist.chains.tempered import swapped
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Target
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.testing.kernels import _chi_square_p_value, number_of
from gwg_dist.testing.models import exact_pi
from gwg_dist.tools.errors import InputError
from gwg_dist.training.loading import load_run
from gwg_dist.training.sampling import start_codes
from tests.support.kernels import make_target
from tests.support.runs import assert_same_state, checkpoint, command, fails, run, run_fit

ALPHA = 1e-6
BETAS = (0.3, 0.6, 1.0)
LADDER = ["--model.chains=TemperedChains", "--model.chains.betas=[0.4,0.7,1.0]", "--model.chains.size=150"]
CALM = ["--evaluation.every=5", "--pictures_every=0"]


def pair_probability(target: Target, low: float, high: float) -> Tensor:
    """Probability of a swap for every pair (state at ``low``, state at ``high``), ``(S, S)``."""
    x = target.encode(target.space.all_codes())
    with torch.no_grad():
        f = -target.energy(x)
    pairs = torch.cartesian_prod(f, f).T.contiguous()
    betas = torch.tensor([[low], [high]], dtype=torch.float64).expand_as(pairs)
    order, prob = swapped(pairs, betas, torch.Generator().manual_seed(0))
    assert (order.sort(0).values == torch.tensor([[0], [1]])).all()
    return prob[0].view(len(x), len(x))


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3), Categorical(3, (2, 4, 3))], ids=repr)
def test_a_swap_is_in_detailed_balance(space) -> None:
    target = make_target(space)
    flow = torch.outer(exact_pi(target, 0.3), exact_pi(target, 0.8)) * pair_probability(target, 0.3, 0.8)
    assert float((flow - flow.T).abs().max()) < 1e-12


def source_at_the_target(target: Target, size: int) -> TemperedChains:
    """Every rung's chains are exact draws at its beta."""
    space, generator = target.space, torch.Generator().manual_seed(3)
    source = TemperedChains(betas=BETAS, size=size)
    source.setup(space, Reference(space), space.uniform_codes(5, generator=generator), generator=generator)
    for rung, beta in zip(source.rungs, BETAS, strict=True):
        states = torch.multinomial(exact_pi(target, beta), size, replacement=True, generator=generator)
        rung.packed = space.pack(space.all_codes()[states])
    return source


def worst_p_value(target: Target, *, iterations: int = 3, size: int = 20_000) -> float:
    """Of chi-square tests of all rungs, and of what the loss sees, after some iterations that move all chains."""
    source, generator, space = source_at_the_target(target, size), torch.Generator().manual_seed(0), target.space
    batch = Batch(space.unpack(source.rungs[0].packed), torch.ones(size))
    chain = None
    for _ in range(iterations):
        chain = source.advance(GWG(), target, batch, num_steps=2, generator=generator, backend="eager")
    assert chain is not None
    torch.testing.assert_close(chain.state.f, target.f(chain.x), rtol=0, atol=1e-10)
    assert chain.swap_prob is not None
    assert 0.2 < float(chain.swap_prob.mean()) < 1
    ends = [(target.encode(space.unpack(rung.packed)), beta) for rung, beta in zip(source.rungs, BETAS, strict=True)]
    values = []
    for x, beta in [*ends, (chain.x, 1.0)]:
        counts = torch.bincount(number_of(target, x), minlength=space.num_states).double()
        values.append(_chi_square_p_value(counts, exact_pi(target, beta) * size))
    return min(values)


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3), Categorical(3, (2, 4, 3))], ids=repr)
def test_chains_at_their_betas_stay_there(space) -> None:
    assert worst_p_value(make_target(space)) > ALPHA


@pytest.mark.parametrize("wrong", ["previous states", "upside down"])
def test_a_wrong_swap_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(f: Tensor, betas: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return swapped(-f if wrong == "upside down" else f.roll(1, 1), betas, generator)

    monkeypatch.setattr(tempered, "swapped", mutant)
    with pytest.raises(AssertionError):
        assert worst_p_value(make_target(Binary(4))) > ALPHA


def test_rungs_are_shared_over_ranks_and_none_is_lost() -> None:
    """Two ranks save, three go on: each rung's chains are there once, in the rung where they were."""
    space, generator = Binary(24), torch.Generator().manual_seed(0)
    data = space.uniform_codes(9, generator=generator)

    def ranks(num: int) -> list[TemperedChains]:
        found = [TemperedChains(betas=BETAS, size=11, init="uniform") for _ in range(num)]
        for rank, source in enumerate(found):
            source.setup(space, Reference(space), data, generator=generator, rank=rank, world_size=num)
        return found

    two, three = ranks(2), ranks(3)
    packed = torch.cat([source.rungs[r].packed for r in range(3) for source in two])  # what gather returns
    for source in three:
        source.restore(packed)
    for r in range(3):
        kept = torch.cat([source.rungs[r].packed for source in three])
        assert torch.equal(kept, packed[11 * r : 11 * (r + 1)])
    assert torch.equal(three[0].of_model(packed), packed[22:])
    alone = ranks(1)[0]
    alone.restore(packed)
    assert torch.equal(alone.gather(), packed)


def test_a_chain_at_beta_zero_is_a_fresh_draw() -> None:
    assert [rung.restart_prob for rung in TemperedChains(betas=(0.0, 0.5, 1.0)).rungs] == [1.0, 0.0, 0.0]


def test_a_run_resumes_bit_for_bit_and_logs_its_swaps(tmp_path: Path) -> None:
    calm = run_fit(tmp_path / "calm", *LADDER, *CALM, "--trainer.max_steps=12", "--trainer.log_every_n_steps=4")
    stopped = run_fit(tmp_path / "run", *LADDER, *CALM, "--trainer.max_steps=7")
    fit.main(["--resume", str(stopped), "--trainer.max_steps=12"])
    assert_same_state(stopped / "last.ckpt", calm / "last.ckpt")
    saved = checkpoint(calm / "last.ckpt")["chains"]["packed"]
    assert saved.shape == (450, 8)
    logged = next(calm.rglob("metrics.csv")).read_text()
    assert "train/swap_prob" in logged.splitlines()[0]
    loaded, generator = load_run(calm, "last"), torch.Generator().manual_seed(0)
    codes = start_codes(loaded, 150, "buffer", generator)
    cold = loaded.module.space.unpack(saved[300:])
    assert sorted(codes.tolist()) == sorted(cold.tolist())


def test_chains_are_gone_on_with_at_the_betas_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many chains of another ladder, or of none, are refused; a checkpoint that does not name betas is not."""
    tempered_run = run_fit(tmp_path / "tempered", *LADDER, *CALM, "--trainer.max_steps=2")
    plain_run = run_fit(tmp_path / "plain", "--model.chains.size=450", *CALM, "--trainer.max_steps=2")
    cases = [
        (
            tempered_run,
            [*LADDER, "--model.chains.betas=[0.1,0.7,1.0]"],
            "[0.4, 0.7, 1.0], those of the settings at [0.1",
        ),
        (tempered_run, ["--model.chains.size=450"], "betas [0.4, 0.7, 1.0], those of the settings at [1.0]"),
        (plain_run, LADDER, "betas [1.0], those of the settings at [0.4, 0.7, 1.0]"),
    ]
    for found, settings, expected in cases:
        args = command(tmp_path / "other", *settings, *CALM, f"--ckpt_path={found / 'last.ckpt'}")
        message = fails(fit.main, args, capsys)
        assert "the checkpoint's chains do not fit this run: they are at the " in message
        assert expected in message
        assert not (tmp_path / "other").exists()
    old = checkpoint(tempered_run / "last.ckpt")
    assert old["chains"].pop("betas") == [0.4, 0.7, 1.0]
    torch.save(old, tmp_path / "old.ckpt")
    run_fit(tmp_path / "new", *LADDER, *CALM, "--trainer.max_steps=3", f"--ckpt_path={tmp_path / 'old.ckpt'}")


def test_chains_of_other_betas_are_not_restored() -> None:
    space, generator = Binary(6), torch.Generator().manual_seed(0)

    def at(*betas: float) -> TemperedChains:
        source = TemperedChains(betas=betas, size=10)
        source.setup(space, Reference(space), space.uniform_codes(3, generator=generator), generator=generator)
        return source

    saved = save_chains(at(0.5, 1.0), generator)
    restore_chains(at(0.5, 1.0), saved, generator, seed=0, iteration=0)
    with pytest.raises(InputError, match=r"at the betas \[0.5, 1.0\], those of the settings at \[0.1, 1.0\]"):
        restore_chains(at(0.1, 1.0), saved, generator, seed=0, iteration=0)


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit(tmp_path: Path) -> None:
    def on_two(name: str, steps: int) -> Path:
        more = ["--trainer.strategy=ddp", "--trainer.devices=2", "--ckpt_path=last", f"--trainer.max_steps={steps}"]
        log = tmp_path / "log"
        code = run("gwg_dist.fit", command(tmp_path / name, *LADDER, *CALM, *more), log)
        assert code == 0, log.read_text()[-3000:]
        return tmp_path / name / "last.ckpt"

    calm = on_two("calm", 12)
    on_two("run", 7)
    assert_same_state(on_two("run", 12), calm)
    assert len(checkpoint(calm)["chains"]["packed"]) == 450


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="betas must be a ladder of at least two"):
        TemperedChains(betas=(1.0,))
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        TemperedChains(size=0)
    source = TemperedChains(betas=BETAS, size=20)
    with pytest.raises(InputError, match="do not fit this run: 40 there, 20 at each of 3 betas"):
        source.check_saved(torch.zeros(40, 8))
    message = fails(fit.main, command(tmp_path / "run", *LADDER, "--model.chains.betas=[1.0]"), capsys)
    assert "at least two" in message
