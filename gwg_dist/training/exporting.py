"""A run's model written for others: safetensors, .npz, or the text of adabmDCA."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gwg_dist.callbacks import Adaptation
from gwg_dist.data import DiscreteData
from gwg_dist.data.alphabets import ALPHABETS
from gwg_dist.data.params_dat import Parameters, write_params
from gwg_dist.data.sequences import write_fasta
from gwg_dist.evaluation.contacts import PairModel
from gwg_dist.evaluation.effective import pairs_of
from gwg_dist.reference import Reference
from gwg_dist.target import Target
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say
from gwg_dist.training.folder import CONFIG, RESULTS
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.model_file import FORMAT, ModelFile, write_model
from gwg_dist.training.scoring import check_out, fresh_file

FORMATS = {"safetensors": (".safetensors",), "npz": (".npz",), "params.dat": (".dat", ".gz")}
GAUGES = ("as-is", "zero-sum")


def export_run(
    run: str, kind: str, out: Path | None, gauge: str, alphabet: str | None, checkpoint: str, trust: str
) -> Path:
    """Write the model of a run; see ``gwg_dist.export``. Raises InputError for what cannot be used."""
    if kind not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if gauge not in GAUGES:
        raise InputError(f"gauge must be one of {', '.join(GAUGES)}, got {gauge!r}")
    check_out(out, FORMATS[kind])
    loaded = load_run(run, checkpoint, device="cpu", trust=trust)
    samples = kept_samples(loaded)
    if kind == "params.dat":
        letters = letters_of(loaded.data, alphabet)
        parameters = potts_parameters(loaded, letters, gauge)
        path = fresh_file(out, Path(run), "params", ".dat")
        write_params(path, parameters)
        if samples is not None:
            chains = fresh_file(None, path.parent, "chains", ".fasta")
            strings = ["".join(letters[k] for k in code) for code in samples.tolist()]
            write_fasta(chains, [f"chain_{n}" for n in range(len(strings))], strings)
            say(f"{len(strings)} equilibrium samples, written to {chains}")
        say(f"the reference is in the fields; gauge {gauge}; written to {path}")
        return path
    path = fresh_file(out, Path(run), "model", FORMATS[kind][0])
    write_model(path, model_of(loaded, Path(run), samples))
    num = 0 if samples is None else len(samples)
    say(f"weights, reference, settings and {num} equilibrium samples, written to {path}")
    return path


def kept_samples(loaded: LoadedRun) -> Tensor | None:
    """The chains of the model that the checkpoint keeps, as codes ``(N, D)``; None where it keeps none."""
    packed = loaded.checkpoint["chains"]["packed"]
    if packed is None:
        return None
    found = loaded.module.chains.of_model(packed)
    return loaded.module.space.unpack(found) if len(found) else None


def model_of(loaded: LoadedRun, folder: Path, samples: Tensor | None) -> ModelFile:
    """The model with its settings, and with the results of the run where they are of these weights."""
    checkpoint = loaded.checkpoint
    texts = {
        "format": FORMAT,
        "config": (folder / CONFIG).read_text(),
        "model": json.dumps(checkpoint["gwg_dist"]),
        "iteration": str(checkpoint["global_step"]),
    }
    letters = common_letters(loaded.data)
    if letters is not None:
        texts["alphabet"] = letters
    entry = checkpoint["callbacks"].get(Adaptation.__qualname__)
    if entry is not None:
        texts["adaptation"] = json.dumps(entry)
    results = folder / RESULTS
    if results.is_file() and _iteration_in(results) == checkpoint["global_step"]:
        texts["results"] = results.read_text()
    return ModelFile(checkpoint["state_dict"], samples, texts)


def common_letters(data: DiscreteData) -> str | None:
    """The letters of an alphabet that all sites have, in the order of their categories; None where there is none."""
    names = data.category_names()
    letters = "".join(names[0])
    same = all(site == names[0] for site in names) and len(letters) == len(names[0])
    return letters if same and not letters.isdecimal() else None


def named_letters(alphabet: str) -> str:
    """The letters of "protein", "rna" or "dna"; those that are given otherwise."""
    return ALPHABETS[alphabet].letters if alphabet in ALPHABETS else alphabet


def letters_of(data: DiscreteData, alphabet: str | None) -> str:
    """A letter for each category. Raises InputError where the data have none and none fit."""
    if len(set(data.space.sizes)) > 1:
        raise InputError("format: params.dat is for sites with the same letters, the sites of this run differ in size")
    letters = common_letters(data) if alphabet is None else named_letters(alphabet)
    if letters is None:
        raise InputError("alphabet: the categories of this run are numbers: give protein, rna, dna or the letters")
    if len(letters) != data.space.num_categories or len(set(letters)) < len(letters):
        raise InputError(f"alphabet must have {data.space.num_categories} different letters, got {letters!r}")
    return letters


def potts_parameters(loaded: LoadedRun, letters: str, gauge: str) -> Parameters:
    """Couplings, and fields with the log of the reference in them, by K times: its uniform distribution adds nothing.

    sum_{i<j} J_ij + sum_i h_i = log p(x) + log Z + D log K - a constant of the energy, in either gauge up to one more.

    Raises:
        InputError: an energy that is no model of pairs.
    """
    module = loaded.module
    pairs = pairs_of(Target(copy.deepcopy(module.energy).double(), Reference(module.space).double()))
    if pairs is None:
        name = type(module.energy).__name__
        raise InputError(f"format: params.dat is for models of pairs, {name} is none; safetensors and npz are for all")
    log_ref = (module.reference.probs.double() * module.space.num_categories).log()
    full = PairModel(pairs.couplings, pairs.fields + log_ref, pairs.constant)
    full = full.zero_sum() if gauge == "zero-sum" else full
    return Parameters(full.couplings.float().numpy(), full.fields.float().numpy(), letters)


def _iteration_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text())["iteration"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
