"""The objective's gradient is that of the likelihood, and a known model is recovered."""

import pytest
import torch
from torch import Tensor

from gwg_dist.batch import Batch, weighted_mean
from gwg_dist.chains import ChainBuffer
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.objectives import ContrastiveDivergence, Objective, ObjectiveResult, PseudoLikelihood
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Gibbs, Sampler, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space
from gwg_dist.testing import CheckError, check_gradient


def random_energy(space: Space, kind: str) -> MLPEnergy | RBMEnergy:
    torch.manual_seed(0)
    energy = MLPEnergy(space, num_hidden=6) if kind == "mlp" else RBMEnergy(space, num_hidden=4)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.normal_(0, 0.8)
    return energy.double()


def batch_of(codes: Tensor, weights: Tensor | None = None) -> Batch:
    """``weights`` become those of mean one."""
    if weights is None:
        return Batch(codes, torch.ones(len(codes)))
    return Batch(codes, weights / weights.mean())


def loss_of(objective: Objective, target: Target, batch: Batch, x_model: Tensor | None = None) -> ObjectiveResult:
    return objective(target, batch, x_model, generator=torch.Generator().manual_seed(3))


RAGGED = (Categorical(3, (2, 5, 3)), "mlp")
LIKELIHOOD = [(Binary(6), "mlp"), (Binary(6), "rbm"), (Categorical(3, 4), "mlp"), RAGGED]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(("space", "kind"), LIKELIHOOD)
def test_gradient_is_that_of_the_exact_likelihood(space: Space, kind: str, weighted: bool) -> None:
    """x- holds every state in exact proportion: the chains' limit, without their noise."""
    energy = random_energy(space, kind)
    target = Target(energy, Reference(space).double())
    codes = space.all_codes()
    x_all = space.encode(codes, torch.float64)
    data = codes[torch.randint(len(codes), (7,), generator=torch.Generator().manual_seed(1))]
    x_data = space.encode(data, torch.float64)

    weights = torch.tensor([0.1, 3.0, 0.0, 1.0, 0.4, 2.0, 7.0], dtype=torch.float64) if weighted else None
    log_unnormalised = target.log_prob(x_all, -energy(x_all))
    mean = weighted_mean(target.log_prob(x_data, -energy(x_data)), weights)
    nll = -(mean - torch.logsumexp(log_unnormalised, 0))
    exact = torch.autograd.grad(nll, list(energy.parameters()), allow_unused=True)

    pi = exact_log_prob(target)[0].exp()
    counts = (pi * 2_000_000).round().long()
    x_model = x_all.repeat_interleave(counts, 0)
    result = loss_of(ContrastiveDivergence(), target, batch_of(data, weights), x_model)
    found = torch.autograd.grad(result.loss, list(energy.parameters()), allow_unused=True)
    for a, b in zip(exact, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


def two_batches(space: Space, num: int) -> tuple[Tensor, Tensor]:
    one, other = (space.uniform_codes(num, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    return one, other


def test_power_swapped_batches_have_another_gradient() -> None:
    space = Binary(6)
    target = Target(random_energy(space, "rbm"), Reference(space).double())
    a, b = two_batches(space, 50)
    parameters = list(target.energy.parameters())  # pyright: ignore[reportFunctionMemberAccess]
    one = torch.autograd.grad(loss_of(ContrastiveDivergence(), target, batch_of(a), target.encode(b)).loss, parameters)
    other = torch.autograd.grad(
        loss_of(ContrastiveDivergence(), target, batch_of(b), target.encode(a)).loss, parameters
    )
    torch.testing.assert_close(one[0], -other[0], rtol=0, atol=1e-12)
    assert one[0].abs().max() > 1e-3


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_penalties_are_what_they_say(weighted: bool) -> None:
    space = Binary(5)
    energy = random_energy(space, "mlp")
    target = Target(energy)
    codes_a, codes_b = two_batches(space, 8)
    a, b = target.encode(codes_a), target.encode(codes_b)
    batch = batch_of(codes_a, torch.arange(8, dtype=torch.float64) if weighted else None)
    w = batch.weights.double()
    plain = loss_of(ContrastiveDivergence(), target, batch, b)
    l2 = loss_of(ContrastiveDivergence(energy_l2=0.3), target, batch, b).loss - plain.loss
    assert abs(float((l2 - 0.3 * ((w * energy(a).square()).mean() + energy(b).square().mean())).detach())) < 1e-12
    x = a.clone().requires_grad_()
    (grad,) = torch.autograd.grad(energy(x).sum(), x)
    penalty = loss_of(ContrastiveDivergence(gradient_penalty=0.7), target, batch, b).loss - plain.loss
    assert abs(float(penalty.detach() - 0.7 * (w * grad.square().sum(1)).mean())) < 1e-12
    l1 = loss_of(ContrastiveDivergence(weight_l1=0.1), target, batch, b).loss - plain.loss
    assert abs(float(l1.detach()) - 0.1 * sum(float(p.detach().abs().sum()) for p in energy.parameters())) < 1e-10
    assert torch.equal(plain.energy_data, energy(a).detach())
    with pytest.raises(ValueError, match="energy_l2 must not be negative, got -1"):
        ContrastiveDivergence(energy_l2=-1)


def test_weights_of_one_change_no_bit() -> None:
    """The loss and its gradient are those of plain means, in float32."""
    space = Binary(6)
    energy = random_energy(space, "mlp").float()
    target = Target(energy, Reference(space))
    codes_a, codes_b = two_batches(space, 50)
    a, b = target.encode(codes_a), target.encode(codes_b)
    result = loss_of(ContrastiveDivergence(energy_l2=0.1), target, batch_of(codes_a), b)
    energy_a, energy_b = energy(torch.cat([a, b])).split(50)
    plain = energy_a.mean() - energy_b.mean() + 0.1 * (energy_a.square().mean() + energy_b.square().mean())
    assert torch.equal(result.loss, plain)
    grads = [torch.autograd.grad(loss, list(energy.parameters()), allow_unused=True) for loss in (result.loss, plain)]
    assert all(x is y is None or torch.equal(x, y) for x, y in zip(*grads, strict=True))


# -- pseudo-likelihood -------------------------------------------------------------------------------------------------

PSEUDO = [(Binary(6), "mlp"), (Binary(2), "rbm"), (Categorical(3, 4), "mlp"), RAGGED]


def exact_pseudo_likelihood(target: Target, codes: Tensor, weights: Tensor) -> Tensor:
    """-mean_w sum_i log p(x_i | x_-i) from the table of log p of all points, normalised along each site's axis."""
    space, x = target.space, target.encode(target.space.all_codes())
    table = target.log_prob(x, -target.energy(x)).reshape(space.sizes)
    index = tuple(codes.long().T)
    terms = [table.log_softmax(site)[index] for site in range(space.num_sites)]
    return -(weights * torch.stack(terms).sum(0)).sum() / weights.sum()


@pytest.mark.parametrize("points_at_once", [8192, 5], ids=["at once", "in parts"])
@pytest.mark.parametrize(("space", "kind"), PSEUDO)
def test_pseudo_likelihood_is_exact(space: Space, kind: str, points_at_once: int) -> None:
    """The loss and its gradient, with an uneven reference and weights."""
    energy = random_energy(space, kind)
    generator = torch.Generator().manual_seed(1)
    frequencies = torch.rand(space.num_sites, space.num_categories, generator=generator, dtype=torch.float64)
    frequencies = space.without_padding(frequencies, 0.0)
    target = Target(energy, Reference(space).double().fit(frequencies / frequencies.sum(1, keepdim=True)))
    codes = space.uniform_codes(9, generator=generator)
    weights = torch.rand(9, generator=generator, dtype=torch.float64)
    exact = exact_pseudo_likelihood(target, codes, weights)
    found = loss_of(PseudoLikelihood(points_at_once=points_at_once), target, batch_of(codes, weights))
    torch.testing.assert_close(found.loss, exact, rtol=0, atol=1e-9)
    assert found.energy_model is None
    torch.testing.assert_close(found.energy_data, energy(target.encode(codes)).detach(), rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(loss, list(energy.parameters())) for loss in (found.loss, exact)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert max(float(grad.abs().max()) for grad in grads[0]) > 1e-2


def test_a_subset_of_sites_is_unbiased() -> None:
    """The mean over 4,000 draws of 2 of 6 sites lies within 5 standard errors of the whole sum."""
    space = Binary(6)
    target = Target(random_energy(space, "mlp"), Reference(space).double())
    codes = space.uniform_codes(5, generator=torch.Generator().manual_seed(1))
    exact = float(loss_of(PseudoLikelihood(), target, batch_of(codes)).loss.detach())
    generator, objective = torch.Generator().manual_seed(0), PseudoLikelihood(num_sites=2)
    with torch.no_grad():
        losses = torch.stack([objective(target, batch_of(codes), None, generator=generator).loss for _ in range(4000)])
    stderr = float(losses.std() / 4000**0.5)
    assert 0 < stderr < 0.05 * exact
    assert abs(float(losses.mean()) - exact) < 5 * stderr
    with pytest.raises(ValueError, match="num_sites must be at most the 6 sites of the space, got 7"):
        loss_of(PseudoLikelihood(num_sites=7), target, batch_of(codes))
    with pytest.raises(ValueError, match="num_sites must not be negative, got -1"):
        PseudoLikelihood(num_sites=-1)


@pytest.mark.parametrize("energy", [
    PottsEnergy(Categorical(4, 3), scale=1.0), PottsEnergy(Categorical(4, (2, 3, 4, 2)), scale=1.0),
    PottsEnergy(Binary(5), scale=1.0), IsingEnergy(Binary(5), scale=1.0),
], ids=lambda energy: f"{type(energy).__name__}-{energy.space}")  # fmt: skip
def test_models_of_pairs_have_all_conditionals_from_one_product(energy: Energy) -> None:
    """The same loss and gradient as by changing one site after the other, which ``num_sites = D`` does."""
    energy = energy.double()
    space = energy.space
    target = Target(energy, Reference(space).fit(some_frequencies(space)).double())
    codes = space.uniform_codes(9, generator=torch.Generator().manual_seed(5))
    batch = batch_of(codes, torch.arange(9, dtype=torch.float64))
    found = loss_of(PseudoLikelihood(), target, batch)
    right = loss_of(PseudoLikelihood(num_sites=space.num_sites), target, batch)
    assert torch.allclose(found.loss, right.loss, atol=1e-10)
    assert torch.allclose(found.energy_data, right.energy_data, atol=1e-10)
    for a, b in zip(*(torch.autograd.grad(r.loss, list(energy.parameters())) for r in (found, right)), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def some_frequencies(space: Space) -> Tensor:
    codes = space.uniform_codes(50, generator=torch.Generator().manual_seed(6))
    return torch.stack([(codes == k).double().mean(0) for k in range(space.num_categories)], 1)


def test_pseudo_likelihood_recovers_a_model_from_its_weighted_states() -> None:
    """The data are all states, each with its probability as weight: the minimum is the model itself."""
    space = Binary(6)
    truth, found = IsingEnergy(space).double(), IsingEnergy(space).double()
    with torch.no_grad():
        for parameter in truth.parameters():
            parameter.normal_(0, 0.4, generator=torch.Generator().manual_seed(2))
    reference = Reference(space).double()
    pi = exact_log_prob(Target(truth, reference))[0].exp()
    batch, target = batch_of(space.all_codes(), pi), Target(found, reference)
    optimizer = torch.optim.LBFGS(
        found.parameters(), max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(PseudoLikelihood(), target, batch).loss
        loss.backward()
        return loss

    started = float((pi * (pi.log() - exact_log_prob(target)[0])).sum())
    optimizer.step(closure)
    kl = float((pi * (pi.log() - exact_log_prob(target)[0])).sum())
    assert started > 0.1
    assert abs(kl) < 1e-9
    torch.testing.assert_close(found.coupling.detach(), truth.coupling.detach(), rtol=0, atol=1e-4)


# -- recovery ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [GWG(), Gibbs()], ids=str)
def test_recovers_the_couplings_of_a_torus(sampler: Sampler) -> None:
    """4x4 torus, σ = 0.1, 20,000 exact samples: RMSE of J within 1.5 times what any unbiased estimate can reach.

    log p = sum_{i<j} 2 J_ij s_i s_j - log Z, so the Fisher information of the pairs is 4 N Cov[s_i s_j, s_k s_l]
    (Cramér and Rao); the covariance is taken exactly. The bound on the RMSE is about 0.0040.
    """
    space = Binary((4, 4))
    truth = IsingTorusEnergy(space, sigma=0.1)
    codes = space.all_codes()
    pi = exact_log_prob(Target(truth))[0].exp()
    generator = torch.Generator().manual_seed(0)
    data = codes[torch.multinomial(pi, 20_000, replacement=True, generator=generator)]

    energy = IsingEnergy(space)
    target = Target(energy)
    buffer = ChainBuffer(size=2000, init="uniform")
    buffer.setup(space, Reference(space), data, generator=generator)
    optimizer = torch.optim.Adam(energy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 900)
    objective = ContrastiveDivergence()
    for _ in range(900):
        batch = data[torch.randint(len(data), (2000,), generator=generator)]
        start = buffer.start(batch, generator=generator)
        chain = run_chain(sampler, target, space.encode(start.codes), num_steps=8, generator=generator)
        buffer.keep(start, space.decode(chain.x))
        optimizer.zero_grad()
        objective(target, batch_of(batch), chain.x, generator=generator).loss.backward()
        optimizer.step()
        schedule.step()
    rmse = float((energy.coupling.detach() - truth.coupling).square().mean().sqrt())
    bound = cramer_rao_rmse(codes, pi, len(data))
    print(f"RMSE of J {rmse:.5f}, Cramér-Rao bound {bound:.5f}")
    assert float(truth.coupling.square().mean().sqrt()) > 10 * bound
    assert rmse < 1.5 * bound


def cramer_rao_rmse(codes: torch.Tensor, pi: torch.Tensor, num: int) -> float:
    """sqrt of the mean over the D^2 entries of J of the smallest variance of an unbiased estimate."""
    s = 2 * codes.double() - 1
    i, j = torch.triu_indices(s.shape[1], s.shape[1], 1)
    pairs = s[:, i] * s[:, j]
    mean = pi @ pairs
    covariance = (pairs * pi[:, None]).T @ pairs - mean[:, None] * mean
    variances = torch.linalg.inv(4 * num * covariance).diagonal()
    return float((2 * variances.sum() / s.shape[1] ** 2).sqrt())


def pseudo_likelihood(target: Target, batch: Batch) -> torch.Tensor:
    """-mean_w sum_i log p(x_i | rest), every conditional from the energies of all its categories, one at a time."""
    space, total = target.space, []
    for row in batch.codes.long():
        sites = []
        for site in range(space.num_sites):
            others = row.repeat(space.num_categories, 1)
            others[:, site] = torch.arange(space.num_categories)
            x = target.encode(others.to(space.code_dtype))
            sites.append(torch.log_softmax(target.log_prob(x, -target.energy(x)), 0)[row[site]])
        total.append(torch.stack(sites).sum())
    return -(torch.stack(total) * batch.weights).mean()


@pytest.mark.parametrize("space", [Binary(4), Categorical(3, 3)], ids=repr)
def test_losses_have_the_gradient_that_they_claim(space: Space) -> None:
    energy = MLPEnergy(space, num_hidden=6)
    check_gradient(ContrastiveDivergence(), energy)
    check_gradient(PseudoLikelihood(), energy, exact=pseudo_likelihood)
    with pytest.raises(CheckError, match=r"the gradient in .* is off by"):
        check_gradient(PseudoLikelihood(), energy)
    with pytest.raises(CheckError, match=r"the gradient in .* is off by"):
        check_gradient(ContrastiveDivergence(energy_l2=0.1), energy)
