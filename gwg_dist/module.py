"""The method on one page: maximum likelihood with persistent Gibbs-With-Gradients chains, as a Lightning module.

Same weights on every rank, different chains: sampling runs on the bare energy without collectives, and an iteration
has one all-reduce, that of the gradient. Batch size and number of chains are those of all ranks together, so a run
means the same on one GPU and on eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gwg_dist.batch import Batch
from gwg_dist.chains import ChainBuffer, ChainSource, DataChains
from gwg_dist.data import DiscreteData
from gwg_dist.energies import Energy
from gwg_dist.objectives import ContrastiveDivergence, Objective, ObjectiveResult
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, ChainResult, Sampler, Target
from gwg_dist.samplers.run import BACKENDS
from gwg_dist.tools.distributed import any_rank, from_rank_0, gather_rows, rank, world_size
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import STREAMS, make_generator
from gwg_dist.updates import BeforeUpdate, make_optimizer

NUM_DATA_STARTS = 10_000


class IterationStats(NamedTuple):
    """The last iteration on this rank, 0-d tensors on the device.

    Args:
        loss: with its penalties.
        energy_data: weighted mean E of the data, nats.
        energy_gap: mean E of the chains minus ``energy_data``, nats. This and what follows is None without chains.
        accept_prob: mean over steps and chains.
        hops: mean number of sites changed a step.
    """

    loss: Tensor
    energy_data: Tensor
    energy_gap: Tensor | None = None
    accept_prob: Tensor | None = None
    hops: Tensor | None = None

    @classmethod
    def of(cls, result: ObjectiveResult, batch: Batch, chain: ChainResult | None) -> IterationStats:
        energy_data = (batch.weights.to(result.energy_data.dtype) * result.energy_data).mean()
        stats = cls(result.loss.detach(), energy_data)
        if chain is None or result.energy_model is None:
            return stats
        gap = result.energy_model.mean() - energy_data
        return stats._replace(energy_gap=gap, accept_prob=chain.accept_prob.mean(), hops=chain.hops.mean())

    def known(self) -> dict[str, Tensor]:
        """By name, without what is None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class EBMModule(LightningModule):
    """p(x) = ref(x) exp(-E(x)) / Z, fitted by ascending E_model[∇E] - E_data[∇E] (Grathwohl et al., 2021, equation 2).

    Args:
        energy: E.
        sampler: the kernel that moves the chains; GWG() where none is given.
        chains: where they start; ChainBuffer() where none is given. An objective without chains has no use for it.
        objective: the loss; ContrastiveDivergence() where none is given.
        num_steps: kernel transitions an iteration.
        learning_rate: of the optimizer after the warm-up, unless ``optimizer`` sets one of its own.
        warmup_iterations: the learning rate rises linearly over so many iterations.
        optimizer: makes it from the parameters; Adam where none is given.
        smoothing: of the reference, which is fitted to the training data and then frozen.
        backend: how chains are run, see ``plan_chains``: "auto", "plain", "eager", "compiled" or "graph".
        seed: of every random stream of the run.

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
        optimizer: Callable[[Iterable], Optimizer] | None = None,
        smoothing: float = 0.02,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps must be positive, got {num_steps}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        if warmup_iterations < 0:
            raise ValueError(f"warmup_iterations must not be negative, got {warmup_iterations}")
        self.energy = energy
        self.space = energy.space
        self.reference = Reference(self.space, smoothing=smoothing)
        self.target = Target(self.energy, self.reference)
        self.sampler = sampler if sampler is not None else GWG()
        self.objective = objective if objective is not None else ContrastiveDivergence()
        self.chains = chains if chains is not None else ChainBuffer()
        if not self.objective.needs_chains:
            self.chains = DataChains()  # keeps nothing
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.warmup_iterations = warmup_iterations
        self.make_optimizer = optimizer
        self.backend = backend
        self.seed = seed
        self.stats: IterationStats | None = None
        self.start_iteration = 0  # of the checkpoint that this process goes on from
        self._restored: dict[str, Any] | None = None

    # -- the method -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One iteration: chains move where the objective needs them, then the loss of this rank's share."""
        chain = None
        if self.objective.needs_chains:
            chain = self.chains.advance(
                self.sampler, self.target, batch,
                num_steps=self.num_steps, generator=self.generator, backend=self.backend,
            )  # fmt: skip
        x_model = None if chain is None else chain.x
        result = self.objective(self.target, batch, x_model, generator=self.generator)
        self.stats = IterationStats.of(result, batch, chain)
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and (self.global_step + 1) % every == 0:  # Lightning's log takes longer than a step of a small model
            self.log_dict({f"train/{name}": value for name, value in self.stats.known().items()})
        # DDP averages over ranks; shares may differ by one, so each loss counts by its share of the global batch.
        return result.loss * (len(batch.codes) * world_size() / self.data.batch_size)

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
        if before is not None and any_rank(int(not self.chains.accepts(self.target)), self.device):
            before.put_back()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = make_optimizer(self.make_optimizer, self.energy.parameters(), self.learning_rate)
        self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._ramp), "interval": "step"},
        }

    # -- setting up and resuming ----------------------------------------------------------------------------------

    @property
    def data(self) -> DiscreteData:
        """The trainer's data module."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def setup(self, stage: str) -> None:
        """Fit the reference.

        Raises InputError where the energy's space is not that of the data, or ranks start from different iterations.
        """
        if stage != "fit":
            return
        first = from_rank_0(self.start_iteration)
        if any_rank(int(first != self.start_iteration), self.trainer.strategy.root_device):
            raise InputError(
                f"this process goes on from iteration {self.start_iteration}, rank 0 from {first}, and others from yet "
                "another: run_dir must be on a disk that all see, with the same --ckpt_path"
            )
        if self.data.space != self.space:
            raise InputError(f"the energy is for {self.space}, but the data are in {self.data.space}")
        self.data.seed = self.seed
        self.reference.fit(self.data.frequencies())

    def on_train_start(self) -> None:
        """Make this rank's generator and chains, or take them from the checkpoint.

        Raises InputError where there are fewer points in a batch than ranks.
        """
        if self.data.batch_size < world_size():
            raise InputError(f"data.batch_size must be at least the {world_size()} ranks, got {self.data.batch_size}")
        self.generator = make_generator(self.seed, "chains", rank(), device=self.device)
        data = self.data.sample_codes(NUM_DATA_STARTS)
        self.chains.setup(
            self.space, self.reference, data, generator=self.generator, rank=rank(), world_size=world_size()
        )
        if self._restored is not None:
            self._restore_chains(self._restored)
            self._restored = None
            self._take_learning_rate()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the run needs to go on: the chains and generators of all ranks. Called on every rank."""
        checkpoint["gwg_dist"] = {
            "energy": type(self.energy).__name__,
            "space": repr(self.space),
            "seed": self.seed,
            "streams": STREAMS,
            "smoothing": self.reference.smoothing,
            "optimizer": type(self.trainer.optimizers[0]).__name__,
        }
        state = self.generator.get_state()
        checkpoint["chains"] = {
            "packed": self.chains.gather(),
            "generators": gather_rows(state[None].to(self.device)).cpu(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises InputError where the checkpoint is of another model."""
        check_checkpoint(checkpoint, self)
        self._restored = checkpoint["chains"]

    def _take_learning_rate(self) -> None:
        """A resumed run goes on with the learning rate of its settings, not with that of its checkpoint."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        scheduler.base_lrs = list(self._learning_rates)
        for group, rate in zip(scheduler.optimizer.param_groups, self._learning_rates, strict=True):
            group["initial_lr"] = rate
            group["lr"] = rate * self._ramp(scheduler.last_epoch)

    def _ramp(self, iteration: int) -> float:
        return min(1.0, (iteration + 1) / max(self.warmup_iterations, 1))

    def _restore_chains(self, restored: dict[str, Any]) -> None:
        """The same number of ranks goes on bit for bit; on another, or another kind of device, generators are new."""
        self.chains.restore(restored["packed"])
        states = restored["generators"]
        if states.shape == (world_size(), len(self.generator.get_state())):
            self.generator.set_state(states[rank()].clone())  # set_state reads from the start of the storage
        else:
            self.generator = make_generator(
                self.seed, "chains resumed", rank(), world_size(), self.global_step, device=self.device
            )


def check_checkpoint(checkpoint: dict[str, Any], module: EBMModule) -> None:
    """Raise InputError unless the checkpoint holds the weights of this very architecture."""
    name = checkpoint.get("gwg_dist")
    if name is None or "state_dict" not in checkpoint or "chains" not in checkpoint:
        raise InputError("the checkpoint was not written by gwg_dist")
    expected = {"energy": type(module.energy).__name__, "space": repr(module.space)}
    found = {key: name[key] for key in expected}
    if found != expected:
        raise InputError(
            f"the checkpoint is of {found['energy']} on {found['space']}, "
            f"but this run is of {expected['energy']} on {expected['space']}"
        )
    ours = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"the checkpoint is of another model: {key} has shape {theirs.get(key, 'none')} there "
                f"and {ours.get(key, 'none')} in this run"
            )


def check_resumable(checkpoint: dict[str, Any], module: EBMModule) -> None:
    """Raise InputError unless training can go on from the checkpoint with these settings."""
    check_checkpoint(checkpoint, module)
    name = checkpoint["gwg_dist"]
    optimizer = module.configure_optimizers()["optimizer"]
    for setting, ours in (("smoothing", module.reference.smoothing), ("optimizer", type(optimizer).__name__)):
        if name[setting] != ours:
            raise InputError(
                f"a resumed run keeps its {setting}: {name[setting]} in the checkpoint, {ours} in the settings"
            )
    packed = checkpoint["chains"]["packed"]
    size = getattr(module.chains, "size", None)
    if (packed is None) != (size is None) or (packed is not None and len(packed) != size):
        held = "none" if packed is None else len(packed)
        raise InputError(f"the checkpoint's chains do not fit this run: {held} there, {size or 'none'} in the settings")
