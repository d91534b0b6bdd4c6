"""What the command lines of all verbs have in common: a parser, mistakes as one line, exit codes.

A key or value that does not fit is one line that names it and the nearest one that exists. Nothing heavy is imported
here, so that help appears at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import inspect
import re
import signal
import sys
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

import gwg_dist
from gwg_dist.tools import trust
from gwg_dist.tools.errors import DivergedError, InputError, LostError
from gwg_dist.tools.settings_files import check_settings_file
from gwg_dist.tools.shipped import config_names, config_path
from gwg_dist.tools.terminal import output, quiet, say_error

LOST, MISTAKE, DIVERGED, AGAIN, INTERRUPTED = 1, 2, 3, 75, 130
"""Exit codes. AGAIN is EX_TEMPFAIL of sysexits.h: the state is saved, start the same again."""

FLAGS = {
    "json": "print the numbers as JSON on standard output, and nothing else there",
    "mutations": "score all changes of one site of one point, log p(x') - log p(x), with a picture",
}

SMALLER = "a smaller model, fewer chains (model.chains.size), or smaller batches need less"

# What the parser's library says about its own types.
PARSER_NOISE = (
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: ",
    r"Type \S+\[.*?\] expects a function or a callable class: ",
    r" ?Expected a <class 'NoneType'>",
    r" ?Given value type: .*",
    r" Expected a (?:<class ')?collections\.abc\.Iterable(?:'>)?(?: Expected a (?:<class ')?bool(?:'>)?)?\s*$",
    r"Expected a path but \S+ either not accessible or invalid ",
    r" Got value: Namespace.*",
    r" ?Expected a typing\.Literal\['auto'\]\.?",
    r"Problem with given class_path '\S+': ",
    r"Parser (?=key)",
)

UNKNOWN_SETTINGS = (
    r"unrecognized arguments: --([\w.]+)",
    r"Option '([\w.]+)' is not accepted",
    r"does not accept option '([\w.]+)'",
)


NUMBER_OR_AUTO = r"Expected a <class '(int|float)'> Expected a typing.Literal\['auto'\] .*Given value: (.*)"


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of a description, and calls nothing required that has a default."""

    def _get_help_string(self, action: Action) -> str:
        text = DefaultHelpFormatter._get_help_string(self, action)
        return text if action.default is None else text.replace("(required, type:", "(type:")


