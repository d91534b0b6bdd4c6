"""The likelihood between two annealed estimates: training itself anneals the chains, one update at a time.

Carbone, Hua, Coste and Vanden-Eijnden, "Efficient training of energy-based models using Jarzynski equality" (2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gwg_dist.batch import weighted_mean
from gwg_dist.callbacks.estimates import in_eval_mode
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import gather_rows, rank, share, world_size

MOST_CHAINS = 1000  # of all ranks, and validation points, that a value is of
BELIEVED = 0.05  # of the chains that carry the estimate, below which it is not told
LEAST_SHARE = 0.1  # of the chains that carry the estimate, below which it begins anew at an annealed one


class Online:
    """log Z from the weights of the persistent chains, which are carried over from iteration to iteration.

    A chain x drawn from the reference has the number b = 0. An iteration that moves it from x to y on the energy E_t,
    by a kernel that leaves p_t invariant, adds E_t(y) - E_t(x). In any iteration, and for any energy E,

        Z = mean over chains of exp(b - E(x))

    in expectation, for updates of the weights that are given: the works of all iterations are in it, however far the
    chains lag behind the model (Jarzynski, Physical Review Letters 78, 1997; Neal, 2001). It is low on average in the
    logarithm, and the more so the fewer chains carry the mean. An annealed estimate moves all b by one number, so that
    log Z is that one; where fewer than a tenth of the chains carry the mean, b begins anew, as if the chains were of
    the model at that moment. Updates are not given, but made of these very chains, whose energies they raise more than
    those of others, so that log Z comes out lower still. Every method is called on all ranks.
    """

    def __init__(self) -> None:
        self.b: Tensor | None = None  # of this rank's chains, float64 nats; None where it is not known
        self._loaded: Tensor | None = None

    def begin(self, module: EBMModule) -> None:
        """Chains are there: those of the reference have b = 0, those of a checkpoint what it says."""
        loaded, self._loaded = self._loaded, None
        num = self._num(module)
        if loaded is not None:
            self.b = loaded[share(len(loaded), rank(), world_size())].to(module.device)
        elif module.global_step == 0 and module.chains.of_reference:
            self.b = torch.zeros(num, dtype=torch.float64, device=module.device)

    def moved(self, module: EBMModule) -> None:
        """Take the move of an iteration's chains, before the weights are updated: one evaluation of E on them."""
        start = module.chains.last_start
        if self.b is None or start is None or module.chain_energies is None:
            return
        work = module.chain_energies.double() - module.energy_of(module.target.encode(start.codes)).double()
        b = self.b[start.rows]
        if start.fresh is not None:
            b = torch.where(start.fresh.flatten(), 0.0, b)
        self.b[start.rows] = b + work

    def forget(self) -> None:
        """The chains are others: nothing is known until an annealed estimate."""
        self.b = None

    def log_z(self, module: EBMModule) -> tuple[float, float] | None:
        """log Z of the module's present weights in nats, and the share of the chains that carry it; None: not known."""
        if self.b is None:
            return None
        logs = gather_rows(self.b[: self._most()] - self._energies(module, self._most()))
        weights = torch.softmax(logs, 0)
        return float(logs.logsumexp(0)) - math.log(len(logs)), 1 / float(weights.square().sum()) / len(logs)

    def anchor(self, module: EBMModule, log_z: float, found: tuple[float, float] | None) -> None:
        """Agree with an annealed estimate of the averaged weights.

        Args:
            module: module that holds the trained weights.
            log_z: the estimate, nats.
            found: what ``log_z`` said of the averaged weights; None where it was not known.
        """
        if found is not None and self.b is not None and found[1] >= LEAST_SHARE:
            self.b = self.b + (log_z - found[0])
            return
        energies = self._energies(module, self._num(module))  # as if the chains were of the trained weights
        with module.evaluated_weights():
            logs = gather_rows((energies - self._energies(module, self._num(module)))[: self._most()])
        self.b = energies + (log_z - float(logs.logsumexp(0)) + math.log(len(logs)))

    def metrics(self, module: EBMModule) -> dict[str, float]:
        """For loggers: val/online, nats, by the averaged weights, and ais/online_share, see ``log_z``.

        The first is left out where less than a twentieth of the chains carry it.
        """
        points, weights = module.data.splits.parts["validation"]
        if self.b is None or not len(points):
            return {}
        with module.evaluated_weights(), in_eval_mode(module):
            found = self.log_z(module)
            values = unnormalised_log_prob(module.target, points[:MOST_CHAINS].to(module.device))
        assert found is not None
        mean = weighted_mean(values, None if weights is None else weights[:MOST_CHAINS])
        told = {"val/online": float(mean) - found[0]} if found[1] >= BELIEVED else {}
        return told | {"ais/online_share": found[1]}

    def state(self) -> Tensor | None:
        """b of all ranks, on the CPU."""
        return None if self.b is None else gather_rows(self.b).cpu()

    def load(self, state: Tensor | None) -> None:
        """Go on from what ``state`` returned, once there are chains."""
        self._loaded = state

    def _energies(self, module: EBMModule, num: int) -> Tensor:
        """E of the first ``num`` chains of this rank on the present weights, float64."""
        codes = module.chains.first_codes(num)
        assert codes is not None
        return module.energy_of(module.target.encode(codes)).double()

    def _most(self) -> int:
        return -(-MOST_CHAINS // world_size())

    def _num(self, module: EBMModule) -> int:
        """Chains of this rank."""
        codes = module.chains.first_codes(2**62)
        return 0 if codes is None else len(codes)
