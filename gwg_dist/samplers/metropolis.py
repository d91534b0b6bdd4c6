"""The Metropolis-Hastings correction, written once (Hastings, Biometrika, 1970).

A kernel says what it proposes and with which probability; what a step evaluates, when a move is made and what is kept
of it are the same for all. A step costs one evaluation, at the proposal, because the state keeps that of x.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from gwg_dist.samplers.base import Info, Sampler, accept_probability, select
from gwg_dist.spaces import Change
from gwg_dist.target import Evaluation, Target


class Move(NamedTuple):
    """A proposed step of every chain.

    Args:
        x: where it starts, ``(B, ...)``.
        x_new: where it leads.
        change: the one site that changes, where it is one by construction; None for any number of sites.
        aux: integers ``(B, ...)`` that were drawn on the way and are the same for the way back.
        path: sites ``(B, R)`` int64 in the order in which they were drawn, -1 for none. The way back has them reversed.
    """

    x: Tensor
    x_new: Tensor
    change: Change | None = None
    aux: tuple[Tensor, ...] = ()
    path: Tensor | None = None

    @property
    def only_change(self) -> Change:
        """The one site that changes. Raises ValueError where it may be several."""
        if self.change is None:
            raise ValueError("the move may change several sites")
        return self.change

    @property
    def sites_in_order(self) -> Tensor:
        """The path. Raises ValueError where there is none."""
        if self.path is None:
            raise ValueError("the move has no order of its sites")
        return self.path

    def reversed(self) -> Move:
        """The way back, from ``x_new`` to ``x`` by the same ``aux`` and the same path from its end."""
        change = None if self.change is None else self.change.reversed()
        path = None if self.path is None else self.path.flip(1)
        return Move(self.x_new, self.x, change, self.aux, path)


class MetropolisState(NamedTuple):
    """``proposal`` is q(·|x) at ``beta``, kept so that it is made once a point and not once a step."""

    x: Tensor
    evaluation: Evaluation
    proposal: Any
    beta: Tensor

    @property
    def f(self) -> Tensor:
        return self.evaluation.f


class Metropolis(Sampler):
    """Proposes a move from q(·|x) and makes it with probability min(1, p(x') q(back|x') / (p(x) q(move|x))).

    A subclass gives ``proposal``, ``draw``, ``propose`` and ``log_prob``; nothing else. Where a move draws more than
    where it leads, ``Move.aux`` or ``Move.path`` holds it, q is the probability of both, and the way back takes the
    same ``aux`` and the reversed path.
    """

    @abstractmethod
    def proposal(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> Any:
        """What q(·|x) needs: a tuple of tensors ``(B, ...)``."""

    @abstractmethod
    def draw(self, state: Any, generator: Any) -> Any:
        """The noise of a step: a tuple with a field ``accept``, ``(B,)`` float64 uniform in [0, 1)."""

    @abstractmethod
    def propose(self, target: Target, state: MetropolisState, noise: Any) -> Move:
        """A move from ``state.x``, a deterministic function of the noise."""

    @abstractmethod
    def log_prob(self, target: Target, state: MetropolisState, move: Move) -> Tensor:
        """log q(move|x) at the state of ``move.x``, ``(B,)`` nats, normalised over all moves and their ``aux``."""

    def evaluate(self, target: Target, x: Tensor) -> Evaluation:
        """f, and ∇f for proposals that read it, from scratch."""
        return target.evaluate(x)

    def follow(self, target: Target, here: Evaluation, move: Move) -> Evaluation:
        """The evaluation at ``move.x_new``, reached from that at ``move.x``."""
        return target.move(here, move.x_new, move.change)

    def init(self, target: Target, x: Tensor, beta: Tensor) -> MetropolisState:
        return self._at(target, x, self.evaluate(target, x), beta)

    def temper(self, target: Target, state: MetropolisState, beta: Tensor) -> MetropolisState:
        return self._at(target, state.x, state.evaluation, beta)

    def step(self, target: Target, state: MetropolisState, noise: Any) -> tuple[MetropolisState, Info]:
        return self.decide(target, state, self.propose(target, state, noise), noise.accept)

    def decide(
        self, target: Target, state: MetropolisState, move: Move, uniform: Tensor
    ) -> tuple[MetropolisState, Info]:
        """Make the moves of the chains whose ``uniform`` number lies below the probability of acceptance."""
        there = self.arrive(target, state, move)
        log_ratio = self._log_ratio(target, state, there, move)
        log_q, log_q_back = self.log_prob(target, state, move), self.log_prob(target, there, move.reversed())
        accept_prob = accept_probability(log_ratio + log_q_back - log_q)
        accepted = uniform < accept_prob
        x, evaluation, proposal = select(accepted, there[:3], state[:3])
        hops = 1 if move.change is not None else target.space.hamming(move.x, move.x_new)
        return MetropolisState(x, evaluation, proposal, state.beta), Info(accept_prob, hops * accepted.to(x.dtype))

    def arrive(self, target: Target, state: MetropolisState, move: Move) -> MetropolisState:
        """The state after ``move``, were it made."""
        return self._at(target, move.x_new, self.follow(target, state.evaluation, move), state.beta)

    def _at(self, target: Target, x: Tensor, evaluation: Evaluation, beta: Tensor) -> MetropolisState:
        return MetropolisState(x, evaluation, self.proposal(target, x, evaluation, beta), beta)

    def _log_ratio(self, target: Target, here: MetropolisState, there: MetropolisState, move: Move) -> Tensor:
        """log p_beta(x') - log p_beta(x), ``(B,)`` nats."""
        if move.change is not None:
            return target.log_ratio_of(move.change, there.f, here.f, beta=here.beta)
        return target.log_ratio(move.x_new, there.f, move.x, here.f, beta=here.beta)
