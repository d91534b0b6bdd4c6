"""Plain functions of a target: annealed importance sampling, exact enumeration, likelihoods; how well chains mix."""

from gwg_dist.evaluation.ais import AISResult, ais, ais_result, ais_start, beta_schedule, check_num_chains, summarize
from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.assess import AISSettings, Assessment, assess, assessment_of, collapse_warning, describe
from gwg_dist.evaluation.distances import category_frequencies, marginal_rmse, mmd_squared
from gwg_dist.evaluation.exact import exact_log_prob, exact_log_z, unnormalised_log_prob
from gwg_dist.evaluation.likelihood import Likelihood, log_likelihood
from gwg_dist.evaluation.mixing import (
    Estimate,
    autocorrelation,
    batch_means_ess,
    batch_means_time,
    ess,
    integrated_time,
    split_rhat,
    time_estimate,
)
from gwg_dist.evaluation.pilot import pilot_path
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.evaluation.unfinished import Unfinished, set_aside, take_up

__all__ = [
    "AISResult",
    "AISSettings",
    "AnnealPoint",
    "Assessment",
    "Estimate",
    "Likelihood",
    "TunedPath",
    "Unfinished",
    "ais",
    "ais_result",
    "ais_start",
    "anneal",
    "assess",
    "assessment_of",
    "autocorrelation",
    "batch_means_ess",
    "batch_means_time",
    "beta_schedule",
    "category_frequencies",
    "check_num_chains",
    "collapse_warning",
    "describe",
    "ess",
    "exact_log_prob",
    "exact_log_z",
    "integrated_time",
    "log_likelihood",
    "marginal_rmse",
    "mmd_squared",
    "pilot_path",
    "set_aside",
    "split_rhat",
    "summarize",
    "take_up",
    "time_estimate",
    "unnormalised_log_prob",
]
