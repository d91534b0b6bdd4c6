"""Markov kernels and the loop that runs them. Needs torch alone."""

from gwg_dist.samplers.adapting import Adapted, adapt_kernel
from gwg_dist.samplers.auxiliary_gradient import AVG
from gwg_dist.samplers.base import Info, Kernel, Sampler, State
from gwg_dist.samplers.block_gibbs import BlockGibbs
from gwg_dist.samplers.clamped import ClampedTarget
from gwg_dist.samplers.cyclical import ACS
from gwg_dist.samplers.enumerated_gibbs import EnumeratedGibbs
from gwg_dist.samplers.gaussian_integral import GaussianIntegralGibbs
from gwg_dist.samplers.gibbs import Gibbs
from gwg_dist.samplers.gwg import GWG
from gwg_dist.samplers.hamming_ball import HammingBall
from gwg_dist.samplers.langevin import DMALA, DULA
from gwg_dist.samplers.metropolis import Metropolis, MetropolisState, Move
from gwg_dist.samplers.multi_gwg import MultiGWG
from gwg_dist.samplers.parallel_tempering import ParallelTempering, tuned_ladder
from gwg_dist.samplers.path_auxiliary import PAS
from gwg_dist.samplers.random_walk import RandomWalk
from gwg_dist.samplers.run import ChainResult, check_backend, plan_chains, run_chain
from gwg_dist.samplers.surrogate import SurrogateGWG
from gwg_dist.target import Evaluation, Target

__all__ = [
    "ACS",
    "AVG",
    "DMALA",
    "DULA",
    "GWG",
    "PAS",
    "Adapted",
    "BlockGibbs",
    "ChainResult",
    "ClampedTarget",
    "EnumeratedGibbs",
    "Evaluation",
    "GaussianIntegralGibbs",
    "Gibbs",
    "HammingBall",
    "Info",
    "Kernel",
    "Metropolis",
    "MetropolisState",
    "Move",
    "MultiGWG",
    "ParallelTempering",
    "RandomWalk",
    "Sampler",
    "State",
    "SurrogateGWG",
    "Target",
    "adapt_kernel",
    "check_backend",
    "plan_chains",
    "run_chain",
    "tuned_ladder",
]
