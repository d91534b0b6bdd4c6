"""The factorised reference distribution: where annealing starts and what the energy corrects.

ref(x) = prod_i p_i(x_i) with p_i = (1 - s) * (frequency of the category at site i) + s / K_i. For binary data the
smoothing s is twice the ε of Grathwohl et al. (2021): p = mean * (1 - 2ε) + ε, so their ε = 0.01 is s = 0.02.
Frozen during training. Not implemented: a learned reference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gwg_dist.spaces import Space


class Reference(nn.Module):
    """Product of per-site Bernoulli or categorical distributions; uniform until ``fit`` is called.

    Args:
        space: where x lives.
        smoothing: s in (0, 1], the weight of the uniform distribution.

    Raises:
        ValueError: smoothing outside (0, 1].
    """

    weights: Tensor
    constant: Tensor
    probs: Tensor

    def __init__(self, space: Space, *, smoothing: float = 0.02) -> None:
        super().__init__()
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must lie in (0, 1], got {smoothing}")
        self.space = space
        self.smoothing = smoothing
        uniform = space.uniform_probabilities()
        weights, constant = space.linear_form(uniform.log())
        self.register_buffer("probs", uniform)
        self.register_buffer("weights", weights.float())
        self.register_buffer("constant", constant.float())

    def fit(self, frequencies: Tensor) -> Reference:
        """Set the sites' distributions from category frequencies ``(D, K)`` that sum to one at each site.

        Raises:
            ValueError: another shape, negative entries, rows that do not sum to one, categories that a site has not.
        """
        expected = (self.space.num_sites, self.space.num_categories)
        if tuple(frequencies.shape) != expected:
            raise ValueError(f"frequencies must have shape {expected}, got {tuple(frequencies.shape)}")
        frequencies = frequencies.double()
        if frequencies.min() < 0 or (frequencies.sum(1) - 1).abs().max() > 1e-4:
            raise ValueError("frequencies must be non-negative and sum to one at each site")
        if self.space.without_padding(frequencies, 0.0).ne(frequencies).any():
            raise ValueError("frequencies must be zero where a site has no such category")
        sizes = torch.tensor(self.space.sizes, dtype=torch.float64, device=frequencies.device)
        probs = (1 - self.smoothing) * frequencies + (self.smoothing / sizes)[:, None]
        probs = self.space.without_padding(probs, 0.0)
        probs = probs / probs.sum(1, keepdim=True)
        weights, constant = self.space.linear_form(probs.log())
        self.probs.copy_(probs)
        self.weights.copy_(weights)
        self.constant.copy_(constant)
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        """log ref(x), normalised, ``(B,)`` nats."""
        return self.constant + (x * self.weights).flatten(1).sum(1)

    def sample(self, num: int, *, generator: torch.Generator) -> Tensor:
        """``num`` independent draws as codes, ``(num, D)``, on the generator's device."""
        return self.sample_sites(num, 0, self.space.num_sites, generator=generator)

    def sample_sites(self, num: int, first: int, end: int, *, generator: torch.Generator) -> Tensor:
        """The sites from ``first`` to before ``end`` of ``num`` independent draws, codes ``(num, sites)``.

        The random numbers are taken site by site, so on a CPU calls for one range of sites after the other draw what
        ``sample`` does.
        """
        probs = self.probs[first:end].to(generator.device)
        uniform = torch.rand(len(probs), num, generator=generator, device=generator.device, dtype=probs.dtype)
        codes = torch.searchsorted(probs.cumsum(1), uniform, right=True)
        last = torch.tensor(self.space.sizes[first:end], device=probs.device)[:, None] - 1
        return codes.minimum(last).to(self.space.code_dtype).T.contiguous()
