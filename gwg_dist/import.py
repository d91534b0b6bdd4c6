"""Import a model: one that gwg_dist has exported, or a params.dat of adabmDCA.

python -m gwg_dist.import model.safetensors --run_dir runs/theirs
python -m gwg_dist.import params.dat.gz --chains chains.fasta --data family.fasta
"""

from __future__ import annotations

from pathlib import Path

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.streams import quick_end


def import_model(
    file: str,
    *,
    run_dir: str | None = None,
    chains: str | None = None,
    data: str | None = None,
    alphabet: str | None = None,
    seed: int = 0,
    trust: str = "",
) -> Path:
    """Make a run's folder of a model file, for gwg_dist sample, score, complete and evaluate.

    An exported run comes with its settings and samples; its data are those it had, where they are on this machine. A
    params.dat becomes a PottsEnergy with the uniform reference. Where no data are given, samples stand for them.

    Args:
        file: a .safetensors or .npz of gwg_dist export, or a params.dat or params.dat.gz.
        run_dir: folder to make; runs/NAME-imported by default. Nothing is overwritten.
        chains: FASTA with equilibrium samples of a params.dat; the chains.fasta beside it by default, else chains run.
        data: file of data whose likelihoods are asked for, as gwg_dist fit takes one.
        alphabet: of a params.dat: "protein", "rna", "dna" or the letters in their order; found out by default.
        seed: seed of the chains.
        trust: modules outside gwg_dist whose classes the settings may name, with commas between; "*" for all.
    """
    with quick_end():
        from gwg_dist.training.importing import import_run

    return import_run(file, run_dir, chains, data, alphabet, seed, trust)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(import_model, args, prog="python -m gwg_dist.import", description=__doc__)


vars()["import"] = import_model  # by the verb's name, a word that cannot be written

if __name__ == "__main__":
    main()
