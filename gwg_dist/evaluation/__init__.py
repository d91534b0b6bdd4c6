"""Plain functions of a target: annealed importance sampling, exact enumeration, likelihoods; how well chains mix."""

from gwg_dist.evaluation.ais import AISResult, ais, ais_result, ais_start, check_num_chains, summarize
from gwg_dist.evaluation.annealing import AnnealPoint, anneal
from gwg_dist.evaluation.assess import AISSettings, Assessment, assess, assessment_of, collapse_warning, describe
from gwg_dist.evaluation.bennett import Bennett, bennett
from gwg_dist.evaluation.completion import ChainSettings, Completion, complete
from gwg_dist.evaluation.contacts import (
    PairModel,
    Precision,
    average_product_correction,
    contact_precision,
    contact_scores,
    frobenius,
    mean_field_couplings,
    pair_model,
    ranked_pairs,
    zero_sum,
)
from gwg_dist.evaluation.distances import category_frequencies, marginal_rmse, mmd_squared
from gwg_dist.evaluation.error_bars import Interval, interval_of_weights
from gwg_dist.evaluation.exact import exact_log_prob, exact_log_z, unnormalised_log_prob
from gwg_dist.evaluation.hidden import hidden_log_z, hidden_seconds, num_hidden_units
from gwg_dist.evaluation.information import coupling_bound
from gwg_dist.evaluation.labels import label_probs
from gwg_dist.evaluation.likelihood import Likelihood, log_likelihood
from gwg_dist.evaluation.links import (
    Ladder,
    Link,
    Trace,
    bootstrap_error,
    bootstrap_mean_error,
    ladder_of,
    links_of,
    rungs_of,
    weighted_means,
)
from gwg_dist.evaluation.mbar import MBARResult, mbar
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
from gwg_dist.evaluation.raise_ import RAISEResult, raise_log_likelihood
from gwg_dist.evaluation.reverse import ReverseResult, reverse_ais, reverse_result, reverse_start
from gwg_dist.evaluation.schedules import beta_schedule
from gwg_dist.evaluation.scores import PointScores, score_points, single_site_changes
from gwg_dist.evaluation.sides import Route, Settled, Sides, settled, sides_of
from gwg_dist.evaluation.smc import resampler, smc
from gwg_dist.evaluation.statistics import (
    Agreement,
    PairStatistics,
    agreement,
    pair_statistics,
    pearson_of_pairs,
    three_site_moments,
    triple_sites,
)
from gwg_dist.evaluation.thermodynamic import Integral, thermodynamic_integral
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.evaluation.unfinished import Unfinished, set_aside, take_up
from gwg_dist.evaluation.verdict import Standing, judge

__all__ = [
    "AISResult",
    "AISSettings",
    "Agreement",
    "AnnealPoint",
    "Assessment",
    "Bennett",
    "ChainSettings",
    "Completion",
    "Estimate",
    "Integral",
    "Interval",
    "Ladder",
    "Likelihood",
    "Link",
    "MBARResult",
    "PairModel",
    "PairStatistics",
    "PointScores",
    "Precision",
    "RAISEResult",
    "ReverseResult",
    "Route",
    "Settled",
    "Sides",
    "Standing",
    "Trace",
    "TunedPath",
    "Unfinished",
    "agreement",
    "ais",
    "ais_result",
    "ais_start",
    "anneal",
    "assess",
    "assessment_of",
    "autocorrelation",
    "average_product_correction",
    "batch_means_ess",
    "batch_means_time",
    "bennett",
    "beta_schedule",
    "bootstrap_error",
    "bootstrap_mean_error",
    "category_frequencies",
    "check_num_chains",
    "collapse_warning",
    "complete",
    "contact_precision",
    "contact_scores",
    "coupling_bound",
    "describe",
    "ess",
    "exact_log_prob",
    "exact_log_z",
    "frobenius",
    "hidden_log_z",
    "hidden_seconds",
    "integrated_time",
    "interval_of_weights",
    "judge",
    "label_probs",
    "ladder_of",
    "links_of",
    "log_likelihood",
    "marginal_rmse",
    "mbar",
    "mean_field_couplings",
    "mmd_squared",
    "num_hidden_units",
    "pair_model",
    "pair_statistics",
    "pearson_of_pairs",
    "pilot_path",
    "raise_log_likelihood",
    "ranked_pairs",
    "resampler",
    "reverse_ais",
    "reverse_result",
    "reverse_start",
    "rungs_of",
    "score_points",
    "set_aside",
    "settled",
    "sides_of",
    "single_site_changes",
    "smc",
    "split_rhat",
    "summarize",
    "take_up",
    "thermodynamic_integral",
    "three_site_moments",
    "time_estimate",
    "triple_sites",
    "unnormalised_log_prob",
    "weighted_means",
    "zero_sum",
]
