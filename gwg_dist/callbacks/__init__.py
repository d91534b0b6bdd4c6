"""Lightning callbacks: likelihoods, the divergence guard, adaptation of the kernel, the pace, progress, pictures.

Also diagnostics of chains, as metrics that all ranks add to.
"""

from gwg_dist.callbacks.adaptation import Adaptation, adapt
from gwg_dist.callbacks.averaging import AveragedWeights
from gwg_dist.callbacks.diagnostics import (
    BatchMeansSampleSize,
    EffectiveSampleSize,
    HammingMMD,
    IntegratedTime,
    MarginalRMSE,
    SplitRhat,
)
from gwg_dist.callbacks.estimates import (
    LEAST_CHAINS,
    Keep,
    Underway,
    annealed,
    assess_module,
    forward_of,
    held_out,
    in_eval_mode,
    reverse_of,
    settled_of,
    some_chains,
    tell_of_no_pilot,
)
from gwg_dist.callbacks.guard import DivergenceGuard
from gwg_dist.callbacks.kernel import KernelChange, kernel_of
from gwg_dist.callbacks.likelihood import AISLikelihood
from gwg_dist.callbacks.metrics import TrainingMetrics
from gwg_dist.callbacks.pace import Pace
from gwg_dist.callbacks.progress import TrainingProgress, progress_of
from gwg_dist.callbacks.regularisation import Regularisation
from gwg_dist.callbacks.stopping import Stop
from gwg_dist.callbacks.symptoms import Symptom, Symptoms
from gwg_dist.callbacks.watch import CouplingError, SamplePictures

__all__ = [
    "LEAST_CHAINS",
    "AISLikelihood",
    "Adaptation",
    "AveragedWeights",
    "BatchMeansSampleSize",
    "CouplingError",
    "DivergenceGuard",
    "EffectiveSampleSize",
    "HammingMMD",
    "IntegratedTime",
    "Keep",
    "KernelChange",
    "MarginalRMSE",
    "Pace",
    "Regularisation",
    "SamplePictures",
    "SplitRhat",
    "Stop",
    "Symptom",
    "Symptoms",
    "TrainingMetrics",
    "TrainingProgress",
    "Underway",
    "adapt",
    "annealed",
    "assess_module",
    "forward_of",
    "held_out",
    "in_eval_mode",
    "kernel_of",
    "progress_of",
    "reverse_of",
    "settled_of",
    "some_chains",
    "tell_of_no_pilot",
]
