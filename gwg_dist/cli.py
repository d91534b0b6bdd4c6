"""The settings of a run: one parser for the command line, YAML files and the config that a run leaves behind.

Every class is picked by its name or import path, its settings follow as dotted keys, and a key or value that does not
fit is one line that names it.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed as dist
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from gwg_dist.callbacks import Adaptation, AISLikelihood, AveragedWeights, DivergenceGuard
from gwg_dist.data import DiscreteData
from gwg_dist.module import EBMModule
from gwg_dist.tools.distributed import initialized, launched_rank
from gwg_dist.tools.errors import DivergedError, InputError, LostError
from gwg_dist.tools.shipped import config_names, config_path
from gwg_dist.tools.terminal import quiet, say_error

DEFAULTS: dict[str, Any] = {
    "data": {"class_path": "gwg_dist.data.Digits"},
    "model.energy": {"class_path": "gwg_dist.energies.MLPEnergy"},
    "model.sampler": {"class_path": "gwg_dist.samplers.GWG"},
    "model.chains": {"class_path": "gwg_dist.chains.ChainBuffer"},
    "model.objective": {"class_path": "gwg_dist.objectives.ContrastiveDivergence"},
    "trainer.max_steps": 3000,
    "trainer.devices": 1,
    "trainer.log_every_n_steps": 50,
    "trainer.enable_model_summary": False,
}
# Set by fit: training is counted in iterations, evaluation is a callback, and everything is in the run folder.
FIXED_TRAINER_SETTINGS: set[str | int] = {
    "default_root_dir", "max_epochs", "min_epochs", "fast_dev_run", "limit_train_batches", "limit_val_batches",
    "limit_test_batches", "limit_predict_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
    "num_sanity_val_steps", "accumulate_grad_batches", "use_distributed_sampler", "reload_dataloaders_every_n_epochs",
    "enable_checkpointing", "inference_mode", "enable_autolog_hparams", "model_registry",
}  # fmt: skip


CONFIG_OPTIONS = ("--config", "-c")


class Parser(ArgumentParser):
    """Prints mistakes as one line with the nearest known key, and exits with 2."""

    config_kind = "experiment"

    def add_config_argument(self) -> None:
        """``--config FILE`` or ``--config NAME``."""
        names = ", ".join(config_names(self.config_kind))
        help = f"a YAML file of settings, or one of {names}; later ones win"
        self.add_argument("-c", "--config", action="config", help=help)

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        env: bool | None = None,
        defaults: bool = True,
        **kwargs: Any,
    ) -> Namespace:
        """As the library's, where ``--config`` takes the name of a shipped file as well."""
        args = list(sys.argv[1:] if args is None else args)
        for place, (before, arg) in enumerate(zip(["", *args], args, strict=False)):
            option, equals, value = arg.partition("=")
            if before in CONFIG_OPTIONS:
                args[place] = self._config_path(arg)
            elif equals and option in CONFIG_OPTIONS:
                args[place] = f"{option}={self._config_path(value)}"
        return super().parse_args(args, namespace, env, defaults, **kwargs)

    def _config_path(self, name: str) -> str:
        path = config_path(name, self.config_kind)
        if not Path(path).is_file():
            names = config_names(self.config_kind)
            near = nearest(name, names)
            hint = f"did you mean {near}?" if near else f"by name there are {', '.join(names)}"
            self.error(f"--config: there is no file {name} ({hint})")
        return path

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a nested parser: the outer one adds its context
            super().error(message, ex)
        fail(self.explain(message))

    def explain(self, message: str) -> str:
        """``message`` on one line, and what the user may have meant."""
        text = plain(message)
        for pattern, candidates in (
            (r"unrecognized arguments: --([\w.]+)", self.known_keys()),
            (r"Option '([\w.]+)' is not accepted", self.known_keys()),
            (r"does not accept option '([\w.]+)'", self.known_keys()),
            (r"there is no class (\w+)", [cls.__name__ for found in nested_classes().values() for cls in found]),
        ):
            wrong = re.search(pattern, text)
            if wrong:
                group = re.search(r"""(?:Group|key) ['"]([\w.]+)['"]""", text)
                near = nearest(f"{group[1]}.{wrong[1]}" if group and "class" not in pattern else wrong[1], candidates)
                return f"{text} (did you mean {near}?)" if near else text
        return text

    def known_keys(self) -> list[str]:
        """Every dotted key, those of the nested classes included."""
        keys = [action.dest for action in self._actions if action.dest]
        for prefix, classes in nested_classes().items():
            keys += [f"{prefix}.{name}" for cls in classes for name in settings_of(cls)]
        return [key for key in dict.fromkeys(keys) if not key.endswith(".help")]


