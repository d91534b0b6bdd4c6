"""Parallel tempering: replicas of a chain at smaller betas, which cross barriers, and swaps between neighbours.

The replicas x_1, ..., x_R of a chain at β_1 < ... < β_R have the joint law p_β1(x_1) ... p_βR(x_R). A kernel moves each
at its own beta; then the states of neighbours r and r + 1 are swapped with probability

    min(1, exp((β_r+1 - β_r) (f(x_r) - f(x_r+1)))),

in which the reference cancels (Swendsen and Wang, 1986; Geyer, 1991). Both steps leave the joint law invariant, and so
the law of the last replica. Pairs that start at an even and at an odd rung take turns, so that a replica goes on in its
direction (Syed et al., 2022). The f of a swap is that of the states it swaps: the f of before the move would bias it.

Not implemented: fast paths of the kernel inside, betas that change while the chain runs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.samplers.base import Info, Sampler, accept_probability
from gwg_dist.samplers.gwg import GWG
from gwg_dist.samplers.run import run_chain
from gwg_dist.target import Target

SETTLE = 100  # steps before the first swap: replicas start where the chain does, and belong to their own beta first
MAX_RUNGS = 100
CERTAIN = 1e-3  # the least swap acceptance, and the least distance from 1, that a measured rate is taken for


class LadderState(NamedTuple):
    """``x``, ``f`` are those of the replica at the chain's own beta.

    Args:
        replicas: the kernel's state of R replicas of B chains, ``(R B, ...)``, those of the first rung first.
        rung: ``(R, B)`` int64, at which beta each replica stands; the last is the chain's own.
        beta: beta of the chains, 0-d or ``(B,)``.
        betas: ``(R,)`` float64, the ladder relative to it.
        time: 0-d int64, steps so far.
        swap_prob: ``(R - 1, B)`` float64, probability with which the last step swapped neighbours; 0 out of turn.
        swaps: ``(2, R - 1)`` float64, sums over the steps of the mean ``swap_prob`` and of the turns.
    """

    replicas: Any
    rung: Tensor
    beta: Tensor
    betas: Tensor
    time: Tensor
    swap_prob: Tensor
    swaps: Tensor

    @property
    def x(self) -> Tensor:
        return self.replicas.x[self.rows]

    @property
    def f(self) -> Tensor:
        return self.replicas.f[self.rows]

    @property
    def rows(self) -> Tensor:
        """``(B,)`` int64: where in ``replicas`` the one at the chain's own beta is."""
        num_rungs, num = self.rung.shape
        at = (self.rung == num_rungs - 1).to(torch.uint8).argmax(0)
        return at * num + torch.arange(num, device=at.device)

    @property
    def swap_rate(self) -> Tensor:
        """Mean probability of the swaps of each pair of neighbours, ``(R - 1,)``; not a number before the first."""
        return self.swaps[0] / self.swaps[1]


class LadderNoise(NamedTuple):
    """``move``: the kernel's noise for all replicas; ``swap``: ``(R - 1, B)`` float64, uniform in [0, 1)."""

    move: Any
    swap: Tensor


