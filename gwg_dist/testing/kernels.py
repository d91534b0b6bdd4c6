"""Whether a Markov kernel leaves its target invariant: enumerated where its moves can be, else by chi-square."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from gwg_dist.samplers import Metropolis, MetropolisState, Move, Sampler, Target, run_chain
from gwg_dist.testing.errors import CheckError
from gwg_dist.testing.models import exact_pi, small_targets

TOLERANCE = 1e-12
SUM_TOLERANCE = 1e-9  # of the probabilities of all moves from a state
ALPHA = 1e-6  # of every chi-square test
CHAINS_AT_ONCE = 2**15
MAX_ROUNDS = 256

T = TypeVar("T")


def check_kernel(
    sampler: Sampler, target: Target | None = None, *, betas: tuple[float, ...] = (0.0, 0.6, 1.0), seed: int = 0
) -> None:
    """Check that ``sampler`` leaves p_beta invariant.

    A Metropolis kernel is enumerated at every beta: see ``check_detailed_balance``. Every kernel is run at the largest:
    see ``check_invariance``.

    Args:
        sampler: the kernel.
        target: a model of at most some 500 states in float64; a few small ones of the package where none is given.
        betas: values of beta to check p_beta at.
        seed: seed of the noise.

    Raises:
        CheckError: what is wrong, on which model, at which beta; a kernel that does not claim to be exact.
    """
    if not sampler.exact:
        raise CheckError(f"{sampler} is not exact by its own account: it leaves another distribution invariant")
    targets = [("the given model", target)] if target is not None else list(small_targets(sampler, seed=seed))
    if not targets:
        raise CheckError(f"{sampler} refuses all models of the package: give check_kernel a target")
    for name, model in targets:
        for beta in betas:
            try:
                if isinstance(sampler, Metropolis):
                    check_detailed_balance(sampler, model, beta=beta, seed=seed)
                if beta == max(betas):
                    check_invariance(sampler, model, beta=beta, seed=seed, backend="eager")
            except CheckError as error:
                raise CheckError(f"{sampler} on {name} at beta = {beta:g}: {error}") from error


def check_detailed_balance(sampler: Metropolis, target: Target, *, beta: float = 1.0, seed: int = 0) -> None:
    """Enumerate the kernel: every move from every state is found, forced, and its acceptance read.

    Rows of q sum to one, moves are drawn as often as ``log_prob`` says (chi-square), accepted and refused states are
    those of a fresh start, p_i P_ij = p_j P_ji to 1e-12, and every state can be reached.

    Args:
        sampler: the kernel.
        target: target of at most some 500 states, in float64.
        beta: inverse temperature of p_beta.
        seed: seed of the noise that finds the moves.

    Raises:
        CheckError: which of these fails, and where.
    """
    matrix, pi = transition_matrix(sampler, target, beta=beta, seed=seed), exact_pi(target, beta)
    flow = pi[:, None] * matrix
    gap = (flow - flow.T).abs()
    if not gap.max() < TOLERANCE:
        i, j = divmod(int(gap.argmax()), len(pi))
        codes = target.space.all_codes()
        raise CheckError(
            f"detailed balance is broken by {float(gap.max()):.1e} from {codes[i].tolist()} to {codes[j].tolist()}: "
            "acceptance does not correct the proposal; is log_prob of the way back in the ratio, at the new state?"
        )
    reached = torch.linalg.matrix_power((matrix > 0).double() + torch.eye(len(pi), dtype=torch.float64), len(pi))
    if not (reached > 0).all():
        raise CheckError("some states are never reached from others: mix the number of sites that a step changes")


def transition_matrix(sampler: Metropolis, target: Target, *, beta: float, seed: int = 0) -> Tensor:
    """P, ``(num_states, num_states)`` float64: exp(log_prob) of every move times its acceptance.

    Raises:
        CheckError: probabilities that do not sum to one or that draws do not follow, a state that is not fresh.
    """
    found = _find_moves(sampler, target, beta, seed)
    space = target.space
    b = torch.tensor(beta, dtype=torch.float64)
    with torch.no_grad():
        state = sampler.init(target, found.move.x, b)
        q = sampler.log_prob(target, state, found.move).double().exp()
        _check_frequencies(found, q, space.num_states)
        uniform = torch.zeros(len(q), dtype=torch.float64)
        accepted, info = sampler.decide(target, state, found.move, uniform)
        refused, again = sampler.decide(target, state, found.move, uniform + 1 - 1e-16)
    if not torch.equal(info.accept_prob, again.accept_prob):
        raise CheckError("the acceptance probability depends on the number that it is compared with")
    if not torch.equal(accepted.x, found.move.x_new):
        raise CheckError("an accepted move does not lead to its x_new")
    kept = info.accept_prob < 1
    if not torch.equal(refused.x[kept], found.move.x[kept]):
        raise CheckError("a refused move changes x")
    for what, after in (("accepted", accepted), ("refused", refused)):
        _check_fresh(sampler, target, after, what)
    matrix = torch.zeros(space.num_states, space.num_states, dtype=torch.float64)
    matrix.index_put_((found.source, found.destination), q * info.accept_prob.double(), accumulate=True)
    return matrix + torch.diag(1 - matrix.sum(1))


def check_invariance(
    sampler: Sampler,
    target: Target,
    *,
    beta: float = 1.0,
    num_steps: int = 5,
    num_chains: int = 40_000,
    backend: str = "auto",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> float:
    """Start chains at exact draws, move them, and compare where they end with the exact probabilities.

    Args:
        sampler: the kernel.
        target: few enough states to enumerate.
        beta: inverse temperature of p_beta.
        num_steps: transitions.
        num_chains: independent starts.
        backend: see ``run_chain``.
        dtype: floating type of x.
        seed: seed of starts and steps.

    Returns:
        The p-value of the chi-square test.

    Raises:
        CheckError: a p-value below 1e-6.
    """
    space, pi = target.space, exact_pi(target, beta)
    generator = torch.Generator().manual_seed(seed + 1)
    states = torch.multinomial(pi, num_chains, replacement=True, generator=generator)
    x = space.encode(space.all_codes()[states], dtype)
    end = run_chain(sampler, target, x, num_steps=num_steps, generator=generator, beta=beta, backend=backend).x
    counts = torch.bincount(number_of(target, end), minlength=space.num_states).double()
    p_value = _chi_square_p_value(counts, pi * num_chains)
    if not p_value > ALPHA:
        raise CheckError(
            f"chains that start at the target leave it: chi-square p = {p_value:.1e} after {num_steps} steps; is the "
            "proposal of the way back in the acceptance ratio, and is what the state keeps that of its x?"
        )
    return p_value


def number_of(target: Target, x: Tensor) -> Tensor:
    """The position of every point in ``space.all_codes()``, ``(B,)`` int64."""
    return (target.space.decode(x).long().cpu() * target.space.places()).sum(1)


class _Found(NamedTuple):
    """Every different move, once: numbers of states, the moves, how often each was drawn."""

    source: Tensor
    destination: Tensor
    move: Move
    times: Tensor

    def reversed(self) -> _Found:
        """The ways back, not drawn."""
        return _Found(self.destination, self.source, self.move.reversed(), torch.zeros_like(self.times))


def _find_moves(sampler: Metropolis, target: Target, beta: float, seed: int) -> _Found:
    """Draw moves from every state until their probabilities sum to one.

    Each draw is made a second time with its noise pushed to the ends of [0, 1), where rare moves are; and the way back
    of a move of nothing but sites is a move. These find moves and are not counted.
    """
    space, generator, pushing = target.space, torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    repeats = max(CHAINS_AT_ONCE // space.num_states, 1)
    source = torch.arange(space.num_states).repeat_interleave(repeats)
    x = target.encode(space.all_codes()).repeat_interleave(repeats, 0)
    found, sums = None, torch.zeros(space.num_states, dtype=torch.float64)
    with torch.no_grad():
        state = sampler.init(target, x, torch.tensor(beta, dtype=torch.float64))
        for _ in range(MAX_ROUNDS):
            noise = sampler.draw(state, generator)
            for times, as_drawn in enumerate((_pushed(noise, pushing), noise)):
                move = sampler.propose(target, state, as_drawn)
                _check_inside(target, move.x_new)
                drawn = _Found(source, number_of(target, move.x_new), move, torch.full_like(source, times))
                found = _distinct(drawn if found is None else _joined(found, _distinct(drawn)))
            assert found is not None
            if not found.move.aux and found.move.path is None:
                found = _distinct(_joined(found, found.reversed()))
            log_q = sampler.log_prob(target, _rows(state, found.source * repeats), found.move)
            sums = torch.zeros_like(sums).index_add_(0, found.source, log_q.double().exp())
            if (sums - 1).abs().max() < SUM_TOLERANCE:
                return found
    worst = int((sums - 1).abs().argmax())
    raise CheckError(
        f"exp(log_prob) of the moves that propose makes from {space.all_codes()[worst].tolist()} sums to "
        f"{float(sums[worst]):.6g}, it must be 1: log_prob is not the probability of the moves, or it is not normalised"
    )


def _check_inside(target: Target, x: Tensor) -> None:
    """Raise CheckError where a proposal is no point of the space, such as one with a category that its site has not."""
    try:
        target.space.check_codes(target.space.decode(x), "proposed points")
    except ValueError as error:
        raise CheckError(f"propose leaves the space: {error}") from error


def _pushed(noise: T, generator: torch.Generator) -> T:
    """Every tensor of uniform numbers in nested tuples with each number drawn towards 0 or 1, by chance."""
    if isinstance(noise, Tensor):
        if not noise.is_floating_point() or noise.min() < 0 or noise.max() >= 1:
            return noise
        power, end = torch.rand(2, *noise.shape, generator=generator, dtype=noise.dtype)
        low = noise ** (16**power)
        return cast(T, torch.where(end < 0.5, low, (1 - low).clamp(max=1 - 2**-53)))
    if not isinstance(noise, tuple):
        return noise
    parts = [_pushed(part, generator) for part in noise]
    return cast(T, type(noise)(*parts) if hasattr(noise, "_fields") else tuple(parts))


def _distinct(found: _Found) -> _Found:
    """Every move once, its counts added up."""
    drawn = found.move.aux if found.move.path is None else (*found.move.aux, found.move.path)
    aux = [part.reshape(len(part), -1) for part in drawn]
    columns = torch.cat([torch.stack([found.source, found.destination], 1), *aux], 1).long()
    lowest, key = columns.amin(0), torch.zeros(len(columns), dtype=torch.int64)
    for column, size in zip((columns - lowest).T, columns.amax(0) - lowest + 1, strict=True):
        key = key * size + column
    keys, inverse = key.unique(return_inverse=True)
    times = torch.zeros(len(keys), dtype=torch.int64).index_add_(0, inverse, found.times)
    rows = torch.full((len(keys),), len(key)).scatter_reduce_(0, inverse, torch.arange(len(key)), "amin")
    return _rows(found, rows)._replace(times=times)


def _check_frequencies(found: _Found, q: Tensor, num_states: int) -> None:
    """Chi-square of how often moves were drawn, over all states."""
    drawn = torch.zeros(num_states, dtype=torch.float64).index_add_(0, found.source, found.times.double())
    p_value = _chi_square_p_value(found.times.double(), q * drawn[found.source], constraints=num_states)
    if not p_value > ALPHA:
        raise CheckError(f"propose does not draw moves as often as exp(log_prob) says: chi-square p = {p_value:.1e}")


def _check_fresh(sampler: Metropolis, target: Target, after: MetropolisState, what: str) -> None:
    """What a state keeps is that of its x."""
    fresh = sampler.init(target, after.x, after.beta)
    for name, kept, right in zip(("evaluation", "proposal"), after[1:3], fresh[1:3], strict=True):
        for a, b in zip(_leaves(kept), _leaves(right), strict=True):
            both = torch.isfinite(a) & torch.isfinite(b)
            if not torch.equal(torch.isfinite(a), torch.isfinite(b)) or not ((a - b)[both].abs() < 1e-11).all():
                raise CheckError(f"the state after an {what} move keeps the {name} of another x: it is stale")


def _chi_square_p_value(observed: Tensor, expected: Tensor, *, constraints: int = 1) -> float:
    """The p-value of counts against expectations; cells that expect less than five are one cell."""
    rare = expected < 5
    if rare.any():
        observed, expected = (torch.cat([n[~rare], n[rare].sum()[None]]) for n in (observed, expected))
        if expected[-1] < 5 and len(expected) > 1:
            observed, expected = (torch.cat([n[:-2], n[-2:].sum()[None]]) for n in (observed, expected))
    statistic = ((observed - expected).square() / expected).sum()
    freedom = torch.tensor(max(len(expected) - constraints, 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def _leaves(tree: Any) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else [leaf for part in tree for leaf in _leaves(part)]


def _rows(tree: T, rows: Tensor) -> T:
    """These rows of every tensor of nested tuples; single numbers and None stay."""
    if isinstance(tree, Tensor):
        return cast(T, tree[rows] if tree.ndim else tree)
    if not isinstance(tree, tuple):
        return tree
    parts = [_rows(part, rows) for part in tree]
    return cast(T, type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts))


def _joined(first: T, second: T) -> T:
    """Nested tuples of tensors, one below the other."""
    if isinstance(first, Tensor):
        return cast(T, torch.cat([first, cast(Tensor, second)]))
    if not isinstance(first, tuple):
        return first
    parts = [_joined(a, b) for a, b in zip(first, cast(tuple, second), strict=True)]
    return cast(T, type(first)(*parts) if hasattr(first, "_fields") else tuple(parts))
