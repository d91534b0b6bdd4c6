"""Plain functions of a target: annealed importance sampling, exact enumeration, likelihoods."""

from gwg_dist.evaluation.ais import AISResult, ais, ais_result, ais_start, beta_schedule, check_num_chains, summarize
from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.assess import AISSettings, Assessment, assess, assessment_of, collapse_warning, describe
from gwg_dist.evaluation.exact import exact_log_prob, exact_log_z, unnormalised_log_prob
from gwg_dist.evaluation.likelihood import Likelihood, log_likelihood
from gwg_dist.evaluation.unfinished import Unfinished, set_aside, take_up

__all__ = [
    "AISResult",
    "AISSettings",
    "AnnealPoint",
    "Assessment",
    "Likelihood",
    "Unfinished",
    "ais",
    "ais_result",
    "ais_start",
    "anneal",
    "assess",
    "assessment_of",
    "beta_schedule",
    "check_num_chains",
    "collapse_warning",
    "describe",
    "exact_log_prob",
    "exact_log_z",
    "log_likelihood",
    "set_aside",
    "summarize",
    "take_up",
    "unnormalised_log_prob",
]
