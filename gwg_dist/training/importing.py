"""A run's folder made of a model that somebody else has written, or an exported run of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentError
from torch import Tensor

from gwg_dist.callbacks import Adaptation
from gwg_dist.data.alphabets import GAP, Alphabet
from gwg_dist.data.params_dat import Parameters, is_params, read_params
from gwg_dist.data.sequences import read_sequences, write_fasta
from gwg_dist.energies import PottsEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, run_chain
from gwg_dist.spaces import Categorical, Space, read_space
from gwg_dist.target import Target
from gwg_dist.tools.commands import Parser
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, replacing, write_tensors, write_text
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import make_progress, say, track
from gwg_dist.training.exporting import named_letters
from gwg_dist.training.folder import BEST, CONFIG, RESULTS
from gwg_dist.training.loading import load_run
from gwg_dist.training.model_file import ModelFile, read_json, read_model
from gwg_dist.training.settings import as_text, build_parser, instantiate

NUM_SAMPLES, SWEEPS = 200, 20
FEWEST = 10  # samples that can stand for data
CHAINS = "chains.fasta"


def import_run(
    file: str, run_dir: str | None, chains: str | None, data: str | None, alphabet: str | None, seed: int, trust: str
) -> Path:
    """Make a run of a model file; see ``gwg_dist.import``. Raises InputError for what cannot be used."""
    source = Path(file)
    folder = Path(run_dir or f"runs/{source.name.removesuffix('.gz').rsplit('.', 1)[0]}-imported")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"run_dir: {folder} holds something already: nothing is overwritten")
    if is_params(source):
        parameters = read_params(source, None if alphabet is None else named_letters(alphabet))
        chains = chains or next((str(path) for path in [source.with_name(CHAINS)] if path.is_file()), None)
        samples = None if chains is None else read_chains(chains, parameters)
        with made(folder):
            import_potts(parameters, folder, samples, data, seed)
            load_run(folder, device="cpu", trust=trust)
    else:
        for name, value in (("chains", chains), ("alphabet", alphabet)):
            if value is not None:
                raise InputError(f"{name} is for params.dat: {file} has its own")
        model = read_model(source)
        with made(folder):
            import_model(model, folder, data, trust)
            load_run(folder, device="cpu", trust=trust)
    say(f"run folder: {folder}; gwg_dist sample, score, complete and evaluate take it")
    return folder


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """A folder that is gone again where what fills it fails."""
    make_folder(folder, name="run_dir")
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def import_model(model: ModelFile, folder: Path, data: str | None, trust: str) -> None:
    """Write settings, checkpoint and results of an exported run; its data are those it had, where they are here."""
    identity = read_json(model, "model")
    try:
        config = yaml.safe_load(model.texts["config"])
        space = read_space(identity["space"])
        step, there = int(model.texts["iteration"]), Path(config["data"].get("init_args", {}).get("path") or folder)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"file: its settings are damaged: {error}") from error
    if data is not None:
        config["data"] = picked_data(data, trust)
        identity.pop("data", None)  # the words of other data
    elif not there.exists() and model.samples is not None:
        say(f"the data {there} are not here: the samples of the model stand for them; --data names others")
        config["data"] = samples_as_data(model.samples, space, folder, model.texts.get("alphabet"))
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
    adaptation = read_json(model, "adaptation") if "adaptation" in model.texts else None
    write_checkpoint(folder, identity, model.weights, None if model.samples is None else space.pack(model.samples),
                     step, {} if adaptation is None else {Adaptation.__qualname__: adaptation})  # fmt: skip
    if "results" in model.texts:
        write_text(folder / RESULTS, model.texts["results"])


def import_potts(parameters: Parameters, folder: Path, samples: Tensor | None, data: str | None, seed: int) -> None:
    """Write a run of a ``PottsEnergy`` with these couplings and fields and the uniform reference."""
    num_sites, size = parameters.fields.shape
    space = Categorical(num_sites, size)
    if samples is None or len(samples) < FEWEST:
        samples = fresh_samples(potts_energy(parameters, space), seed)
    letters = parameters.alphabet
    if data is None:
        spec = samples_as_data(samples, space, folder, letters)
    else:
        spec = family_as_data(data, letters) if are_of_sequences(letters) else picked_data(data, "")
    parser = build_parser()
    parser.exit_on_error = False
    with replacing(folder / CONFIG) as beside:
        beside.write_text(yaml.safe_dump({"data": spec}))
        config = parsed(parser, ["--config", str(beside), "--model.energy=PottsEnergy", "--model.smoothing=1",
                                 f"--seed={seed}"])  # fmt: skip
        module = instantiate(parser, config).model
        if module.space != space:
            raise InputError(f"data: {data} is in {module.space}, the model for {space}")
        beside.write_text(as_text(parser, config))
    module.energy.load_state_dict(potts_energy(parameters, space).state_dict())
    identity = {"energy": "PottsEnergy", "space": repr(space), "seed": seed, "smoothing": 1.0, "optimizer": "none"}
    write_checkpoint(folder, identity, module.state_dict(), space.pack(samples), 0, {})


def potts_energy(parameters: Parameters, space: Space) -> PottsEnergy:
    """E with f = -E = sum_{i<j} J_ij + sum_i h_i."""
    energy = PottsEnergy(space).requires_grad_(False)
    flat = torch.from_numpy(parameters.couplings).transpose(1, 2).reshape(energy.pairs.shape)
    energy.pairs.copy_(flat * energy.upper)
    energy.field.copy_(torch.from_numpy(parameters.fields).flatten())
    return energy


def fresh_samples(energy: PottsEnergy, seed: int) -> Tensor:
    """Codes ``(N, D)`` of chains that start uniform."""
    space, num_steps = energy.space, SWEEPS * energy.space.num_sites
    target, generator = Target(energy, Reference(space)), make_generator(seed, "import")
    x = target.encode(space.uniform_codes(NUM_SAMPLES, generator=generator))
    with make_progress() as progress, track(progress, "sampling", num_steps) as advance:
        chain = run_chain(
            GWG(), target, x, num_steps=num_steps, generator=generator, before_step=lambda step, _: advance(step)
        )
    say(f"no chains were given: {NUM_SAMPLES} of {num_steps} steps from random points stand for data")
    return space.decode(chain.x)


def read_chains(path: str, parameters: Parameters) -> Tensor:
    """Codes ``(N, D)`` of a FASTA file. Raises InputError for another length or letter, naming the sequence."""
    try:
        codes = Alphabet(parameters.alphabet).codes_of(read_sequences(path, "chains").strings)
    except InputError as error:
        raise InputError(f"chains: {path}: {error}") from error
    if codes.shape[1] != len(parameters.fields):
        raise InputError(f"chains: {path} has {codes.shape[1]} sites, the model {len(parameters.fields)}")
    return codes


def samples_as_data(samples: Tensor, space: Space, folder: Path, letters: str | None) -> dict[str, Any]:
    """Write samples into the folder, and the settings of the data set that reads them; letters make it an alignment.

    Raises InputError where the sites differ in size.
    """
    folder = folder.resolve()
    if len(set(space.sizes)) > 1:
        raise InputError(f"data: the data of the run are not here, and samples of {space} cannot stand for them: "
                         "give --data")  # fmt: skip
    if letters is not None and are_of_sequences(letters) and len(space.shape) == 1:
        strings = ["".join(letters[k] for k in code) for code in samples.tolist()]
        write_fasta(folder / CHAINS, [f"chain_{n}" for n in range(len(strings))], strings)
        return family_as_data(folder / CHAINS, letters, unknown="error", weights="none", split="rows")
    path = folder / "samples.npz"
    np.savez_compressed(path, x=samples.numpy().reshape(len(samples), *space.shape))
    settings = {"path": str(path), "coding": "codes", "num_categories": space.num_categories}
    return {"class_path": "gwg_dist.data.Arrays", "init_args": settings}


def family_as_data(path: str | Path, letters: str, **more: str) -> dict[str, Any]:
    """The settings of an alignment of these letters."""
    settings = {"path": str(Path(path).resolve()), "alphabet": letters, **more}
    return {"class_path": "gwg_dist.data.Alignment", "init_args": settings}


def are_of_sequences(letters: str) -> bool:
    """Whether files of sequences can hold these letters: capitals and gaps, for small letters are inserts there."""
    return all("A" <= letter <= "Z" or letter == GAP for letter in letters)


def picked_data(data: str, trust: str) -> dict[str, Any]:
    """The settings of the data set that reads a file. Raises InputError where none does."""
    parser = build_parser()
    parser.exit_on_error = False
    config = parsed(parser, [f"--data={data}", f"--trust={trust}"])
    return yaml.safe_load(as_text(parser, config))["data"]


def parsed(parser: Parser, args: list[str]) -> Any:
    """Settings. Raises InputError where they do not fit."""
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise InputError(parser.explain(str(error))) from error


def write_checkpoint(
    folder: Path, identity: dict[str, Any], weights: dict[str, Tensor], packed: Tensor | None, step: int,
    callbacks: dict[str, Any],
) -> None:  # fmt: skip
    """Write best.ckpt with what evaluation reads; training cannot go on from it."""
    chains = {"packed": packed, "betas": [1.0], "generators": torch.empty(0, 0, dtype=torch.uint8)}
    contents = {
        "gwg_dist": identity,
        "state_dict": weights,
        "chains": chains,
        "callbacks": callbacks,
        "global_step": step,
    }
    write_tensors(folder / BEST, contents)
