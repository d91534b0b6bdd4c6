"""Lightning callbacks: likelihoods, the divergence guard, progress, pictures."""

from gwg_dist.callbacks.averaging import AveragedWeights
from gwg_dist.callbacks.guard import DivergenceGuard
from gwg_dist.callbacks.interruption import Interruption
from gwg_dist.callbacks.likelihood import (
    AISLikelihood,
    AISSettings,
    Report,
    averaged_weights,
    collapse_warning,
    evaluate_module,
)  # fmt: skip
from gwg_dist.callbacks.progress import TrainingProgress, console, make_progress, progress_of, track
from gwg_dist.callbacks.watch import CouplingError, SamplePictures

__all__ = [
    "AISLikelihood", "AISSettings", "AveragedWeights", "CouplingError", "DivergenceGuard",
    "Interruption", "Report", "SamplePictures",
    "TrainingProgress", "averaged_weights", "collapse_warning", "console",
    "evaluate_module", "make_progress", "progress_of", "track",
]  # fmt: skip
