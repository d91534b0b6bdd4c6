"""Intervals of log Z that cover as often as they say, from the weights of annealed chains.

The spread of the weights in a sample is itself too small where few of them carry the mean, and log of a mean leans to
the low side. So the variance of the weights is taken from their logarithms as well, and the interval leans upwards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CONFIDENCE, STANDARD_ERRORS = 0.95, 1.96
MOST_WIDENED, UNMET = 3.0, 3.0
LOW_ESS_FRACTION, LOW_ESS = 0.05, 5.0


class Interval(NamedTuple):
    """Between which values log Z lies with a probability of 95 %, nats."""

    low: float
    high: float

    def turned(self) -> Interval:
        """The interval of minus the number."""
        return Interval(-self.high, -self.low)


def weights_collapsed(ess: float, num: int) -> bool:
    """Whether so few of ``num`` weights carry their mean that nothing bounds log Z from above."""
    return not ess >= max(LOW_ESS_FRACTION * num, LOW_ESS)


def weight_variance(log_weights: Tensor) -> float:
    """Var(w) / mean(w)^2 of log weights ``(N,)``.

    Two estimates, of which the larger is taken. One is the variance of the sample. The other is exp(s^2) - 1 with
    s^2 = 2 (log mean w - mean log w), nats: for weights that are log-normal, as those of many small steps tend to be
    (Neal, 2001), s^2 is the variance of log w, and half of it the dissipated work (Jarzynski, 1997). It sees the large
    weights that a sample has not met yet. Where some chains are stuck far below it sees too much, so it counts no more
    than 3 times the first.
    """
    log_weights = log_weights.double()
    log_mean = torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
    of_sample = float((log_weights - log_mean).exp().var())
    of_log = float(torch.expm1(2 * (log_mean - log_weights.mean())))
    return max(of_sample, min(of_log, MOST_WIDENED * of_sample))


def interval_of_log_mean(log_mean: float, variance: float, num: int) -> Interval:
    """Where the log of an expectation lies, given the log of a mean of ``num`` positive numbers.

    A mean of log-normal numbers is nearly log-normal itself (Fenton, 1960): with v the relative variance of one number,
    tau^2 = log(1 + v / N), and log mean ~ N(log of the expectation - tau^2 / 2, tau^2). The quantile is that of
    Student's t with N - 1 degrees of freedom.

    Args:
        log_mean: the log of the mean, nats.
        variance: v, the variance of one number over the square of the expectation.
        num: N.
    """
    from scipy.special import stdtrit

    square = math.log1p(variance / num)
    reach = float(stdtrit(num - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(square)
    return Interval(log_mean + square / 2 - reach, log_mean + square / 2 + reach)


def interval_of_weights(log_weights: Tensor, chains: Tensor | None = None) -> Interval:
    """The interval of log E[w] for log weights ``(N,)``: that of ``interval_of_log_mean``, longer above.

    What none of N chains has met may have a probability of 3 / N (the rule of three: exp(-3) = .05). With weights as
    large as the largest that was met, which has a share of s, the expectation is (1 - 3 / N) mean + 3 / N N s mean, and
    the upper end is higher by log(1 + 3 (s - 1 / N)).

    Where the weights have collapsed there is no upper end, and the lower one is log mean w - log 20: by Markov's
    inequality the mean exceeds 20 times the expectation with a probability of 5 % at the most, whatever the weights.

    Args:
        log_weights: of all that is independent, ``(N,)`` nats.
        chains: of the chains that these are means of, whose largest one counts; None where they are chains.
    """
    log_weights = log_weights.double()
    num = len(log_weights)
    log_mean = float(torch.logsumexp(log_weights, 0)) - math.log(num)
    shares = torch.softmax(log_weights, 0)
    if weights_collapsed(1 / float(shares.square().sum()), num):
        return Interval(log_mean + math.log(1 - CONFIDENCE), math.inf)
    low, high = interval_of_log_mean(log_mean, weight_variance(log_weights), num)
    met = shares if chains is None else torch.softmax(chains.double(), 0)
    return Interval(low, high + math.log1p(UNMET * (float(met.max()) - 1 / len(met))))


def standard_error(log_mean: float, interval: Interval) -> float:
    """The e for which log_mean ± 1.96 e reaches to the farther end of the interval, nats."""
    return max(interval.high - log_mean, log_mean - interval.low) / STANDARD_ERRORS
