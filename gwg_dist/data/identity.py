"""How alike sequences are: how many are near each, and which hang together.

The identity of two sequences is the share of the sites at which they have the same category, a gap being one. All pairs
are compared: sites are packed as bits, so that one operation compares 64 of them. The sites that vary most come first,
and a pair that differs at too many of those is left.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gwg_dist.tools.cache import cache_folder, is_private, keeping
from gwg_dist.tools.terminal import make_progress, track

WORD = 64  # sites that are compared at once
BLOCK = 2**14  # sequences a row is compared with; their bits stay in a core's cache
MAX_LINKS = 2**18  # that are held before it is looked which of them hang together
SPARSE = 4  # where more than one in so many is a candidate, all are compared at all sites
MAX_PAIRS = 2**16  # candidates that are looked at together
MANY = 5_000  # sequences whose comparison is worth a file


@dataclass(frozen=True, eq=False)
class Alike:
    """What all pairs of ``N`` sequences say.

    Args:
        counts: how many sequences are near each, itself among them, ``(N,)`` int64.
        clusters: the number of the cluster of each, ``(N,)`` int64 from 0 in the order of first members. Two sequences
            of different clusters are less alike than the identity asked for.
    """

    counts: np.ndarray
    clusters: np.ndarray


def compare(codes: np.ndarray, *, near: float | None, linked: float | None, keep: bool = True) -> Alike:
    """Count the sequences near each, and cluster them by single linkage; a bar shows how many pairs are compared.

    Args:
        codes: categories below 256, ``(N, L)``.
        near: identity from which on a sequence counts as near, in (0, 1]; None counts each one alone.
        linked: identity from which on two belong to one cluster, in (0, 1]; None makes each its own.
        keep: whether the result for many sequences is kept on this machine, by the content of ``codes``.
    """
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    near_limit, linked_limit = (most_differences(codes.shape[1], share) for share in (near, linked))
    if max(near_limit, linked_limit) < 0:
        return Alike(np.ones(len(codes), dtype=np.int64), np.arange(len(codes)))
    if not keep or len(codes) < MANY:
        return _compared(codes, near_limit, linked_limit)
    key = hashlib.sha256(codes.tobytes() + repr((codes.shape, near_limit, linked_limit)).encode()).hexdigest()[:32]
    path = cache_folder() / f"alike-{key}.npz"
    if is_private(path):
        try:
            with np.load(path, allow_pickle=False) as kept:
                return Alike(kept["counts"], kept["clusters"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # torn: it is made again
    found = _compared(codes, near_limit, linked_limit)
    try:
        with keeping(path) as beside, open(beside, "wb") as file:
            np.savez(file, counts=found.counts, clusters=found.clusters)
    except OSError:
        pass  # there is no room to keep it
    return found


def most_differences(num_sites: int, identity: float | None) -> int:
    """At how many of ``num_sites`` two sequences of this identity may differ; -1 of None, which no two have."""
    return -1 if identity is None else num_sites - math.ceil(identity * num_sites - 1e-9)


def _compared(codes: np.ndarray, near: int, linked: int) -> Alike:
    num = len(codes)
    bits = _packed(codes)
    blocks = [(start, min(start + BLOCK, num)) for start in range(0, num, BLOCK)]
    done = [0] * len(blocks)  # pairs of each block, which one thread alone counts
    with (
        make_progress() as progress,
        track(progress, "comparing sequences, pairs", num * (num - 1) // 2) as advance,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):

        def compared(block: int) -> tuple[np.ndarray, _Links]:
            def count(pairs: int) -> None:
                done[block] += pairs
                advance(sum(done))

            return _block(bits, blocks[block], near, linked, count)

        parts = pool.map(compared, reversed(range(len(blocks))))
        counts, links = np.ones(num, dtype=np.int64), _Links(num)
        for more, block_links in parts:
            counts += more
            links.add(np.arange(num), block_links.join())
    return Alike(counts, links.clusters())


def _packed(codes: np.ndarray) -> np.ndarray:
    """The bits of all categories, ``(words, bits of a category, N)`` uint64; the sites that vary most come first."""
    num, num_sites = codes.shape
    counts = np.stack([np.bincount(column, minlength=256) for column in codes.T])
    varied = np.argsort((counts.astype(float) ** 2).sum(1), kind="stable")
    words = -(-num_sites // WORD)
    padded = np.zeros((num, words * WORD), dtype=np.uint8)
    padded[:, :num_sites] = codes[:, varied]
    num_bits = max(int(codes.max(initial=0)).bit_length(), 1)
    planes = [np.packbits((padded >> bit) & 1, axis=1).view(np.uint64).T for bit in range(num_bits)]
    return np.ascontiguousarray(np.stack(planes, 1))


def _block(
    bits: np.ndarray, ends: tuple[int, int], near: int, linked: int, count: Callable[[int], None]
) -> tuple[np.ndarray, _Links]:
    """The sequences between two ``ends`` against all before them: how many are near each, and the links."""
    num = bits.shape[2]
    counts, links = np.zeros(num, dtype=np.int64), _Links(num)
    for rows, columns, differences in _alike_pairs(bits, *ends, max(near, linked), count):
        for side in (rows, columns):
            counts += np.bincount(side[differences <= near], minlength=num)
        links.add(rows[differences <= linked], columns[differences <= linked])
    return counts, links


def _alike_pairs(
    bits: np.ndarray, start: int, end: int, most: int, count: Callable[[int], None]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a sequence of the block and one before it, which they are, and at how many sites they differ.

    All pairs that differ at ``most`` sites are among them. Each array is ``(n,)``. ``count`` is called with the number
    of pairs that were looked at since it was called last.
    """
    lead = min(most // WORD + 1, len(bits))
    block, each = np.ascontiguousarray(bits[:, :, start:end]), np.ascontiguousarray(bits.T)
    spare = np.empty((2, end - start), dtype=np.uint64)
    judged, candidates, held = [], [], 0
    for row in range(end - 1):
        first = max(row + 1 - start, 0)
        total = np.zeros(end - start - first, dtype=np.uint8 if lead == 1 else np.uint16)
        for word in range(lead):
            total += _word_differences(block[word, :, first:], bits[word, :, row], spare[:, first:])
        found = np.flatnonzero(total <= most)
        if SPARSE * len(found) > len(total):
            total = total.astype(np.uint16)
            for word in range(lead, len(bits)):
                total += _word_differences(block[word, :, first:], bits[word, :, row], spare[:, first:])
            found = np.flatnonzero(total <= most)
            judged.append((np.full(len(found), row), found + (start + first), total[found]))
        elif len(found):
            candidates.append((np.full(len(found), row), found + (start + first)))
        held += len(found)
        count(len(total))
        if held > MAX_PAIRS or row == end - 2:
            if judged:
                rows, columns, differences = (np.concatenate(part) for part in zip(*judged, strict=True))
                yield rows, columns, differences
            if candidates:
                rows, columns = (np.concatenate(part) for part in zip(*candidates, strict=True))
                yield rows, columns, _differences(each[rows], each[columns])
            judged, candidates, held = [], [], 0


def _word_differences(block: np.ndarray, row: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """At how many of 64 sites each of a block ``(bits, n)`` differs from a row ``(bits,)``, ``(n,)`` uint8."""
    differ, bit = spare
    np.bitwise_xor(block[0], row[0], out=differ)
    for other, own in zip(block[1:], row[1:], strict=True):
        np.bitwise_xor(other, own, out=bit)
        np.bitwise_or(differ, bit, out=differ)
    return np.bitwise_count(differ)


def _differences(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """At how many sites two lists of sequences ``(n, bits, words)`` differ, ``(n,)`` uint16."""
    differ = these[:, 0] ^ those[:, 0]
    for bit in range(1, these.shape[1]):
        differ |= these[:, bit] ^ those[:, bit]
    total = np.zeros(len(differ), dtype=np.uint16)
    for word in np.bitwise_count(differ).T:
        total += word
    return total


class _Links:
    """Links between ``num`` sequences, of which those that join no others are forgotten."""

    def __init__(self, num: int) -> None:
        self.labels = np.arange(num)  # one for all that are known to hang together
        self.held: list[tuple[np.ndarray, np.ndarray]] = []
        self.size = 0

    def add(self, ends: np.ndarray, others: np.ndarray) -> None:
        ends, others = self.labels[ends], self.labels[others]
        new = ends != others
        self.held.append((ends[new], others[new]))
        self.size += int(np.count_nonzero(new))
        if self.size > MAX_LINKS:
            self.join()

    def join(self) -> np.ndarray:
        """The label of each, ``(num,)``: the number of one that it hangs together with, of all the same."""
        if self.size:
            ends, others = (np.concatenate(side) for side in zip(*self.held, strict=True))
            num = len(self.labels)
            graph = coo_array((np.ones(len(ends), dtype=bool), (ends, others)), shape=(num, num))
            components = connected_components(graph, directed=False)[1]
            firsts = np.unique(components, return_index=True)[1]
            self.labels = firsts[components][self.labels]
        self.held, self.size = [], 0
        return self.labels

    def clusters(self) -> np.ndarray:
        """The number of the cluster of each, ``(num,)`` int64, in the order of first members."""
        _, firsts, inverse = np.unique(self.join(), return_index=True, return_inverse=True)
        return np.argsort(np.argsort(firsts))[inverse].astype(np.int64)
