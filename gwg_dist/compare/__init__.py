"""Compare kernels on one target: effective samples a step, a gradient and a second.

python -m gwg_dist.compare --config bernoulli                   a shipped comparison, by name
python -m gwg_dist.compare --config ising40_below --quick       a minute instead of several
python -m gwg_dist.compare --config run --problem.run RUN          the model of a run
python -m gwg_dist.compare --config bernoulli --out FOLDER      go on with FOLDER where it was stopped

Every kernel is tuned in a warm-up and then frozen. FOLDER gets table.txt, results.json and pictures; units/ holds what
each kernel did with each seed.
"""

from gwg_dist.compare.cli import main

__all__ = ["main"]