class Parser(ArgumentParser):
    """Prints a mistake as one line with the nearest known key, and exits with 2."""

    named_files: Mapping[str, str] = {}
    """Options that take the name of a shipped file, by option: the group of files that the name is looked for in."""

    picked: Mapping[str, type] = {}
    """Base classes of what a user picks by name, by key; the settings of their subclasses are suggested as well."""

    synonyms: Mapping[str, str] = {}
    """What people type for a setting that has another name here: the last part of a key, and the key that is meant."""

    trusts_values = True
    """Whether a class outside the package that an argument names is trusted: false for arguments out of a file."""

    trusted: tuple[str, ...] = ()
    """Modules outside the package whose classes the settings may name; see ``trust``."""

    def add_config_argument(self) -> None:
        """Add ``--config FILE`` or ``--config NAME``."""
        names = ", ".join(config_names(self.named_files["--config"]))
        help = f"a YAML file of settings, or one of {names}; later ones win"
        self.add_argument("-c", "--config", action="config", help=help)

    def add_trust_argument(self) -> None:
        """Add ``--trust`` and ``--trust=MODULE,...``."""
        self.add_argument(trust.OPTION, type=str, default="", help=trust.HELP)

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        env: bool | None = None,
        defaults: bool = True,
        **kwargs: Any,
    ) -> Namespace:
        """Parse as the library does; options of ``named_files`` take the name of a shipped file as well.

        ``--trust`` counts where it is an argument: no file of settings can give it.
        """
        try:
            args, given = trust.split(sys.argv[1:] if args is None else args)
        except InputError as error:
            self.error(str(error))
        self.trusted = (*given, *(trust.typed(args) if self.trusts_values else ()))
        if given:
            args = [*args, f"{trust.OPTION}={','.join(given)}"]
        for place, (before, arg) in enumerate(zip(["", *args], args, strict=False)):
            option, equals, value = arg.partition("=")
            if before in self.named_files:
                args[place] = self._named_file(before, arg)
            elif equals and option in self.named_files:
                args[place] = f"{option}={self._named_file(option, value)}"
        with trust.allowing(self.trusted):
            config = super().parse_args(args, namespace, env, defaults, **kwargs)
        if config.get("trust", "") not in ("", ",".join(given)):
            self.error(f"trust: a file cannot give it: add {trust.OPTION}={config.trust} to the command line")
        return config

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build the objects of settings that this parser has read."""
        with trust.allowing(self.trusted):
            return super().instantiate(*args, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Write settings that this parser has read as text."""
        with trust.allowing(self.trusted):
            return super().dump(*args, **kwargs)

    def _named_file(self, option: str, name: str) -> str:
        """The path of a shipped file, or ``name`` as it is; where only a file will do, there must be one."""
        kind = self.named_files[option]
        try:
            path = config_path(name, kind)
            is_file = Path(path).is_file()
            if is_file:
                check_settings_file(path, option, keys=option in ("--config", "-c"))
        except InputError as error:
            self.error(str(error))
        except OSError as error:
            self.error(f"{option}: {shortened(name)}: {error.strerror}")
        if option == "--config" and not is_file:
            names = config_names(kind)
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
        untrusted = trust.explained(text)
        if untrusted is not None:
            return untrusted
        key = re.search(r"""(?:Group|key) ['"]([\w.]+)['"]""", text)
        wrong = re.search(r"there is no class (\w+)", text)
        if wrong and wrong[1] == "auto" and key:
            return f"{key[1]}: settings of a class need its name beside them: add --{key[1]}=CLASS"
        if wrong:
            hint = self._class_hint(wrong[1], key[1] if key else "")
            return f"{text} ({hint})" if hint else text
        for pattern in UNKNOWN_SETTINGS:
            wrong = re.search(pattern, text)
            if wrong:
                hint = self._setting_hint(f"{key[1]}.{wrong[1]}" if key else wrong[1])
                return f"{text} ({hint})" if hint else text
        return text

    def _class_hint(self, name: str, key: str) -> str:
        """What may have been meant by a class that is not there, or that is of another kind."""
        kinds = {cls.__name__: where for where, base in self.picked.items() for cls in subclasses(base)}
        if name in kinds:
            return f"it is one for {kinds[name]}"
        near = nearest(name, [known for known, where in kinds.items() if key not in self.picked or where == key])
        return f"did you mean {near}?" if near else ""

    def _setting_hint(self, wrong: str) -> str:
        """What may have been meant by a setting that is not there."""
        known = self.known_keys()
        owners = [cls.__name__ for prefix, base in self.picked.items() for cls in subclasses(base)
                  if wrong in [f"{prefix}.{name}" for name in settings_of(cls)]]  # fmt: skip
        if owners:
            where = wrong.rpartition(".")[0]
            return f"a setting of {' or '.join(owners)}: did you mean --{where}={owners[0]} --{wrong}=...?"
        meant = self.synonyms.get(wrong.rpartition(".")[2])
        near = meant if meant in known else nearest(wrong, known)
        return f"did you mean {near}?" if near else ""

    def known_keys(self) -> list[str]:
        """Every dotted key, those of the classes that can be picked included."""
        keys = [action.dest for action in self._actions if action.dest]
        for prefix, base in self.picked.items():
            keys += [f"{prefix}.{name}" for cls in subclasses(base) for name in settings_of(cls)]
        return [key for key in dict.fromkeys(keys) if not key.endswith(".help")]


def make_parser(prog: str, description: str | None, kind: type[Parser] = Parser) -> Parser:
    """A parser whose help begins with a short usage line and keeps the lines of ``description``."""
    return kind(
        prog=prog,
        usage=f"{prog} [settings]",
        description=description,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        version=f"gwg_dist {gwg_dist.__version__}",
    )


def add_output_arguments(parser: Parser) -> None:
    """Add ``--quiet`` and ``--log_file FILE``."""
    parser.add_argument("--quiet", action="store_true", help="print errors alone")
    help = "file to the end of which goes what would be printed; None for the terminal"
    parser.add_argument("--log_file", type=str | None, default=None, help=help)


def expand_option(args: list[str], option: str, meaning: Callable[[str], list[str]]) -> list[str]:
    """``option VALUE`` replaced by ``meaning(VALUE)``, in front, so that all other settings win over it."""
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == option:
            value = value if equals else "".join(args[place + 1 : place + 2])
            rest = args[:place] + args[place + (1 if equals else 2) :]
            return meaning(value) + expand_option(rest, option, meaning)
    return args


