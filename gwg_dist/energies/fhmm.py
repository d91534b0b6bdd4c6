"""The posterior of a factorial hidden Markov model: binary chains behind one observed series."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gwg_dist.energies.base import Energy, require_binary
from gwg_dist.graph import Graph
from gwg_dist.spaces import Space
from gwg_dist.structure import SparsePairs
from gwg_dist.tools.seeding import make_generator


class FHMMEnergy(Energy):
    """E(x) = -log p(x, y) of K independent binary Markov chains x_t ∈ {0, 1}^K behind a series y_t of N numbers.

    As sampled by Grathwohl et al. (2021, section 6) after Ghahramani and Jordan (1997):

        p(x_1k = 1) = start,     p(x_tk = x_(t-1)k) = stay,     y_t ~ Normal(w^T x_t + offset, sigma²)

    So Z = sum_x exp(-E(x)) is the likelihood p(y). For real x, E is the polynomial that is linear in every site and
    has these values on {0, 1}: x_tk² counts as x_tk, and ∇E tells the change of E by every flip exactly. w, offset,
    start, stay and sigma are parameters; w is drawn from Normal(0, 1). Where no series is given, one is drawn from the
    model itself; ``latent`` then holds the chains behind it.

    Args:
        space: Binary; shape (N, K) with N of 2 or more.
        sigma: standard deviation of the noise.
        start: probability of a 1 at the first time.
        stay: probability that a chain keeps its value from one time to the next.
        offset: mean of y_t where every chain is 0.
        observed: y, N numbers; None draws them.
        seed: seed of w, and of y and its chains.

    Raises:
        ValueError: a space that is not Binary or has another shape, a sigma that is not positive, a probability outside
            (0, 1), another number of observations than N, or ones that are not finite.
    """

    observed: Tensor
    latent: Tensor

    def __init__(
        self,
        space: Space,
        *,
        sigma: float = 0.5,
        start: float = 0.1,
        stay: float = 0.95,
        offset: float = 0.0,
        observed: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space)
        require_binary(type(self), space)
        if len(space.shape) != 2 or space.shape[0] < 2:
            raise ValueError(f"FHMMEnergy needs a space of shape (N, K), N times of 2 or more, got {space.shape}")
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive, got {sigma}")
        for name, value in (("start", start), ("stay", stay)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")
        generator = make_generator(seed, "factorial hidden Markov model")
        self.weight = nn.Parameter(torch.randn(space.shape[1], generator=generator))
        self.offset = nn.Parameter(torch.tensor(float(offset)))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))
        self.start_logit = nn.Parameter(torch.tensor(_logit(start)))
        self.stay_logit = nn.Parameter(torch.tensor(_logit(stay)))
        latent, drawn = self._draw(generator)
        self.register_buffer("latent", latent if observed is None else None, persistent=False)
        self.register_buffer("observed", drawn if observed is None else _checked(observed, space.shape[0]))
        self.graph = Graph(space.num_sites, _edges(*self._sizes))

    def forward(self, x: Tensor) -> Tensor:
        return self._parts(x)[0]

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """No product but w^T x_t: with r_t = y_t - w^T x_t - offset and λ = logit(stay),

            -∂E/∂x_tk = w_k r_t / σ² - w_k² (1/2 - x_tk) / σ² + λ sum over s = t ± 1 of (2 x_sk - 1)

        and logit(start) more at t = 1.
        """
        energy, chains, residual = self._parts(x)
        precision = (-2 * self.log_sigma).exp()
        spins = 2 * chains - 1
        slope = precision * (self.weight * residual[:, :, None] + self.weight.square() * (chains - 0.5))
        slope[:, 1:] += self.stay_logit * spins[:, :-1]
        slope[:, :-1] += self.stay_logit * spins[:, 1:]
        slope[:, 0] += self.start_logit
        return energy, -slope.flatten(1)

    def structure(self) -> SparsePairs:
        """f = constant + slope^T x + x^T R x / 2: R = -w_k w_l / σ² at one time, 2 logit(stay) along a chain.

        Its ``paths`` are the K chains.
        """
        num_times, num_chains = self._sizes
        weight, precision = self.weight.detach(), (-2 * self.log_sigma.detach()).exp()
        start, stay = self.start_logit.detach(), self.stay_logit.detach()
        residual = self.observed - self.offset.detach()
        slope = precision * (weight * residual[:, None] - weight.square() / 2)
        slope[0] += start
        slope[1:] -= stay
        slope[:-1] -= stay
        first, second = torch.triu_indices(num_chains, num_chains, 1, device=weight.device)
        together = (-precision * weight[first] * weight[second]).repeat(num_times)
        along = (2 * stay).expand((num_times - 1) * num_chains)
        at_zero = self(self.observed.new_zeros(1, self.space.num_sites))[0].detach()
        paths = torch.arange(self.space.num_sites, device=weight.device).view(num_times, num_chains).T
        rows = self.graph.rows(torch.cat([along, together]))
        return SparsePairs(self.graph, rows, slope.flatten(), -at_zero.double(), paths)

    @property
    def _sizes(self) -> tuple[int, int]:
        num_times, num_chains = self.space.shape[0], self.space.shape[-1]
        return num_times, num_chains

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E, x as ``(B, N, K)``, and what the chains leave of y, ``(B, N)``."""
        chains = x.unflatten(1, self.space.shape)
        residual = self.observed - self.offset - chains @ self.weight
        squares = residual.square().sum(1) + (chains * (1 - chains)).sum(1) @ self.weight.square()
        emission = squares * (-2 * self.log_sigma).exp() / 2 + len(self.observed) * (
            self.log_sigma + math.log(2 * math.pi) / 2
        )
        before, after = chains[:, :-1], chains[:, 1:]
        kept = (before * after + (1 - before) * (1 - after)).sum((1, 2))
        moves = before[0].numel()
        log = nn.functional.logsigmoid
        prior = self.start_logit * chains[:, 0].sum(1) + chains.shape[2] * log(-self.start_logit)
        prior = prior + self.stay_logit * kept + moves * log(-self.stay_logit)
        return emission - prior, chains, residual

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Chains as codes ``(N, K)`` and a series ``(N,)`` of the model."""
        num_times, num_chains = self._sizes
        uniform = torch.rand(num_times, num_chains, generator=generator)
        chains = torch.zeros(num_times, num_chains, dtype=torch.uint8)
        chains[0] = uniform[0] < self.start_logit.sigmoid()
        for t in range(1, num_times):
            chains[t] = torch.where(uniform[t] < self.stay_logit.sigmoid(), chains[t - 1], 1 - chains[t - 1])
        noise = torch.randn(num_times, generator=generator)
        return chains, chains.float() @ self.weight + self.offset + self.log_sigma.exp() * noise


def _edges(num_times: int, num_chains: int) -> Tensor:
    """A site with the same chain at the next time, then with the other chains at its own, ``(M, 2)``."""
    site = torch.arange(num_times * num_chains).view(num_times, num_chains)
    along = torch.stack([site[:-1].flatten(), site[1:].flatten()], 1)
    first, second = torch.triu_indices(num_chains, num_chains, 1)
    return torch.cat([along, torch.stack([site[:, first].flatten(), site[:, second].flatten()], 1)])


def _checked(observed: Sequence[float], num_times: int) -> Tensor:
    series = torch.tensor([float(y) for y in observed])
    if len(series) != num_times:
        raise ValueError(f"observed must hold {num_times} numbers, one a time, got {len(series)}")
    if not series.isfinite().all():
        raise ValueError(f"observed must be finite, got {float(series[~series.isfinite()][0])}")
    return series


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