def plain(message: str) -> str:
    """A parser's message without what it says about its own types."""
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    for noise in (
        r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: ",
        r"Type \S+\[.*?\] expects a function or a callable class: ",
        r" ?Expected a <class 'NoneType'>",
        r" ?Given value type: .*",
        r"Expected a path but \S+ either not accessible or invalid ",
        r" Got value: Namespace.*",
        r"Problem with given class_path '\S+': ",
        r"Parser (?=key)",
    ):
        text = re.sub(noise, "", text)
    text = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", text)
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate most like ``word``, as a whole or by its last part."""
    whole = difflib.get_close_matches(word, candidates, n=1)
    if whole:
        return whole[0]
    by_end = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(candidates)}
    ends = difflib.get_close_matches(word.rsplit(".", 1)[-1], by_end, n=1)
    return by_end[ends[0]] if ends else None


def nested_classes() -> dict[str, list[type]]:
    """The classes that a user picks, by the key under which they are picked."""
    from gwg_dist.chains import ChainSource
    from gwg_dist.energies import Energy
    from gwg_dist.objectives import Objective
    from gwg_dist.samplers import Sampler

    bases = {
        "data": DiscreteData, "model.energy": Energy, "model.sampler": Sampler,
        "model.chains": ChainSource, "model.objective": Objective,
    }  # fmt: skip
    return {prefix: subclasses(base) for prefix, base in bases.items()}


def subclasses(base: type) -> list[type]:
    """All of them, at any depth."""
    return [sub for direct in base.__subclasses__() for sub in (direct, *subclasses(direct))]


def settings_of(cls: type) -> list[str]:
    """The names of a class's arguments."""
    return [name for name in inspect.signature(cls).parameters if name != "space"]


def build_parser(prog: str = "python -m gwg_dist.fit", description: str | None = None) -> Parser:
    """The parser of a run."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False, exit_on_error=True)
    parser.add_config_argument()
    parser.add_argument("--run_dir", type=str | None, default=None, help="folder of the run; runs/NAME-TIME by default")
    parser.add_argument(
        "--ckpt_path", type=str | None, default=None,
        help="go on from a checkpoint: a file, or 'last' for the run folder's newest (afresh where there is none)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of every random stream")
    parser.add_argument("--num_threads", type=int, default=1, help="CPU threads; more help large networks only")
    parser.add_argument("--checkpoint_every", type=int, default=500, help="iterations between two last.ckpt")
    parser.add_argument(
        "--join_seconds", type=float, default=120, help="how long processes wait for each other to start"
    )
    parser.add_argument("--pictures_every", type=int, default=1000, help="iterations between two pictures; 0 for none")
    parser.add_subclass_arguments(DiscreteData, "data")
    parser.add_class_arguments(EBMModule, "model", sub_configs=True, skip={"seed"})
    parser.add_class_arguments(AISLikelihood, "evaluation")
    parser.add_class_arguments(AveragedWeights, "ema")
    parser.add_class_arguments(DivergenceGuard, "guard")
    parser.add_class_arguments(Adaptation, "adaptation")
    parser.add_class_arguments(
        Trainer, "trainer", instantiate=False, fail_untyped=False, sub_configs=True, skip=FIXED_TRAINER_SETTINGS
    )
    parser.link_arguments("data", "model.energy.init_args.space", compute_fn=_space_of, apply_on="instantiate")
    parser.set_defaults(DEFAULTS)
    return parser


def instantiate(parser: Parser, config: Namespace) -> Namespace:
    """The objects of a config. Raises InputError where a class refuses its settings."""
    try:
        return parser.instantiate(config)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(plain(str(error))) from error


def save_config(parser: Parser, config: Namespace, path: Path) -> None:
    """The resolved settings as YAML; a file that says something else is kept under another name."""
    kept = config.clone()
    for name in ("config", "run_dir", "ckpt_path"):
        kept.pop(name, None)
    text = parser.dump(kept, skip_unset=False, format="yaml")
    if path.is_file():
        if path.read_text() == text:
            return
        number = 1
        while path.with_name(f"config.{number}.yaml").exists():
            number += 1
        path.with_name(f"config.{number}.yaml").write_text(path.read_text())
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


def fail(message: str, code: int = 2, *, on_every_rank: bool = False) -> NoReturn:
    """Print one line and exit; on rank 0 alone, for the others find the same."""
    rank = launched_rank()
    if rank == 0 or on_every_rank:
        who = f"rank {rank}: " if rank and initialized() else ""
        say_error(who + message)
    sys.exit(code)


def run_command(function: Callable[..., Any], args: list[str] | None, *, prog: str, description: str | None) -> None:
    """A command line whose settings are the arguments of ``function``. Exits with 2 for a mistake."""
    quiet()
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_function_arguments(function, as_positional=True)
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    with errors_for_people():
        function(**config.as_dict())


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Turns the errors a user can cause into one line.

    Exit 2 for a mistake, 3 for divergence, 130 for Ctrl-C, 1 where something outside this process failed.
    """
    try:
        yield
    except InputError as error:
        # Before processes have met, all see the same settings; afterwards one may lack a file that others have.
        fail(str(error), on_every_rank=initialized())
    except DivergedError as error:
        fail(str(error), code=3)
    except MisconfigurationException as error:
        fail(plain(str(error)))
    except LostError as error:
        fail(str(error), code=1, on_every_rank=not error.seen_by_all)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0]
        fail(f"another process is gone ({reason})", code=1, on_every_rank=True)
    except KeyboardInterrupt:
        fail("interrupted", code=130)


def _space_of(data: DiscreteData) -> Any:
    return data.space