@dataclass(frozen=True)
class ParallelTempering(Sampler):
    """Moves R replicas of every chain by ``kernel``, each at its beta, and swaps neighbours.

    What a step leaves invariant is the joint law of the replicas, not that of x alone: a swap brings in a replica that
    no annealing has weighed. Estimates of log Z anneal with ``kernel`` itself.

    A step costs R steps of ``kernel``. ``State.x`` is the replica at the chain's own beta. Replicas start where the
    chain starts, so the first 100 steps swap nothing: shorter runs are those of ``kernel`` alone. For training there is
    ``TemperedChains``, which keeps the replicas from one iteration to the next.

    Args:
        kernel: an exact kernel.
        betas: the ladder, ascending within [0, 1]: factors of the chain's own beta. The last is 1, which is the chain.

    Raises:
        ValueError: a ladder of one beta, betas that do not ascend from 0 or more to 1, a kernel that is not exact.
    """

    kernel: Sampler = field(default_factory=GWG)
    betas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)

    # Of the class, and no field.
    of_x_alone = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", checked_ladder(self.betas))
        object.__setattr__(self, "in_place", self.kernel.in_place)
        object.__setattr__(self, "in_parts", self.kernel.in_parts)
        if not self.kernel.exact:
            raise ValueError(f"kernel must leave its target invariant, {self.kernel} does not")

    def refusal(self, target: Target) -> str | None:
        return self.kernel.refusal(target)

    def remark(self, num_steps: int) -> str | None:
        if num_steps > SETTLE:
            return None
        return (
            f"ParallelTempering swaps nothing in the first {SETTLE} steps of a run of chains, which has {num_steps}: "
            "replicas only take time; TemperedChains keep theirs from one iteration to the next"
        )

    def annealed(self) -> Sampler:
        return self.kernel.annealed()

    def init(self, target: Target, x: Tensor, beta: Tensor) -> LadderState:
        return self.start(target, x.expand(len(self.betas), *x.shape), beta)._replace(
            time=torch.zeros((), dtype=torch.int64, device=x.device)
        )

    def start(self, target: Target, replicas: Tensor, beta: Tensor) -> LadderState:
        """The state of replicas ``(R, B, ...)`` that stand at their betas already, so that the next step may swap."""
        num_rungs, num = replicas.shape[:2]
        device = replicas.device
        rung = torch.arange(num_rungs, device=device)[:, None].expand(-1, num).contiguous()
        betas = torch.tensor(self.betas, dtype=torch.float64, device=device)
        inner = self.kernel.init(target, replicas.flatten(0, 1), beta_of(rung, betas, beta).flatten())
        swap_prob, swaps = (betas.new_zeros(n, m) for n, m in ((num_rungs - 1, num), (2, num_rungs - 1)))
        return LadderState(inner, rung, beta, betas, torch.tensor(SETTLE, device=device), swap_prob, swaps)

    def temper(self, target: Target, state: LadderState, beta: Tensor) -> LadderState:
        return self._at(target, state, state.rung, beta)

    def refresh(self, target: Target, state: LadderState) -> LadderState:
        return state._replace(replicas=self.kernel.refresh(target, state.replicas))

    def release(self, state: LadderState) -> LadderState:
        return state._replace(replicas=self.kernel.release(state.replicas))

    def draw(self, state: LadderState, generator: torch.Generator) -> LadderNoise:
        move, like = self.kernel.draw(state.replicas, generator), state.swap_prob
        return LadderNoise(move, torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype))

    def step(self, target: Target, state: LadderState, noise: LadderNoise) -> tuple[LadderState, Info]:
        x, rows = state.x, state.rows
        replicas, info = self.kernel.step(target, state.replicas, noise.move)
        state = self.swap(target, state._replace(replicas=replicas, time=state.time + 1), noise.swap)
        return state, Info(info.accept_prob[rows], target.space.hamming(x, state.x))

    def swap(self, target: Target, state: LadderState, uniform: Tensor) -> LadderState:
        """Swap the neighbours whose turn it is and whose ``uniform`` number lies below the probability of the swap.

        Replicas stay where they are in memory and take each other's beta.
        """
        num_rungs, num = state.rung.shape
        order = state.rung.argsort(0)
        f = state.replicas.f.view(num_rungs, num).gather(0, order)
        rungs = torch.arange(num_rungs, device=f.device)[:, None]
        turn = ((rungs[:-1] + state.time) % 2 == 0) & (state.time > SETTLE)
        prob = swap_probability(f, beta_of(rungs.expand(-1, num), state.betas, state.beta)) * turn
        swapped = (uniform < prob).long()
        source = rungs + functional.pad(swapped, (0, 0, 0, 1)) - functional.pad(swapped, (0, 0, 1, 0))
        counts = torch.stack([prob.mean(1), turn[:, 0].to(prob.dtype)])
        state = state._replace(swap_prob=prob, swaps=state.swaps + counts)
        return self._at(target, state, order.gather(0, source).argsort(0), state.beta)

    def _at(self, target: Target, state: LadderState, rung: Tensor, beta: Tensor) -> LadderState:
        replicas = self.kernel.temper(target, state.replicas, beta_of(rung, state.betas, beta).flatten())
        return state._replace(replicas=replicas, rung=rung, beta=beta)


def beta_of(rung: Tensor, betas: Tensor, beta: Tensor) -> Tensor:
    """β_r times the chain's own beta for rungs ``(R, B)``, the same shape."""
    return betas.to(beta.dtype)[rung] * beta


