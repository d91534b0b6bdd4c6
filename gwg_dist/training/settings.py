"""The settings of a run: one parser for the command line, YAML files and the config that a run leaves behind.

Every class is picked by its name or import path; its settings follow as dotted keys.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch.optim import Optimizer

from gwg_dist.callbacks import Adaptation, AISLikelihood, AveragedWeights, DivergenceGuard, Pace, Regularisation, Stop
from gwg_dist.chains import ChainSource
from gwg_dist.data import DiscreteData
from gwg_dist.data.paths import named_data, with_absolute_paths
from gwg_dist.energies import Energy
from gwg_dist.module import EBMModule
from gwg_dist.objectives import Objective
from gwg_dist.samplers import Sampler
from gwg_dist.tools import trust
from gwg_dist.tools.commands import Parser, add_output_arguments, make_parser, plain
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import write_text
from gwg_dist.training.memory import build_energy
from gwg_dist.training.recipe import AUTO, settle
from gwg_dist.training.synonyms import SYNONYMS

DEFAULTS: dict[str, Any] = {
    "data": {"class_path": "gwg_dist.data.Digits"},
    "model.sampler": {"class_path": "gwg_dist.samplers.GWG"},
    "model.chains": {"class_path": "gwg_dist.chains.ChainBuffer", "init_args": {"size": AUTO}},
    "model.objective": {"class_path": "gwg_dist.objectives.ContrastiveDivergence"},
    "trainer.devices": 1,
    "trainer.log_every_n_steps": 50,
    "trainer.enable_model_summary": False,
}
# Fixed for every run: training is counted in iterations, evaluation is a callback, all files are in the run's folder.
FIXED_TRAINER_SETTINGS = """
    default_root_dir max_epochs min_epochs fast_dev_run limit_train_batches limit_val_batches limit_test_batches
    limit_predict_batches overfit_batches val_check_interval check_val_every_n_epoch num_sanity_val_steps
    accumulate_grad_batches use_distributed_sampler reload_dataloaders_every_n_epochs enable_checkpointing
    inference_mode enable_autolog_hparams model_registry
"""
# Settings of these classes that a run chooses itself where they are "auto": type, and what they are. The classes have
# plain defaults of their own.
CHOSEN: dict[str, tuple[Any, str]] = {
    "model.energy": (Energy, "E"),
    "model.num_steps": (int, "kernel transitions an iteration"),
    "model.learning_rate": (float, "learning rate after the warm-up, unless the optimizer sets one of its own"),
    "model.warmup_iterations": (int, "iterations over which the learning rate rises linearly"),
    "model.cooldown": (float, "last share of the run's iterations, over which the learning rate falls linearly to 0"),
    "model.weight_decay": (float, "decoupled weight decay, by AdamW in place of Adam; 0 for none"),
    "pace.limit": (float, "largest lag that chains may have before the run is slowed down; 0 turns it off"),
    "evaluation.every": (int, "iterations between two evaluations; the last one is evaluated as well. 0 for none"),
    "evaluation.num_chains": (int, "AIS chains on all ranks together"),
    "evaluation.num_temperatures": (int, "gradient evaluations a chain"),
    "evaluation.final_temperatures": (int, "gradient evaluations a chain in the evaluation after training"),
    "trainer.max_steps": (int, "iterations of the run"),
}
FLAGS = (trust.OPTION, "--print_config", "--quiet")  # what may stand alone, and takes a value after "=" otherwise
# Where a run is, whom it trusts and where it prints, not what it is.
NOT_KEPT = ("config", "trust", "quiet", "log_file", "run_dir", "ckpt_path")


PICKED = {
    "data": DiscreteData,
    "model.energy": Energy,
    "model.sampler": Sampler,
    "model.chains": ChainSource,
    "model.objective": Objective,
}
# Fragments: a group of settings that an experiment, or the command line, names as a file.
NAMED_FILES = {
    "--config": "experiment",
    "-c": "experiment",
    "--model": "model",
    "--model.sampler": "sampler",
    "--evaluation": "evaluation",
}


class RunParser(Parser):
    """The parser of a run's settings."""

    picked = PICKED
    named_files = NAMED_FILES
    synonyms = SYNONYMS

    def get_defaults(self, skip_validation: bool = False, **kwargs: Any) -> Namespace:
        """The defaults. Where parsing starts from them (``skip_validation``), picked classes have no settings yet.

        Otherwise a class that is picked in place of the default one would inherit the default one's settings of the
        same names. Parsing fills in the settings of the class that is left in the end.
        """
        defaults = super().get_defaults(skip_validation, **kwargs)
        if skip_validation:
            for key in self.picked.keys() & {action.dest for action in self._actions}:
                defaults[key] = copy.deepcopy(self.get_default(key))
        return defaults

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        env: bool | None = None,
        defaults: bool = True,
        **kwargs: Any,
    ) -> Namespace:
        """Parse; a path stands for the data set that reads it, and paths of data become absolute."""
        args = list(sys.argv[1:] if args is None else args)
        if "data" not in {action.dest for action in self._actions}:  # the parser of a class that was picked
            return super().parse_args(args, namespace, env, defaults, **kwargs)
        try:
            args = named_data(args, self._takes_value)
        except InputError as error:
            self.error(str(error))
        config = super().parse_args(args, namespace, env, defaults, **kwargs)
        with_absolute_paths(config.data)
        return config

    def _takes_value(self, option: str) -> bool:
        action = self._option_string_actions.get(option)
        return option not in FLAGS and (action is None or action.nargs != 0)


