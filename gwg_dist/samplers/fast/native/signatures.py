"""What the kernels in C take: one table, against which every argument is checked before its address is passed.

A line is an argument: its name, then "size", "number", or a type and a shape of names of sizes, products and numbers
(``a/b`` is rounded up). Every kernel has a size "chains"; "threads" is given, for what each thread needs for itself.
"real" is float32 or float64, as the kernel's name ends.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch

TABLE = {
    "sparse_step": """
        chains size; blocks size; block size; sites size; num_touched size
        touched int64 sites,num_touched; coupling float64 sites,num_touched; scale float64 chains; temperature number
        noise float64 3,chains; signs float64 chains,blocks*block; slopes float64 chains,blocks*block
        weights float64 chains,blocks*block; sums float64 chains,blocks; decision float64 2,chains""",
    "colour_sweep": """
        chains size; sites size; degree size; colours size; lanes size
        ends int64 colours; neighbours int32 degree,sites; rows float32 degree,sites
        bias float32 sites; reference float32 sites; scale float32 chains,lanes; seeds int64 chains,lanes
        hops float32 chains,lanes; x float32 chains,sites,lanes""",
    "pair_sweep": """
        chains size; sites size; width size; metropolised number
        rows real sites*width,sites*width; reference real sites*width; scale real chains; noise float64 sites,chains
        codes int32 chains,sites; fields real chains,sites*width; hops real chains""",
    "dense_binary_step": """
        chains size; sites size; block size
        rows real sites,sites; scale real chains; temperature number; noise float64 3,chains
        signs real chains,sites; slopes real chains,sites; weights real chains,sites; sums float64 chains,sites/block
        shifts float64 chains; fresh real threads,sites; fresh_sums real threads,sites/block
        decision float64 2,chains""",
    "dense_categorical_step": """
        chains size; sites size; categories size
        rows real sites*categories,sites*categories; scale real chains; temperature number; noise float64 3,chains
        codes int64 chains,sites; slopes real chains,sites*categories; weights real chains,sites*categories
        sums float64 chains,sites; shifts float64 chains; moved real threads,sites*categories
        fresh real threads,sites*categories; fresh_sums real threads,sites
        decision float64 2,chains""",
    "binary_weigh": """
        chains size; sites size; block size
        signs real chains,sites; grads real chains,sites; reference real sites; scale real chains
        weights real chains,sites; sums float64 chains,sites/block; shifts float64 chains""",
    "binary_propose": """
        chains size; sites size; block size
        noise float64 3,chains; signs real chains,sites; weights real chains,sites; sums float64 chains,sites/block
        moved int64 chains; proposals real chains,sites""",
    "binary_decide": """
        chains size; sites size; block size
        grads_new real chains,sites; change float64 chains; reference real sites; scale real chains; temperature number
        noise float64 3,chains; moved int64 chains; signs real chains,sites; grads real chains,sites
        weights real chains,sites; sums float64 chains,sites/block; shifts float64 chains; f float64 chains
        fresh real threads,sites; fresh_sums float64 threads,sites/block
        decision float64 2,chains""",
    "hidden_propose": """
        chains size; sites size; units size; block size
        columns real sites,units; bias real sites; noise float64 3,chains; signs real chains,sites
        weights real chains,sites; sums float64 chains,sites/block; hidden real chains,units; softplus float64 chains
        moved int64 chains; hidden_new real chains,units; sigmoid real chains,units; softplus_new float64 chains
        change float64 chains""",
    "hidden_commit": """
        chains size; units size
        decision float64 2,chains; hidden_new real chains,units; softplus_new float64 chains
        hidden real chains,units; softplus float64 chains""",
    "langevin_weigh": """
        chains size; sites size
        signs real chains,sites; grads real chains,sites; reference real sites; curvature real sites
        scale real chains; chance real chains,sites; log_stay float64 chains; logits real threads,sites""",
    "langevin_propose": """
        chains size; sites size
        noise float64 chains,1+sites; chance real chains,sites; turned int32 chains,sites; count int64 chains""",
    "langevin_decide": """
        chains size; sites size
        grads_new real chains,sites; change float64 chains; reference real sites; curvature real sites
        scale real chains; balance number; noise float64 chains,1+sites; turned int32 chains,sites; count int64 chains
        signs real chains,sites; grads real chains,sites; chance real chains,sites; log_stay float64 chains
        f float64 chains; logits real threads,sites; fresh real threads,sites; decision float64 2,chains""",
    "path_propose": """
        chains size; sites size; block size; room size
        noise float64 chains,2+2*room; signs real chains,sites; grads real chains,sites; reference real sites
        scale real chains; weights real chains,sites; sums float64 chains,sites/block; shifts float64 chains
        turned int32 chains,room; count int64 chains; log_q float64 chains
        left real threads,sites; left_sums float64 threads,sites/block""",
    "path_decide": """
        chains size; sites size; block size; room size
        grads_new real chains,sites; change float64 chains; reference real sites; scale real chains; temperature number
        noise float64 chains,2+2*room; turned int32 chains,room; count int64 chains; log_q float64 chains
        signs real chains,sites; grads real chains,sites; weights real chains,sites
        sums float64 chains,sites/block; shifts float64 chains; f float64 chains
        fresh real threads,sites; fresh_sums float64 threads,sites/block
        left real threads,sites; left_sums float64 threads,sites/block; decision float64 2,chains""",
    "dense_follow": """
        chains size; sites size; room size
        rows real sites,sites; signs real chains,sites; grads real chains,sites; turned int32 chains,room
        count int64 chains; grads_new real chains,sites; change float64 chains""",
    "sparse_follow": """
        chains size; sites size; degree size; room size
        neighbours int64 sites,degree; rows real sites,degree; signs real chains,sites; grads real chains,sites
        turned int32 chains,room; count int64 chains; grads_new real chains,sites; change float64 chains""",
    "hidden_follow": """
        chains size; sites size; units size; room size
        columns real sites,units; bias real sites; signs real chains,sites; hidden real chains,units
        softplus float64 chains; turned int32 chains,room; count int64 chains; hidden_new real chains,units
        sigmoid real chains,units; softplus_new float64 chains; change float64 chains""",
}
REALS = {"float": torch.float32, "double": torch.float64}
TYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32, "float64": torch.float64}


class Argument(NamedTuple):
    """One argument: ``dtype`` is None for sizes and numbers; ``shape`` holds sums of products of sizes."""

    name: str
    kind: str
    dtype: torch.dtype | None = None
    shape: tuple[str, ...] = ()


@cache
def signature(kernel: str) -> tuple[Argument, ...]:
    """The arguments of a kernel in order, by its name in C: ``NAME``, or ``NAME_float`` and ``NAME_double``."""
    name, real = (kernel, None) if kernel in TABLE else (kernel.rpartition("_")[0], REALS[kernel.rpartition("_")[2]])
    arguments = []
    for text in TABLE[name].replace("\n", ";").split(";"):
        words = text.split()
        if not words:
            continue
        if len(words) == 2:
            arguments.append(Argument(words[0], words[1]))
            continue
        dtype = real if words[1] == "real" else TYPES[words[1]]
        arguments.append(Argument(words[0], "tensor", dtype, tuple(words[2].split(","))))
    return tuple(arguments)


@lru_cache(maxsize=1024)
def shapes(kernel: str, sizes: tuple[int, ...], threads: int) -> tuple[tuple[int, ...], ...]:
    """The shape of every argument of a kernel in order, from its sizes in order; () for sizes and numbers."""
    names = [argument.name for argument in signature(kernel) if argument.kind == "size"]
    known = {**dict(zip(names, sizes, strict=True)), "threads": threads}
    return tuple(tuple(value_of(text, known) for text in argument.shape) for argument in signature(kernel))


def value_of(expression: str, sizes: dict[str, int]) -> int:
    """A sum of products of sizes and numbers; ``a/b`` is rounded up."""
    return sum(_product(term, sizes) for term in expression.split("+"))


def _product(term: str, sizes: dict[str, int]) -> int:
    product = 1
    for factor in term.split("*"):
        above, _, below = (part.strip() for part in factor.partition("/"))
        size = int(above) if above.isdigit() else sizes[above]
        product *= -(-size // sizes[below]) if below else size
    return product
