"""Independent random streams by name.

Every use of randomness has its own generator, made from (seed, purpose, *index). The index holds the rank for what
must differ between ranks, an iteration or an epoch for what must be the same however often a run was interrupted.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed: the first bytes of SHA-256 over the name of the stream."""
    name = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, purpose: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of the stream (seed, purpose, *index).

    CUDA takes all 63 bits of the seed. torch's generator on CPUs takes the lowest 32: of n streams, two are the same
    with probability n^2 / 2^33.
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, *index))
