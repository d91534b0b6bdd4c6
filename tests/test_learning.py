"""The objective's gradient is that of the likelihood, and a known model is recovered."""

import pytest
import torch

from gwg_dist.chains import ChainBuffer
from gwg_dist.energies import IsingEnergy, IsingTorusEnergy, MLPEnergy, RBMEnergy
from gwg_dist.evaluation import exact_log_prob
from gwg_dist.objectives import ContrastiveDivergence
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, Gibbs, Sampler, Target, run_chain
from gwg_dist.spaces import Binary, Categorical, Space


def random_energy(space: Space, kind: str) -> MLPEnergy | RBMEnergy:
    torch.manual_seed(0)
    energy = MLPEnergy(space, num_hidden=6) if kind == "mlp" else RBMEnergy(space, num_hidden=4)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.normal_(0, 0.8)
    return energy.double()


@pytest.mark.parametrize(("space", "kind"), [(Binary(6), "mlp"), (Binary(6), "rbm"), (Categorical(3, 4), "mlp")])
def test_gradient_is_that_of_the_exact_likelihood(space: Space, kind: str) -> None:
    """x- holds every state in exact proportion: the chains' limit, without their noise."""
    energy = random_energy(space, kind)
    target = Target(energy, Reference(space).double())
    codes = space.all_codes()
    x_all = space.encode(codes, torch.float64)
    data = codes[torch.randint(len(codes), (7,), generator=torch.Generator().manual_seed(1))]
    x_data = space.encode(data, torch.float64)

    log_unnormalised = target.log_prob(x_all, -energy(x_all))
    nll = -(target.log_prob(x_data, -energy(x_data)).mean() - torch.logsumexp(log_unnormalised, 0))
    exact = torch.autograd.grad(nll, list(energy.parameters()), allow_unused=True)

    pi = exact_log_prob(target)[0].exp()
    counts = (pi * 2_000_000).round().long()
    x_model = x_all.repeat_interleave(counts, 0)
    result = ContrastiveDivergence()(energy, x_data, x_model)
    found = torch.autograd.grad(result.loss, list(energy.parameters()), allow_unused=True)
    for a, b in zip(exact, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


def test_power_swapped_batches_have_another_gradient() -> None:
    space = Binary(6)
    energy = random_energy(space, "rbm")
    a, b = (
        space.encode(space.uniform_codes(50, generator=torch.Generator().manual_seed(s)), torch.float64) for s in (0, 1)
    )
    parameters = list(energy.parameters())
    one = torch.autograd.grad(ContrastiveDivergence()(energy, a, b).loss, parameters)[0]
    other = torch.autograd.grad(ContrastiveDivergence()(energy, b, a).loss, parameters)[0]
    torch.testing.assert_close(one, -other, rtol=0, atol=1e-12)
    assert one.abs().max() > 1e-3


def test_penalties_are_what_they_say() -> None:
    space = Binary(5)
    energy = random_energy(space, "mlp")
    a, b = (
        space.encode(space.uniform_codes(8, generator=torch.Generator().manual_seed(s)), torch.float64) for s in (0, 1)
    )
    plain = ContrastiveDivergence()(energy, a, b)
    l2 = ContrastiveDivergence(energy_l2=0.3)(energy, a, b).loss - plain.loss
    assert abs(float(l2.detach() - 0.3 * (energy(a).square().mean() + energy(b).square().mean()).detach())) < 1e-12
    x = a.clone().requires_grad_()
    (grad,) = torch.autograd.grad(energy(x).sum(), x)
    penalty = ContrastiveDivergence(gradient_penalty=0.7)(energy, a, b).loss - plain.loss
    assert abs(float(penalty.detach() - 0.7 * grad.square().sum(1).mean())) < 1e-12
    l1 = ContrastiveDivergence(weight_l1=0.1)(energy, a, b).loss - plain.loss
    assert abs(float(l1.detach()) - 0.1 * sum(float(p.detach().abs().sum()) for p in energy.parameters())) < 1e-10
    assert torch.equal(plain.energy_data, energy(a).detach())
    with pytest.raises(ValueError, match="energy_l2 must not be negative, got -1"):
        ContrastiveDivergence(energy_l2=-1)


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
        objective(energy, space.encode(batch), chain.x).loss.backward()
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
