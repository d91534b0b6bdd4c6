"""Chains with held sites: the free ones follow the exact conditional, held ones are never touched."""

import pytest
import torch
from torch import Tensor

from gwg_dist.energies import PottsEnergy
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, Gibbs, MultiGWG, Sampler, run_chain
from gwg_dist.samplers.clamped import ClampedTarget
from gwg_dist.spaces import Binary, Categorical, Change, Space
from gwg_dist.target import Evaluation, Target
from tests.support.kernels import exact_pi, make_target

SPACES: dict[str, Space] = {
    "binary": Binary(6),
    "categorical": Categorical(4, 3),
    "ragged": Categorical(4, (2, 3, 3, 4)),
}
KERNELS: dict[str, Sampler] = {
    "gwg": GWG(), "multi": MultiGWG(max_draws=4), "pas": PAS(), "dmala": DMALA(),
}  # fmt: skip
NUM = 1500


def potts(space: Space) -> Target:
    """A model with a structure, so that states are followed through moves."""
    torch.manual_seed(1)
    energy = PottsEnergy(space, scale=0.8).double()
    reference = Reference(space, smoothing=0.1).double()
    probs = space.without_padding(torch.rand(space.num_sites, space.num_categories)).softmax(1)
    return Target(energy, reference.fit(probs))


def conditional(target: Target, code: Tensor, held: Tensor) -> Tensor:
    """p(x | x_held = code_held) of every point, 0 for those that do not agree."""
    codes = target.space.all_codes().long()
    pi = exact_pi(target, 1.0) * (codes[:, held] == code[held]).all(1)
    return pi / pi.sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("make", [make_target, potts], ids=["network", "pairs"])
def test_free_sites_follow_the_exact_conditional(kernel: str, name: str, make) -> None:
    """Chains that start from the exact conditional stay in it: a chi-square over the states, row by row."""
    target, space = make(SPACES[name]), SPACES[name]
    generator = torch.Generator().manual_seed(0)
    codes = space.all_codes().long()
    masks = torch.zeros(3, space.num_sites, dtype=torch.bool)
    masks[0, :2] = masks[1, 1::2] = True  # the third holds nothing
    given = space.uniform_codes(3, generator=generator).long()
    laws = torch.stack([conditional(target, code, mask) for code, mask in zip(given, masks, strict=True)])
    starts = torch.cat([torch.multinomial(law, NUM, replacement=True, generator=generator) for law in laws])
    held = masks.repeat_interleave(NUM, 0)
    chain = run_chain(
        KERNELS[kernel], ClampedTarget(target, held), space.encode(codes[starts], torch.float64),
        num_steps=7, generator=generator, backend="eager",
    )  # fmt: skip
    ends = space.decode(chain.x).long()
    assert torch.equal(ends[held], codes[starts][held]), "a held site has changed"
    place = space.places()
    for row, law in enumerate(laws):
        counts = torch.bincount((ends * place).sum(1)[row * NUM : (row + 1) * NUM], minlength=len(codes)).double()
        likely = law * NUM > 5
        rest = torch.tensor([float(counts[~likely].sum())]), torch.tensor([float(law[~likely].sum() * NUM)])
        seen, expected = torch.cat([counts[likely], rest[0]]), torch.cat([law[likely] * NUM, rest[1]]).clamp(min=1e-9)
        statistic, freedom = float(((seen - expected) ** 2 / expected).sum()), int(likely.sum())
        assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 10, (row, statistic, freedom)


@pytest.mark.parametrize("name", SPACES)
def test_the_transition_matrix_leaves_the_conditional_invariant(name: str) -> None:
    """GWG with its noise forced: detailed balance to 1e-12 over all states that agree with the held sites."""
    target, space = make_target(SPACES[name]), SPACES[name]
    codes = space.all_codes().long()
    held = torch.zeros(space.num_sites, dtype=torch.bool)
    held[1:3] = True
    law = conditional(target, codes[5], held)
    states = law.nonzero()[:, 0]
    x = space.encode(codes[states], torch.float64)
    clamped, kernel = ClampedTarget(target, held.repeat(len(x), 1)), GWG()
    state = kernel.init(clamped, x, torch.tensor(1.0, dtype=torch.float64))
    weights = state.proposal.weights
    place = space.places()
    matrix = torch.zeros(len(codes), len(codes), dtype=torch.float64)
    for move in range(weights.shape[1]):
        upper = weights.cumsum(1)
        middle = (upper[:, move] - weights[:, move] / 2) / upper[:, -1]
        after, info = kernel.step(
            clamped, state, kernel.draw(state, torch.Generator())._replace(move=middle, accept=0 * middle)
        )
        there = (space.decode(after.x).long() * place).sum(1)
        share = weights[:, move] / upper[:, -1] * info.accept_prob
        moved = (there != states) & (share > 0)
        matrix[states[moved], there[moved]] += share[moved]
    flow = law[:, None] * matrix
    assert (flow - flow.T).abs().max() < 1e-12
    free = sum(size - 1 for size, is_held in zip(space.sizes, held.tolist(), strict=True) if not is_held)
    assert bool(((matrix > 0).sum(1)[states] == free).all()), "every free move is there, and no other"


@pytest.mark.parametrize("space", [Binary(200), Categorical(100, 4)])
def test_no_move_is_wasted_on_held_sites(space: Space) -> None:
    """Where all free points are equally probable, each step moves one of the two free sites."""
    held = torch.ones(20, space.num_sites, dtype=torch.bool)
    held[:, 3:5] = False
    target, x = Target(PottsEnergy(space)), space.encode(torch.zeros(20, space.num_sites, dtype=torch.uint8))
    chain = run_chain(GWG(), ClampedTarget(target, held), x, num_steps=9, generator=torch.Generator(), backend="eager")
    assert bool((chain.hops == 1).all())


class Unrefused(ClampedTarget):
    """A mutant: it does not refuse moves of held sites, and its gradient is not steep."""

    def _steep(self, x: Tensor, here: Evaluation) -> Evaluation:
        return Evaluation(here.f, here.grad, (here.grad, *here.aux))

    def log_ratio_of(self, change: Change, f_new: Tensor, f: Tensor, *, beta: Tensor) -> Tensor:
        return Target.log_ratio_of(self, change, f_new, f, beta=beta)


def test_a_mutant_that_refuses_nothing_touches_held_sites() -> None:
    target, held = make_target(SPACES["binary"]), torch.ones(50, 6, dtype=torch.bool)
    x = torch.zeros(50, 6, dtype=torch.float64)
    for cls, same in ((ClampedTarget, True), (Unrefused, False)):
        end = run_chain(GWG(), cls(target, held), x, num_steps=5, generator=torch.Generator(), backend="eager").x
        assert torch.equal(end, x) == same


def test_kernels_that_evaluate_several_points_a_chain_are_refused() -> None:
    target = make_target(SPACES["categorical"])
    held = torch.zeros(4, 4, dtype=torch.bool)
    x = target.space.encode(torch.zeros(4, 4, dtype=torch.uint8), torch.float64)
    with pytest.raises(ValueError, match="this kernel cannot hold sites"):
        run_chain(Gibbs(), ClampedTarget(target, held), x, num_steps=1, generator=torch.Generator(), backend="eager")
    with pytest.raises(ValueError, match="held must be bool of shape"):
        ClampedTarget(target, held.float())