def swap_probability(f: Tensor, betas: Tensor) -> Tensor:
    """min(1, exp((β_r+1 - β_r) (f_r - f_r+1))) of neighbours, ``(R - 1, B)`` float64, from ``(R, B)`` each.

    Args:
        f: f of the states at each rung as they are now, nats.
        betas: betas of the rungs.
    """
    return accept_probability(betas.double().diff(dim=0) * -f.double().diff(dim=0))


def checked_ladder(betas: tuple[float, ...]) -> tuple[float, ...]:
    """``betas`` as a tuple. Raises ValueError unless at least two ascend within [0, 1] and the last is 1."""
    ladder = tuple(float(beta) for beta in betas)
    if len(ladder) < 2:
        raise ValueError(f"betas must be a ladder of at least two, got {list(ladder)}")
    if not (ladder[0] >= 0 and ladder[-1] == 1 and all(a < b for a, b in itertools.pairwise(ladder))):
        raise ValueError(f"betas must ascend within [0, 1] and end at 1, got {list(ladder)}")
    return ladder


def tuned_ladder(
    kernel: Sampler,
    target: Target,
    x: Tensor,
    *,
    generator: torch.Generator,
    acceptance: float = 0.25,
    lowest: float = 0.0,
    num_steps: int = 300,
    rounds: int = 5,
) -> tuple[float, ...]:
    """Betas whose neighbours swap equally often, at least with ``acceptance``, found by pilot runs.

    Where f is normal at each beta with standard deviation s(β), a swap between β_a < β_b is made with probability
    erfc(L / 2) on average, L the integral of s from β_a to β_b (Predescu, Predescu and Ciobanu, 2004). A pilot run
    measures L between neighbours, and the next ladder cuts the whole into equal parts.

    Args:
        kernel: moves the replicas.
        target: the model.
        x: starts of the chains, ``(B, ...)``; some ten or more.
        generator: generator on the device of ``x``.
        acceptance: swap acceptance to reach; 0.23 to 0.3 lets replicas travel fastest.
        lowest: the first beta.
        num_steps: steps of a pilot run after the replicas have settled.
        rounds: pilot runs.

    Raises:
        ValueError: an acceptance outside (0, 1), a lowest beta outside [0, 1), too short or no pilot runs, a ladder of
            more than 100 rungs.
    """
    if not 0 < acceptance < 1:
        raise ValueError(f"acceptance must lie in (0, 1), got {acceptance}")
    if not 0 <= lowest < 1:
        raise ValueError(f"lowest must lie in [0, 1), got {lowest}")
    if num_steps < 10 or rounds < 1:
        raise ValueError(f"pilot runs need 10 steps or more and a round, got {num_steps} and {rounds}")
    betas = tuple(torch.linspace(lowest, 1, 6, dtype=torch.float64).tolist())
    for _ in range(rounds):
        pilot, steps = ParallelTempering(kernel, betas), SETTLE + num_steps
        chain = run_chain(pilot, target, x, num_steps=steps, generator=generator, backend="eager")
        betas = respaced(betas, cast(LadderState, chain.state).swap_rate, acceptance)
    return betas


def respaced(betas: tuple[float, ...], swap_rate: Tensor, acceptance: float) -> tuple[float, ...]:
    """A ladder between the same ends whose swaps are equal if ``swap_rate`` ``(R - 1,)`` is that of ``betas``."""
    lengths = 2 * torch.erfinv(1 - swap_rate.double().cpu().clamp(CERTAIN, 1 - CERTAIN))
    ends = functional.pad(lengths.cumsum(0), (1, 0))
    unit = 2 * torch.erfinv(torch.tensor(1 - acceptance, dtype=torch.float64))
    num = max(int((ends[-1] / unit).ceil()), 1)
    if num >= MAX_RUNGS:
        raise ValueError(f"a swap acceptance of {acceptance} needs {num + 1} rungs, more than {MAX_RUNGS}")
    cuts = torch.arange(1, num, dtype=torch.float64) * ends[-1] / num
    gap = torch.searchsorted(ends, cuts).clamp(1, len(lengths)) - 1
    old = torch.tensor(betas, dtype=torch.float64)
    inner = old[gap] + (old[gap + 1] - old[gap]) * (cuts - ends[gap]) / lengths[gap]
    return (betas[0], *inner.tolist(), betas[-1])
