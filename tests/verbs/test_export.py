"""``gwg_dist export`` and ``import``: energies survive the round trip, and agree with adabmDCA's own where it is."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gwg_dist import complete, evaluate, export, sample, score
from gwg_dist.data.params_dat import Parameters, read_params, write_params
from gwg_dist.data.sequences import read_sequences
from gwg_dist.evaluation.contacts import PairModel
from gwg_dist.evaluation.scores import score_points
from gwg_dist.spaces import Categorical
from gwg_dist.training.importing import potts_energy
from gwg_dist.training.loading import load_run
from tests.data.test_params_dat import random_parameters
from tests.support.runs import SMALL, fails, run_fit

LETTERS = "-ACGU"
import_verb = importlib.import_module("gwg_dist.import")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Potts model of a few sequences of RNA."""
    folder = tmp_path_factory.mktemp("export")
    codes = np.random.default_rng(0).integers(0, 5, (80, 6))
    lines = [f">s{n}\n{''.join(LETTERS[k] for k in row)}\n" for n, row in enumerate(codes)]
    (folder / "family.fasta").write_text("".join(lines))
    few = [arg for arg in SMALL if "energy" not in arg and "learning_rate" not in arg and "batch" not in arg]
    data = ["--data=Alignment", f"--data.path={folder / 'family.fasta'}", "--data.batch_size=20"]
    more = ["--model.energy=PottsEnergy", "--trainer.max_steps=20", "--model.learning_rate=0.03", "--quiet"]
    run_fit(folder / "run", *data, *few, *more)
    if not (folder / "run/best.ckpt").exists():
        shutil.copyfile(folder / "run/last.ckpt", folder / "run/best.ckpt")
    return folder / "run"


def log_probs(run: Path, codes: Tensor) -> Tensor:
    return score_points(load_run(run, device="cpu").module.target, codes).unnormalised


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_an_exported_run_is_the_same_model(kind: str, run: Path, tmp_path: Path, monkeypatch) -> None:
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    file = tmp_path / f"model.{kind}"
    export.main([str(run), f"--format={kind}", f"--out={file}"])
    hidden = run.parent / "elsewhere.fasta"
    (run.parent / "family.fasta").rename(hidden)  # another machine
    try:
        import_verb.main([str(file), f"--run_dir={tmp_path / 'theirs'}"])
        codes = Categorical(6, 5).uniform_codes(100, generator=torch.Generator().manual_seed(0))
        assert torch.equal(log_probs(tmp_path / "theirs", codes), log_probs(run, codes))
        monkeypatch.chdir(tmp_path)
        theirs = str(tmp_path / "theirs")
        sample.main([theirs, "--num=5", "--num_steps=5", "--quiet"])
        score.main([theirs, str(hidden), "--quiet"])
        complete.main([theirs, "test", "--hide=.3", "--quiet"])
        evaluate.main([theirs, "--num_chains=10", "--num_temperatures=10", "--quiet"])
    finally:
        hidden.rename(run.parent / "family.fasta")
    ours = load_run(run, device="cpu").checkpoint["chains"]["packed"]
    assert torch.equal(load_run(tmp_path / "theirs", device="cpu").checkpoint["chains"]["packed"], ours)
    assert json.loads((tmp_path / "theirs/results.json").read_text())["ais"]


@pytest.mark.parametrize("gauge", ["as-is", "zero-sum"])
def test_params_dat_goes_out_and_comes_back(gauge: str, run: Path, tmp_path: Path) -> None:
    """Up to a constant, log p is that of the run, whose reference is in the fields by then."""
    file = tmp_path / "family.dat.gz"
    export.main([str(run), "--format=params.dat", f"--out={file}", f"--gauge={gauge}"])
    import_verb.main([str(file), f"--run_dir={tmp_path / 'back'}", f"--data={run.parent / 'family.fasta'}"])
    codes = Categorical(6, 5).uniform_codes(100, generator=torch.Generator().manual_seed(0))
    difference = log_probs(tmp_path / "back", codes) - log_probs(run, codes)
    assert float((difference - difference.mean()).abs().max()) < 1e-5
    if gauge == "as-is":
        assert float(difference.abs().max()) < 1e-5
    chains = read_sequences(tmp_path / "chains.fasta")
    assert chains.names[0] == "chain_0"
    packed = load_run(run, device="cpu").checkpoint["chains"]["packed"]
    assert chains.strings == ["".join(LETTERS[k] for k in row) for row in packed.tolist()]
    assert torch.equal(load_run(tmp_path / "back", device="cpu").checkpoint["chains"]["packed"], packed)
    fields = read_params(file).fields.mean(1)
    assert (float(np.abs(fields).max()) < 1e-5) == (gauge == "zero-sum")
    evaluate.main([str(tmp_path / "back"), "--num_chains=10", "--num_temperatures=10", "--quiet"])


def test_a_foreign_model_without_chains_gets_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = random_parameters()
    write_params(tmp_path / "params.dat", given)
    import_verb.main(["params.dat"])
    codes = Categorical(5, 5).uniform_codes(50, generator=torch.Generator().manual_seed(0))
    loaded = load_run("runs/params-imported", device="cpu")
    pairs = PairModel(
        torch.from_numpy(given.couplings).double(), torch.from_numpy(given.fields).double(), torch.zeros(())
    )
    found = score_points(loaded.module.target, codes)
    torch.testing.assert_close(-found.energies, pairs.f(codes), atol=1e-4, rtol=0)
    assert len(loaded.data.splits.train) == 160
    assert loaded.data.category_names()[0] == list(LETTERS)


