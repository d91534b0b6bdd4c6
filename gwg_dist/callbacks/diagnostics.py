"""Diagnostics of chains as torchmetrics: every rank adds its own chains, the answer is that of all of them together."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from gwg_dist.evaluation.distances import category_frequencies, marginal_rmse, mmd_squared
from gwg_dist.evaluation.mixing import batch_means_ess, checked, ess, integrated_time, split_rhat


class ChainDiagnostic(Metric):
    """A number made from one observable along chains of one length. Each update adds chains."""

    full_state_update = False
    traces: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("traces", default=[], dist_reduce_fx="cat")

    def update(self, values: Tensor) -> None:
        """Add the chains of an observable ``(T, B)``, T times of B chains. Raises ValueError for another shape."""
        self.traces.append(checked(values).T.contiguous().to(self.device))

    def compute(self) -> Tensor:
        """The diagnostic of all chains on all ranks, 0-d float64; NaN where it is not measured."""
        rows = torch.cat(self.traces) if isinstance(self.traces, list) else self.traces
        return torch.tensor(self.of(rows.T), dtype=torch.float64)

    @staticmethod
    @abstractmethod
    def of(values: Tensor) -> float:
        """The number for an observable ``(T, B)``."""


class EffectiveSampleSize(ChainDiagnostic):
    """Effective number of independent draws, by Geyer's initial monotone sequence; see ``evaluation.mixing.ess``."""

    higher_is_better = True

    @staticmethod
    def of(values: Tensor) -> float:
        return ess(values)


class BatchMeansSampleSize(ChainDiagnostic):
    """Effective number of independent draws, by batch means; see ``evaluation.mixing.batch_means_ess``."""

    higher_is_better = True

    @staticmethod
    def of(values: Tensor) -> float:
        return batch_means_ess(values)


class IntegratedTime(ChainDiagnostic):
    """Integrated autocorrelation time in units of the time between two values; see ``evaluation.mixing``."""

    higher_is_better = False

    @staticmethod
    def of(values: Tensor) -> float:
        return integrated_time(values)


class SplitRhat(ChainDiagnostic):
    """Split R-hat, 1 where the halves of all chains agree; see ``evaluation.mixing.split_rhat``."""

    higher_is_better = False

    @staticmethod
    def of(values: Tensor) -> float:
        return split_rhat(values)


class HammingMMD(Metric):
    """Squared maximum mean discrepancy to fixed samples, with k = exp(-h / (scale D)); see ``mmd_squared``.

    Args:
        exact: codes of independent draws ``(M, D)``.
        num_categories: K.
        scale: length of the kernel, as a share of the sites.
    """

    full_state_update = False
    higher_is_better = False
    codes: list[Tensor]
    exact: Tensor

    def __init__(self, exact: Tensor, *, num_categories: int, scale: float = 1.0) -> None:
        super().__init__()
        self.num_categories, self.scale = num_categories, scale
        self.register_buffer("exact", exact)
        self.add_state("codes", default=[], dist_reduce_fx="cat")

    def update(self, codes: Tensor) -> None:
        """Add samples, codes ``(N, D)``."""
        self.codes.append(codes)

    def compute(self) -> Tensor:
        """MMD^2 of the samples of all ranks, 0-d float64; unbiased, so it may lie below 0."""
        codes = torch.cat(self.codes) if isinstance(self.codes, list) else self.codes
        value = mmd_squared(codes, self.exact, num_categories=self.num_categories, scale=self.scale)
        return torch.tensor(value, dtype=torch.float64)


class MarginalRMSE(Metric):
    """Root mean squared error of the marginals of samples.

    Args:
        exact: the true marginals ``(D, K)``.
    """

    full_state_update = False
    higher_is_better = False
    counts: Tensor
    num: Tensor
    exact: Tensor

    def __init__(self, exact: Tensor) -> None:
        super().__init__()
        self.register_buffer("exact", exact.double())
        self.add_state("counts", default=torch.zeros(exact.shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Add samples, codes ``(N, D)``."""
        self.counts += len(codes) * category_frequencies(codes, self.exact.shape[1])
        self.num += len(codes)

    def compute(self) -> Tensor:
        """The error over sites and categories, 0-d float64."""
        return torch.tensor(marginal_rmse(self.counts / self.num, self.exact), dtype=torch.float64)