def build_parser(prog: str = "python -m gwg_dist.fit", description: str | None = None) -> Parser:
    """The parser of a run's settings, with their defaults."""
    parser = make_parser(prog, description, RunParser)
    parser.add_config_argument()
    parser.add_trust_argument()
    add_output_arguments(parser)
    parser.add_argument("--run_dir", type=str | None, default=None, help="folder of the run; runs/NAME-TIME by default")
    help = "go on from a checkpoint: a file, or 'last' for the run folder's newest (afresh where there is none)"
    parser.add_argument("--ckpt_path", type=str | None, default=None, help=help)
    help = "run folder or checkpoint of the same energy, with whose weights a new run begins"
    parser.add_argument("--weights_from", type=str | None, default=None, help=help)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random stream of the run")
    parser.add_argument("--num_threads", type=int, default=1, help="CPU threads of torch and of kernels in C")
    help = "minutes of training and evaluation; they set the length of the run where trainer.max_steps is auto"
    parser.add_argument("--max_minutes", type=float | None, default=None, help=help)
    parser.add_argument("--checkpoint_every", type=int, default=500, help="iterations between two last.ckpt")
    help = "seconds that processes wait for each other to start"
    parser.add_argument("--join_seconds", type=float, default=120, help=help)
    help = "seconds after a signal in which other processes must answer; then this one leaves without them"
    parser.add_argument("--stop_seconds", type=float, default=30, help=help)
    help = "'return': a run that diverges goes back to its last healthy state; 'stop': it ends with exit code 3"
    parser.add_argument("--on_divergence", type=str, default="return", help=help)
    parser.add_argument("--pictures_every", type=int, default=1000, help="iterations between two pictures; 0 for none")
    parser.add_subclass_arguments(DiscreteData, "data")
    parser.add_class_arguments(EBMModule, "model", sub_configs=True, skip={"seed", *_chosen("model")})
    parser.add_class_arguments(AISLikelihood, "evaluation", skip=_chosen("evaluation"))
    parser.add_class_arguments(AveragedWeights, "ema")
    parser.add_class_arguments(DivergenceGuard, "guard")
    parser.add_class_arguments(Adaptation, "adaptation")
    parser.add_class_arguments(Regularisation, "regularisation")
    parser.add_class_arguments(Stop, "stop")
    parser.add_class_arguments(Pace, "pace", skip=_chosen("pace"))
    parser.add_class_arguments(
        Trainer,
        "trainer",
        instantiate=False,
        fail_untyped=False,
        sub_configs=True,
        skip={*FIXED_TRAINER_SETTINGS.split(), *_chosen("trainer")},
    )
    for key, (kind, help) in CHOSEN.items():
        parser.add_argument(f"--{key}", type=kind | Literal["auto"], default=AUTO, help=help)
    parser.link_arguments("on_divergence", "guard.on_divergence")
    parser.link_arguments("data", "model.energy.init_args.space", compute_fn=_space_of, apply_on="instantiate")
    parser.set_defaults(DEFAULTS)
    return parser