def test_letters_that_no_file_of_sequences_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path / "p.dat", random_parameters(4, "abc."))
    import_verb.main(["p.dat"])
    loaded = load_run("runs/p-imported", device="cpu")
    assert loaded.module.space == Categorical(4, 4)
    assert Path("runs/p-imported/samples.npz").is_file()
    score.main(["runs/p-imported", "test", "--quiet"])


def test_energies_agree_with_adabmdcas(run: Path, tmp_path: Path) -> None:
    """100 sequences both ways: our export read there, and their file read here."""
    python = os.environ.get("ADABMDCA_PYTHON", sys.executable)
    there = subprocess.run([python, "-c", "import adabmDCA"], capture_output=True)
    if there.returncode:
        pytest.skip("adabmDCA is not installed (ADABMDCA_PYTHON names a Python that has it)")
    generator = torch.Generator().manual_seed(0)
    codes = Categorical(6, 5).uniform_codes(100, generator=generator)
    export.main([str(run), "--format=params.dat", f"--out={tmp_path / 'ours.dat'}"])
    np.save(tmp_path / "codes.npy", codes.numpy())
    code = """
import sys, numpy as np, torch
from adabmDCA.io import load_chains, load_params, save_params
from adabmDCA.statmech import compute_energy
folder = sys.argv[1]
params = load_params(f"{folder}/ours.dat", tokens="rna", device=torch.device("cpu"))
hot = torch.nn.functional.one_hot(torch.from_numpy(np.load(f"{folder}/codes.npy")).long(), 5).float()
np.save(f"{folder}/ours.npy", compute_energy(hot, params).numpy())
generator = torch.Generator().manual_seed(1)
h, j = torch.randn(6, 5, generator=generator), torch.randn(6, 5, 6, 5, generator=generator)
theirs = {"bias": h, "coupling_matrix": j}
j += j.permute(2, 3, 0, 1).clone()
for i in range(6):
    j[i, :, i] = 0
save_params(f"{folder}/theirs.dat", theirs, tokens="rna")
np.save(f"{folder}/theirs.npy", compute_energy(hot, theirs).numpy())
print(len(load_chains(f"{folder}/chains.fasta", tokens="-ACGU")[0]))
"""
    done = subprocess.run([python, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = -log_probs(run, codes) - 6 * np.log(5)
    np.testing.assert_allclose(np.load(tmp_path / "ours.npy"), ours.numpy(), atol=1e-5)
    parameters = read_params(tmp_path / "theirs.dat")
    energy = potts_energy(parameters, Categorical(6, 5))
    found = energy(energy.space.encode(codes))
    np.testing.assert_allclose(np.load(tmp_path / "theirs.npy"), found.numpy(), atol=1e-5)
    assert int(done.stdout) == len(load_run(run, device="cpu").checkpoint["chains"]["packed"])


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(Path("params.dat"), random_parameters())
    Path("chains.fasta").write_text(">a\nACGUA\n>b\nACGUX\n")
    Path("short.fasta").write_text(">a\nACGU\n>b\nACGU\n")
    np.savez("other.npz", x=np.zeros(3))
    Path("torn.safetensors").write_bytes(b"1234567890")
    Path("full").mkdir()
    Path("full/a").write_text("")
    for main, args, message in (
        (export.main, [str(run), "--format=pickle"], "format must be one of safetensors, npz, params.dat"),
        (export.main, [str(run), "--gauge=lattice"], "gauge must be one of"),
        (export.main, [str(run), "--format=npz", "--out=a.dat"], "out must end in .npz"),
        (export.main, [str(run), "--format=npz", "--out=other.npz"], "nothing is overwritten"),
        (export.main, [str(run), "--format=params.dat", "--alphabet=dna4"], "alphabet must have 5 different letters"),
        (export.main, [str(tmp_path)], "is no run folder"),
        (import_verb.main, ["params.dat"], "chains.fasta"),
        (import_verb.main, ["params.dat", "--chains=short.fasta"], "has 4 sites, the model 5"),
        (import_verb.main, ["params.dat", "--alphabet=abc"], "not in the alphabet abc"),
        (import_verb.main, ["params.dat", "--run_dir=full"], "full holds something already"),
        (import_verb.main, ["other.npz"], "was not written by gwg_dist export"),
        (import_verb.main, ["nothing.npz"], "there is no file nothing.npz"),
        (import_verb.main, ["other.npz", "--chains=chains.fasta"], "chains is for params.dat"),
        (import_verb.main, ["torn.safetensors"], "is damaged or no safetensors file"),
    ):
        assert message in fails(main, args, capsys), args
    assert not list(tmp_path.glob("runs/*"))


def test_what_is_no_model_of_pairs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "my.npz", x=np.random.default_rng(0).integers(0, 2, (60, 6)))
    run_fit(tmp_path / "run", f"{tmp_path / 'my.npz'}", "--trainer.max_steps=5", "--quiet")
    args = [str(tmp_path / "run"), "--checkpoint=last", "--format=params.dat"]
    assert "the categories of this run are numbers" in fails(export.main, args, capsys)
    assert "for models of pairs, RBMEnergy is none" in fails(export.main, [*args, "--alphabet=01"], capsys)


def test_parameters_hold_the_energy() -> None:
    given = random_parameters()
    energy = potts_energy(Parameters(*given), Categorical(5, 5))
    torch.testing.assert_close(energy.coupling.view(5, 5, 5, 5).transpose(1, 2), torch.from_numpy(given.couplings))
