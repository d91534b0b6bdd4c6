"""Deep energy-based models on discrete data, trained and measured with Gibbs-With-Gradients.

The package is built in floors; imports point down only (``tests/test_architecture.py`` walks them):

    fit, evaluate, sample, bench,           command lines
    tune, launch, doctor
    module, callbacks, strategy             Lightning
    testing                                 checks for kernels and energies of your own
    chains, objectives, evaluation, data    what a training run is made of
    energies, samplers                      models and kernels; they never import each other
    target                                  p_beta as a kernel sees it
    structure, reference                    what an energy knows of itself; where annealing starts
    spaces, draws, batch, updates           torch only
    tools                                   errors, random streams, ranks, configs by name

One sign convention everywhere: an energy returns E(x), low where x is probable, and
p(x) = ref(x) exp(-E(x)) / Z. ``gwg_dist.target`` flips it to f(x) = -E(x); a structure speaks of f from the start.
"""

import os

# MCMC steps of small models are many short parallel regions. Where another process wants the same cores, OpenMP threads
# that spin while they wait make such a step several times slower; threads that sleep cost nothing measurable. Read by
# OpenMP when torch is imported; a setting of the user's own wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