def plain(message: str) -> str:
    """A parser's message without what it says about its own types."""
    too_large = out_of_memory(message)
    if too_large:
        return too_large
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    text = re.sub(NUMBER_OR_AUTO, r"Expected a \1 or auto. Got value: \2", text)
    for noise in PARSER_NOISE:
        text = re.sub(noise, "", text)
    text = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", text)
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)


def out_of_memory(message: str) -> str | None:
    """One line for people where a library says that it could not allocate something; None otherwise."""
    found = re.search(r"tried to allocate [\d.]+ ?\w+", message, re.IGNORECASE)
    return f"out of memory: it {found[0].lower()}; {SMALLER}" if found else None


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate most like ``word``, as a whole or by its last part."""
    whole = difflib.get_close_matches(word, candidates, n=1)
    if whole:
        return whole[0]
    by_end = {candidate.rsplit(".", 1)[-1]: candidate for candidate in reversed(candidates)}
    ends = difflib.get_close_matches(word.rsplit(".", 1)[-1], by_end, n=1)
    return by_end[ends[0]] if ends else None


def subclasses(base: type) -> list[type]:
    """All subclasses of ``base`` that have been imported, at any depth, but for those of private names."""
    found = [sub for direct in base.__subclasses__() for sub in (direct, *subclasses(direct))]
    return [cls for cls in found if not cls.__name__.startswith("_")]


def settings_of(cls: type) -> list[str]:
    """The names of a class's arguments."""
    return [name for name in inspect.signature(cls).parameters if name != "space"]


def shortened(text: str, length: int = 60) -> str:
    """``text``, or its beginning where it is long."""
    return text if len(text) <= length else f"{text[:length]}..."


def fail(message: str, code: int = MISTAKE, *, on_every_rank: bool = False) -> NoReturn:
    """Print one line and exit; rank 0 alone prints unless ``on_every_rank``, for the others find the same."""
    from gwg_dist.tools.distributed import initialized, launched_rank

    rank = launched_rank()
    if rank == 0 or on_every_rank:
        who = f"rank {rank}: " if rank and initialized() else ""
        say_error(who + message)
    sys.exit(code)


def run_command(function: Callable[..., Any], args: list[str] | None, *, prog: str, description: str | None) -> None:
    """A command line whose settings are the arguments of ``function``. Exits with 2 for a mistake."""
    quiet()
    parser = make_parser(prog, description)
    add_output_arguments(parser)
    flags: set[str | int] = {
        name for name, given in inspect.signature(function).parameters.items() if given.default is False
    }
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true", help=FLAGS.get(str(name), ""))
    parser.add_function_arguments(function, as_positional=True, skip=flags)
    config = parser.parse_args(sys.argv[1:] if args is None else args)
    with errors_for_people():
        for key, value in config.items():
            if value == "" and key != "trust":
                raise InputError(f"{key} must not be empty")
        with output(nothing=config.pop("quiet"), log_file=config.pop("log_file")):
            function(**config.as_dict())


def code_of_signal(number: int) -> int:
    """Exit code of a process that a signal has ended and that can go on: 130 for Ctrl-C, 75 for others."""
    return INTERRUPTED if number == signal.SIGINT else AGAIN


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn the errors that a user can cause into one line and an exit code.

    Exits with 2 for a mistake, 3 for divergence, 130 for Ctrl-C, 1 where something outside this process failed.
    """
    try:
        yield
    except InputError as error:
        from gwg_dist.tools.distributed import initialized

        # Before processes have met, all see the same settings; afterwards one may lack a file that others have.
        fail(str(error), on_every_rank=initialized())
    except DivergedError as error:
        fail(str(error), code=DIVERGED)
    except LostError as error:
        fail(str(error), code=LOST, on_every_rank=not error.seen_by_all)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        fail(f"{shortened(str(error.filename))}: longer than a path can be")
    except MemoryError as error:
        fail(f"out of memory: {error}; {SMALLER}", on_every_rank=True)
    except RuntimeError as error:
        from gwg_dist.tools.distributed import peer_is_gone

        too_large = out_of_memory(str(error))
        if too_large:
            fail(too_large, on_every_rank=True)
        if not peer_is_gone(error):
            raise
        fail(f"another process is gone ({str(error).splitlines()[0]})", code=LOST, on_every_rank=True)
    except KeyboardInterrupt:
        fail("interrupted", code=INTERRUPTED)
