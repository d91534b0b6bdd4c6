"""Deep energy-based models on discrete data, trained and measured with Gibbs-With-Gradients.

The package is built in floors. Imports point down only, parts of one floor do not know each other, and this table is
what ``tests/house/test_architecture.py`` reads:

    __main__                                                    the table of verbs
    couplings, score, complete, classify, export, import, report        verbs that ask a run
    fit, evaluate, sample, compare, tune, bench, launch, doctor, runs    the other verbs, and runs from Python
    training                                                    a run on disk and on machines
    callbacks                                                   what happens around an iteration
    module, testing                                             the method on one page; checks for parts of your own
    iteration
    chains, objectives, evaluation, data, pictures, updates     what a training run is made of
    energies, samplers                                          models and kernels
    target                                                      p_beta as a kernel sees it
    structure, reference                                        what an energy knows of itself; where annealing starts
    spaces                                                      the only place that knows binary from categorical
    draws, batch, graph
    tools                                                       what every part may use

Lightning is imported from ``module`` up and in ``data``; Ray in ``tune`` alone; samplers and energies need torch alone.

One sign convention everywhere: an energy returns E(x), low where x is probable, and
p(x) = ref(x) exp(-E(x)) / Z. ``gwg_dist.target`` flips it to f(x) = -E(x); a structure speaks of f from the start.
"""

import os

# MCMC steps of small models are many short parallel regions. Where another process wants the same cores, OpenMP threads
# that spin while they wait make such a step several times slower; threads that sleep cost nothing measurable. Read by
# OpenMP when torch is imported; a setting of the user's own wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