def instantiate(parser: Parser, config: Namespace, *, data: DiscreteData | None = None) -> Namespace:
    """The objects of a config, in which every "auto" becomes a choice for its data; ``choices`` are those.

    Args:
        parser: has read ``config``.
        config: settings of a run.
        data: taken in place of those that the settings name.

    Raises:
        InputError: a class refuses its settings, or one those of another.
    """
    check_optimizer(config)
    try:
        data = data or instantiate_data(parser, config)
        choices = settle(parser, config, data)
        with_data = config.clone()
        with_data.data = data
        objects = parser.instantiate(with_data, instantiators=[(build_energy, Energy, True)])
        objects.choices = choices
        objects.model.chains.check_batch(objects.data.batch_size)
        refusal = objects.model.sampler.refusal(objects.model.target)
        if refusal is not None:
            raise InputError(f"model.sampler: {refusal}")
        annealed = objects.model.sampler.annealed()
        if not (annealed.exact and annealed.of_x_alone):
            raise InputError("model.sampler: a run estimates its likelihood, for which the kernel must be exact; "
                             f"{annealed} is not")  # fmt: skip
        return objects
    except InputError:
        raise
    except (ValueError, MisconfigurationException) as error:
        raise InputError(plain(str(error))) from error


def check_optimizer(config: Namespace) -> None:
    """Raise InputError unless ``model.optimizer`` is none or a class of optimizers; nothing is called to find out."""
    given = config.model.optimizer
    if given is None:
        return
    path = given.get("class_path", "") if isinstance(given, Namespace) else ""
    module, _, name = path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)  # the parser has imported it
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise InputError(f"model.optimizer must be a subclass of torch.optim.Optimizer, got {path or given}")


def recall(parser: Parser, config: Namespace, path: Path) -> None:
    """Replace every "auto" of ``config`` by what a run has written down in its config.yaml, where there is one."""
    if path.is_file():
        with trust.allowing(parser.trusted):
            kept = parser.parse_path(path)
        for key in (*CHOSEN, "model.chains.init_args.size"):
            if config.get(key) == AUTO and kept.get(key) is not None:
                config[key] = kept[key]


def instantiate_data(parser: Parser, config: Namespace) -> DiscreteData:
    """The data alone, of which everything else may be chosen; ``parser`` has read ``config``. Raises InputError."""
    part = make_parser("data", None)
    part.trusted = parser.trusted
    part.add_subclass_arguments(DiscreteData, "data")
    try:
        return part.instantiate(Namespace(data=config.data)).data
    except ValueError as error:
        raise InputError(plain(str(error))) from error


def without_effect(parser: Parser, config: Namespace, objects: Namespace) -> list[str]:
    """The keys of settings that differ from their defaults and that this run has no use for."""
    unused = [] if objects.model.objective.needs_chains else ["model.chains", "model.num_steps"]
    defaults = parser.get_defaults()
    return [key for key in unused if config[key] != defaults[key]]


def as_text(parser: Parser, config: Namespace) -> str:
    """The settings of a run as YAML, without those that say where it is."""
    kept = config.clone()
    for name in NOT_KEPT:
        kept.pop(name, None)
    return parser.dump(kept, skip_unset=False, format="yaml")


def save_config(parser: Parser, config: Namespace, path: Path) -> None:
    """Write the resolved settings as YAML; a file that says something else is kept as config.NUMBER.yaml."""
    text = as_text(parser, config)
    if path.is_file():
        before = path.read_text()
        if before == text:
            return
        number = 1
        while path.with_name(f"config.{number}.yaml").exists():
            number += 1
        write_text(path.with_name(f"config.{number}.yaml"), before)
    write_text(path, text)


def _chosen(group: str) -> set[str | int]:
    """The names of the settings of a group that a run may choose itself."""
    return {key.removeprefix(f"{group}.") for key in CHOSEN if key.startswith(f"{group}.")}


def _space_of(data: DiscreteData) -> Any:
    return data.space
