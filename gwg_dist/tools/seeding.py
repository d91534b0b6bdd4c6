"""Independent random streams by name.

Every use of randomness has its own generator, made from (seed, purpose, *index). The index holds the rank for what
must differ between ranks, an iteration or an epoch for what must be the same however often a run was interrupted.
"""

from __future__ import annotations

import hashlib

import torch

STREAMS = 2
"""The version of these streams, in checkpoints. Version 1 (before November 2026) took 32 bits of a name on CPUs."""

# torch's state of a CPU generator: the 624 words of the Mersenne Twister, each in 8 bytes, from byte 24 on.
FIRST_WORD, NUM_WORDS = 24, 624


def stream_name(seed: int, purpose: str, *index: int) -> bytes:
    """The name that is hashed."""
    return "/".join([str(seed), purpose, *map(str, index)]).encode()


def stream_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed: the first bytes of SHA-256 over the name of the stream."""
    return int.from_bytes(hashlib.sha256(stream_name(seed, purpose, *index)).digest()[:8], "big") >> 1


def make_generator(seed: int, purpose: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of the stream (seed, purpose, *index).

    CUDA takes all 63 bits of ``stream_seed``. torch's generator on CPUs takes 32 bits of a seed, so that of n streams
    two would be the same with probability n^2 / 2^33; there the name, by SHAKE-256, fills the whole state.
    """
    generator = torch.Generator(device).manual_seed(stream_seed(seed, purpose, *index))
    if generator.device.type == "cpu":
        digest = bytearray(hashlib.shake_256(stream_name(seed, purpose, *index)).digest(4 * NUM_WORDS))
        words = torch.frombuffer(digest, dtype=torch.uint32).long()
        state = generator.get_state()
        state[FIRST_WORD : FIRST_WORD + 8 * NUM_WORDS] = words.view(torch.uint8)
        generator.set_state(state)
    return generator


def fixed_generator(purpose: str) -> torch.Generator:
    """The generator of what must never change with a version or a run's seed: a data set's splits and draws.

    Data sets have a handful of such streams, so the 32 bits that torch takes of a seed tell them apart.
    """
    return torch.Generator().manual_seed(stream_seed(0, purpose))
