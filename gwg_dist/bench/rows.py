"""What is timed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gwg_dist.batch import Batch
from gwg_dist.bench.measure import Row, Sides
from gwg_dist.bench.published import PublishedStep
from gwg_dist.chains import ChainBuffer
from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.evaluation import ais
from gwg_dist.objectives import ContrastiveDivergence
from gwg_dist.reference import Reference
from gwg_dist.samplers import DMALA, GWG, PAS, BlockGibbs, Sampler, SurrogateGWG, Target, plan_chains, run_chain
from gwg_dist.spaces import Binary, Categorical
from gwg_dist.tools.provenance import has_bfloat16

IMAGE = Binary((28, 28))
BLOCK = 8


class Model:
    """An energy on a device with its reference, chains and the other side; gradients in bfloat16 or not."""

    def __init__(self, energy: Energy, *, chains: int, device: torch.device, mixed: bool = False) -> None:
        self.energy = energy.to(device)
        self.generator = torch.Generator(device).manual_seed(0)
        self.reference = Reference(energy.space).to(device)
        self.target = Target(self.energy, self.reference, mixed_precision=mixed)
        self.x = energy.space.encode(self.reference.sample(chains, generator=self.generator))

    def published(self) -> PublishedStep:
        return PublishedStep(self.energy, self.reference)

    def flops(self) -> float:
        """Of one forward and, as many again, one backward in x; 0 for classical models, which make other products."""
        if not isinstance(self.energy, MLPEnergy | ResNetEnergy):
            return 0.0
        with FlopCounterMode(display=False) as counter:
            self.target.f(self.x)
        return 2.0 * counter.get_total_flops()


def make_rows(*, quick: bool, chains: int, backend: str, device: torch.device) -> list[Row]:
    """Every row of the table; nothing is built before it is timed."""
    few = 1 if quick else 2
    iteration = BLOCK if quick else 5 * BLOCK

    def step(make: Callable[[], Energy], steps: int, published: int, **other) -> Callable[[], Sides]:
        num, mixed = other.pop("chains", chains), other.pop("mixed", False)
        return lambda: step_sides(
            Model(make(), chains=num, device=device, mixed=mixed), steps, published, backend=backend, **other
        )

    def resnet(mixed: bool = False) -> Model:
        return Model(ResNetEnergy(IMAGE), chains=chains, device=device, mixed=mixed)

    def mlp() -> Energy:
        return MLPEnergy(IMAGE, num_hidden=512, num_layers=3)

    def rbm() -> Energy:
        return RBMEnergy(IMAGE, num_hidden=500, scale=0.05)

    def torus() -> Energy:
        return IsingTorusEnergy(Binary((40, 40)), sigma=0.15)

    surrogate = SurrogateGWG(block=BLOCK)
    deep: list[tuple[str, Callable[[bool], Sides]]] = [
        ("step, MLP 784-512-512-512-1", lambda mixed: step(mlp, 40, 20, mixed=mixed)()),
        ("step, RBM 784 x 500", lambda mixed: step(rbm, 100, 20, mixed=mixed)()),
        ("step, RBM 784 x 500, 1000 chains", lambda mixed: step(rbm, 20, 3, chains=1000, mixed=mixed)()),
        ("step, ResNet-64", lambda mixed: step_sides(resnet(mixed), 4 * few, 2 * few, backend=backend)),
        (
            f"PCD iteration, ResNet-64, {iteration} steps",
            lambda mixed: pcd_sides(resnet(mixed), GWG(), iteration, backend),
        ),
        ("AIS temperature, ResNet-64", lambda mixed: ais_sides(resnet(mixed), 8 * few, 2 * few, backend)),
    ]
    rows = [
        *(row for name, build in deep for row in in_both_precisions(name, build)),
        Row("step, Ising torus 40x40", step(torus, 1000, 5)),
        Row("step, Ising torus 100x100", step(lambda: IsingTorusEnergy(Binary((100, 100)), sigma=0.15), 1000, 1)),
        Row("step, dense Ising, 1600 sites", step(lambda: IsingEnergy(Binary(1600), scale=0.01), 200, 5)),
        Row("step, dense Potts, 100 x 21", step(lambda: PottsEnergy(Categorical(100, 21), scale=0.02), 200, 3)),
        Row(
            f"step, ResNet-64, bfloat16 block of {BLOCK}, exact",
            lambda: step_sides(resnet(), few, 2, sampler=surrogate, per_step=BLOCK, backend=backend),
        ),
        Row(
            f"PCD iteration, ResNet-64, {iteration} steps, bfloat16 blocks, exact",
            lambda: pcd_sides(resnet(), surrogate, iteration, backend),
        ),
        *many_site_rows(rbm, backend=backend, chains=chains, device=device),
        *sweep_and_storage_rows(torus, rbm, few=few, chains=chains, device=device),
    ]
    return [row for row in rows if "bfloat16" not in row.name or has_bfloat16(device)]


def sweep_and_storage_rows(
    torus: Callable[[], Energy], rbm: Callable[[], Energy], *, few: int, chains: int, device: torch.device
) -> list[Row]:
    """Sweeps of block Gibbs sampling, and what keeping chains costs."""
    return [
        Row("two-colour Gibbs sweep, torus 40x40", lambda: sweep_sides(torus(), 50, chains, device)),
        Row(
            "Gibbs sweep, dense Potts, 136 x 5, 2000 chains",
            lambda: sweep_sides(PottsEnergy(Categorical(136, 5), scale=0.1), few, 2000, device),
        ),
        Row("Gibbs sweep, RBM 784 x 500", lambda: sweep_sides(rbm(), 10, chains, device)),
        Row("buffer: 100 of 10,000 chains out and in", lambda: buffer_sides(device)),
        Row("checkpoint of 1,000,000 chains of 28x28", lambda: checkpoint_sides(device)),
    ]


def many_site_rows(rbm: Callable[[], Energy], *, backend: str, chains: int, device: torch.device) -> list[Row]:
    """Steps that change many sites, against the same kernel by autograd: there is no step as published in torch."""
    models: list[tuple[str, Callable[[], Energy], int, int]] = [
        ("RBM 784 x 500", rbm, 50, 10),
        ("Ising torus 40x40", lambda: IsingTorusEnergy(Binary((40, 40)), sigma=0.15), 100, 5),
        ("dense Ising, 1600 sites", lambda: IsingEnergy(Binary(1600), scale=0.01), 50, 5),
    ]

    def row(sampler: Sampler, name: str, make: Callable[[], Energy], steps: int, plain_steps: int) -> Row:
        def sides() -> Sides:
            model = Model(make(), chains=chains, device=device)
            ours, plain = Stepper(model, sampler, steps, backend), Stepper(model, sampler, plain_steps, "plain")
            return Sides(ours.run, plain.run, steps, plain_steps, chains, how=str(ours.plan))

        return Row(f"step, {type(sampler).__name__}, {name}, against autograd", sides)

    return [row(sampler, *model) for sampler in (DMALA(), PAS()) for model in models]


def in_both_precisions(name: str, build: Callable[[bool], Sides]) -> list[Row]:
    """A row in float32 and one with gradients, not energies, in bfloat16."""
    return [Row(name, lambda: build(False)), Row(f"{name}, gradient in bfloat16", lambda: build(True))]


def step_sides(
    model: Model, steps: int, published_steps: int, *, sampler: Sampler | None = None, per_step: int = 1, backend: str
) -> Sides:
    """The body of ``run_chain`` without its first evaluation, so that what is timed is a step."""
    ours = Stepper(model, sampler or GWG(), steps, backend)
    published = model.published()
    return Sides(
        ours.run, lambda: published.chain(model.x, published_steps), steps * per_step, published_steps,
        len(model.x), model.flops(), str(ours.plan),
    )  # fmt: skip


class Stepper:
    """``steps`` steps of chains that go on from call to call."""

    def __init__(self, model: Model, sampler: Sampler, steps: int, backend: str) -> None:
        with torch.no_grad():
            beta = torch.ones((), device=model.x.device)
            self.plan = plan_chains(sampler, model.target, model.x, beta=beta, backend=backend)
            self.state = self.plan.kernel.init(self.plan.target, model.x, beta)
        self.steps, self.generator = steps, model.generator

    def run(self) -> None:
        kernel, target = self.plan
        with torch.no_grad():
            for _ in range(self.steps):
                self.state, _ = kernel.step(target, self.state, kernel.draw(self.state, self.generator))


def pcd_sides(model: Model, sampler: Sampler, num_steps: int, backend: str) -> Sides:
    """Chains moved, the loss of data against chains, its gradient, Adam."""
    objective, published = ContrastiveDivergence(), model.published()
    codes = model.reference.sample(len(model.x), generator=model.generator)
    batch = Batch(codes, torch.ones(len(codes), device=codes.device))
    optimizer = torch.optim.Adam(model.energy.parameters(), lr=1e-5)
    transitions = num_steps // (sampler.block if isinstance(sampler, SurrogateGWG) else 1)

    def learn(x: Tensor) -> None:
        optimizer.zero_grad()
        objective(model.target, batch, x, generator=model.generator).loss.backward()
        optimizer.step()

    def ours() -> None:
        chain = run_chain(
            sampler, model.target, model.x, num_steps=transitions, generator=model.generator, backend=backend
        )
        learn(chain.x)

    return Sides(ours, lambda: learn(published.chain(model.x, num_steps)), 1, 1, len(model.x) * num_steps)


def ais_sides(model: Model, temperatures: int, published: int, backend: str) -> Sides:
    """The whole estimate, divided by its temperatures."""
    other = model.published()

    def ours() -> None:
        ais(
            model.target, GWG(), generator=model.generator, num_chains=len(model.x), num_temperatures=temperatures,
            backend=backend,
        )  # fmt: skip

    return Sides(
        ours, lambda: other.ais(model.x, published), temperatures, published, len(model.x), model.flops()
    )  # fmt: skip


def sweep_sides(energy: Energy, sweeps: int, chains: int, device: torch.device) -> Sides:
    """Sweeps alone; chain-steps/s counts sites."""
    model = Model(energy, chains=chains, device=device)
    ours = Stepper(model, BlockGibbs(), sweeps, "auto")
    return Sides(ours.run, None, sweeps, chains=chains * model.x.shape[1], how=str(ours.plan))


def buffer_sides(device: torch.device) -> Sides:
    """Drawn, unpacked, packed again and written back; chain-steps/s counts chains."""
    generator = torch.Generator(device).manual_seed(0)
    buffer = ChainBuffer(size=10_000)
    data = IMAGE.uniform_codes(100, generator=generator)
    buffer.setup(IMAGE, Reference(IMAGE).to(device), data, generator=generator)

    def traffic() -> None:
        for _ in range(20):
            start = buffer.start(data, generator=generator)
            x = IMAGE.encode(start.codes)
            buffer.keep(start, IMAGE.decode(x))

    return Sides(traffic, None, 20, chains=100, how=f"{buffer.packed.numel() / 1e6:.2f} MB")


def checkpoint_sides(device: torch.device) -> Sides:
    """Gathered and written to disk."""
    generator = torch.Generator(device).manual_seed(0)
    buffer = ChainBuffer(size=1_000_000, init="uniform")
    buffer.setup(IMAGE, Reference(IMAGE).to(device), IMAGE.uniform_codes(1, generator=generator), generator=generator)
    folder = tempfile.TemporaryDirectory()

    def save(_: object = folder) -> None:
        torch.save({"chains": {"packed": buffer.gather()}}, Path(folder.name) / "chains.ckpt")

    return Sides(save, None, 1, chains=1_000_000, how=f"{buffer.packed.numel() / 1e6:.0f} MB")
