"""The method on one page: maximum likelihood with persistent Gibbs-With-Gradients chains, as a Lightning module.

Same weights on every rank, different chains: sampling runs on the bare energy without collectives, and an iteration
has one all-reduce, that of the gradient (every tenth has another, of the six numbers of the lag). Batch size and number
of chains are those of all ranks together, so a run means the same on one GPU and on eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from gwg_dist.batch import Batch
from gwg_dist.chains import ChainBuffer, ChainSource, DataChains, restore_chains, save_chains
from gwg_dist.data import DiscreteData
from gwg_dist.energies import Energy
from gwg_dist.evaluation import Assessment
from gwg_dist.iteration import IterationStats, chain_lag
from gwg_dist.objectives import ContrastiveDivergence, Objective
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, ChainResult, Sampler, Target, check_backend
from gwg_dist.samplers.run import chains_running
from gwg_dist.target import MixedPrecision
from gwg_dist.tools.distributed import any_rank, rank, world_size
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.updates import BeforeUpdate, Schedule, make_optimizer

NUM_DATA_STARTS = 10_000
LAG_EVERY = 10  # iterations between two measurements of the lag, which take two evaluations of E on the chains


class EBMModule(LightningModule):
    """p(x) = ref(x) exp(-E(x)) / Z, fitted by ascending E_model[∇E] - E_data[∇E] (Grathwohl et al., 2021, equation 2).

    Args:
        energy: E.
        sampler: kernel that moves the chains; GWG() where none is given.
        chains: where chains start; ChainBuffer() where none is given. An objective without chains has no use for it.
        objective: the loss; ContrastiveDivergence() where none is given.
        num_steps: kernel transitions an iteration.
        learning_rate: learning rate after the warm-up, unless ``optimizer`` sets one of its own.
        warmup_iterations: iterations over which the learning rate rises linearly.
        cooldown: last fraction of the run's iterations, over which the learning rate falls linearly; 0 for none.
        weight_decay: decoupled weight decay, by AdamW in place of Adam; 0 for none. ``optimizer`` has its own.
        optimizer: makes the optimizer from the parameters; Adam where none is given.
        smoothing: smoothing of the reference, which is fitted to the training data and then frozen.
        backend: how chains are run, see ``plan_chains``: "auto", "plain", "eager", "compiled" or "graph".
        mixed_precision: whether chains follow gradients in bfloat16, see ``Target``; f stays in full precision, and so
            chains stay exact. "auto": where it is faster.
        seed: seed of every random stream of the run.

    Raises:
        ValueError: a count, rate or smoothing outside its range.
    """

    def __init__(
        self,
        energy: Energy,
        sampler: Sampler | None = None,
        chains: ChainSource | None = None,
        objective: Objective | None = None,
        *,
        num_steps: int = 10,
        learning_rate: float = 3e-3,
        warmup_iterations: int = 0,
        cooldown: float = 0.0,
        weight_decay: float = 0.0,
        optimizer: Callable[[Iterable], Optimizer] | None = None,
        smoothing: float = 0.02,
        backend: str = "auto",
        mixed_precision: MixedPrecision = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("num_steps", num_steps), ("learning_rate", learning_rate)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, value in (("warmup_iterations", warmup_iterations), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not 0 <= cooldown <= 1:
            raise ValueError(f"cooldown must lie in [0, 1], got {cooldown}")
        if optimizer is not None and weight_decay:
            raise ValueError(f"weight_decay is for the default optimizer; give {weight_decay} to optimizer itself")
        check_backend(backend)
        self.energy = energy
        self.space = energy.space
        self.reference = Reference(self.space, smoothing=smoothing)
        self.target = Target(self.energy, self.reference, mixed_precision=mixed_precision)
        self.sampler = sampler or GWG()
        self.objective = objective or ContrastiveDivergence()
        self.chains = (chains or ChainBuffer()) if self.objective.needs_chains else DataChains()
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.warmup_iterations = warmup_iterations
        self.cooldown = cooldown
        self.weight_decay = weight_decay
        self.make_optimizer = optimizer
        self.backend = backend
        self.seed = seed
        # What callbacks tell each other: the last iteration and the ends of its chains, the newest assessment and
        # symptoms, and how to see averaged weights.
        self.stats: IterationStats | None = None
        self.assessment: tuple[int, Assessment] | None = None
        self.symptoms: Sequence[Any] = ()
        self.evaluated_weights: Callable[[], AbstractContextManager[None]] = nullcontext
        self._saved_chains: dict[str, Any] | None = None
        self.chain_ends: Tensor | None = None
        self.chain_energies: Tensor | None = None  # of these, before the update
        self._watched: tuple[ChainResult, Tensor] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """A word or None over a plain attribute, as Lightning writes around every hook, needs no search among parts."""
        if (value is None or isinstance(value, str)) and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)  # pyright: ignore[reportArgumentType]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One iteration: chains move where the objective needs them, then the loss of this rank's share."""
        chain = None
        if self.objective.needs_chains:
            chain = self.chains.advance(
                self.sampler, self.target, batch,
                num_steps=self.num_steps, generator=self.generator, backend=self.backend,
            )  # fmt: skip
            self.chain_ends = chain.x
            if (self.global_step + 1) % LAG_EVERY == 0:
                self._watched = chain, self.energy_of(chain.x)
        result = self.objective(self.target, batch, None if chain is None else chain.x, generator=self.generator)
        self.chain_energies = result.energy_model
        lag = None if self.stats is None else self.stats.lag
        self.stats = IterationStats.of(result, batch, chain)._replace(lag=lag)
        # DDP averages over ranks; shares may differ by one, so each loss counts by its share of the global batch.
        return result.loss * (len(batch.codes) * world_size() / self.data.batch_size)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """The optimizer has the parameters of the energy and no others."""
        self.energy.zero_grad()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """The update; it is taken back on all ranks where the chains of any rank do not accept it."""
        before = BeforeUpdate(self.trainer.optimizers[0]) if self.chains.may_veto else None
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._measure_lag()
        if before is not None and any_rank(int(not self.chains.accepts(self.target)), self.device):
            before.put_back()

    def _measure_lag(self) -> None:
        """Right after an update, in every tenth iteration."""
        watched, self._watched = self._watched, None
        if watched is None or self.stats is None:
            return
        chain, before = watched
        lag = chain_lag(
            before, self.energy_of(chain.x), chain.hops, interval=self.chains.interval(self.data.batch_size),
            num_steps=self.num_steps, num_sites=self.space.num_sites,
        )  # fmt: skip
        self.stats = self.stats._replace(lag=lag)

    def energy_of(self, x: Tensor) -> Tensor:
        """E of points ``(B, D)`` or ``(B, D, K)`` on the present weights, ``(B,)`` nats, without a gradient."""
        with chains_running(self.target, x):
            return -self.target.f(x)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Raises InputError for a cooldown of a run whose end is not known."""
        length = self.trainer.max_steps if self.cooldown else 0
        if self.cooldown and length < 1:
            raise InputError(f"model.cooldown {self.cooldown} needs a run of known length: set trainer.max_steps")
        optimizer = self.new_optimizer()
        schedule = Schedule(optimizer, warmup=self.warmup_iterations, cooldown=self.cooldown, length=length)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def new_optimizer(self) -> Optimizer:
        """The optimizer that the settings name, in its first state."""
        return make_optimizer(
            self.make_optimizer, self.energy.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )

    @property
    def schedule(self) -> Schedule:
        """The learning rate over the iterations; there once training has begun."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, Schedule)
        return schedule

    @property
    def data(self) -> DiscreteData:
        """The trainer's data module."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def setup(self, stage: str) -> None:
        """Fit the reference. Raises InputError where the energy's space is not that of the data."""
        if self.data.space != self.space:
            raise InputError(f"the energy is for {self.space}, but the data are in {self.data.space}")
        self.data.seed = self.seed
        self.reference.fit(self.data.frequencies())

    def on_train_start(self) -> None:
        """Make this rank's generator and chains, or take them from the checkpoint."""
        self.chains.check_batch(self.data.batch_size)
        self.generator = make_generator(self.seed, "chains", rank(), device=self.device)
        data = self.data.sample_codes(NUM_DATA_STARTS)
        self.chains.setup(
            self.space, self.reference, data, generator=self.generator, rank=rank(), world_size=world_size()
        )
        saved, self._saved_chains = self._saved_chains, None
        if saved is not None:
            self.generator = restore_chains(
                self.chains, saved, self.generator, seed=self.seed, iteration=self.global_step
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the run needs to go on: the chains and generators of all ranks. Called on every rank."""
        checkpoint["chains"] = save_chains(self.chains, self.generator)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._saved_chains = checkpoint["chains"]
