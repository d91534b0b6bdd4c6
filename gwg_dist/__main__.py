"""Train deep energy-based models on discrete data with Gibbs-With-Gradients.

usage: gwg_dist VERB [settings]        the same as: python -m gwg_dist.VERB [settings]
       gwg_dist VERB --help            the settings of a verb
       gwg_dist --version
       gwg_dist --completion           a line for bash that completes verbs and the names of configs
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

import gwg_dist
from gwg_dist.tools.shipped import config_names
from gwg_dist.tools.streams import quick_end

PACKAGE = Path(__file__).parent
COMPLETION = 'complete -o default -W "{words}" gwg_dist'


def verbs() -> dict[str, Path]:
    """The file of every verb, by name: a module with a ``main``, or a package with a ``__main__``."""
    modules = {path.stem: path for path in PACKAGE.glob("[!_]*.py") if "\ndef main(" in path.read_text()}
    packages = {path.parent.name: path for path in PACKAGE.glob("*/__main__.py")}
    return dict(sorted((modules | packages).items()))


def summary(path: Path) -> str:
    """The first line of a verb's docstring, read without importing it."""
    page = path.with_name("__init__.py") if path.name == "__main__.py" else path
    return (ast.get_docstring(ast.parse(page.read_text())) or "").partition("\n")[0]


def usage() -> str:
    """What ``gwg_dist`` alone prints."""
    table = "\n".join(f"  {name:10}{summary(path)}" for name, path in verbs().items())
    return f"{(__doc__ or '').rstrip()}\n\nverbs:\n{table}"


def main(args: list[str] | None = None) -> None:
    """Call a verb with the rest of the command line. Exits with 2 where there is no such verb."""
    args = sys.argv[1:] if args is None else args
    name = args[0] if args else "--help"
    known = verbs()
    if name in known:
        module = f"gwg_dist.{name}.__main__" if known[name].name == "__main__.py" else f"gwg_dist.{name}"
        with quick_end():
            verb = importlib.import_module(module)
        verb.main(args[1:])
    elif name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"gwg_dist {gwg_dist.__version__}")
    elif name == "--completion":
        words = dict.fromkeys([*known, *config_names("experiment"), *config_names("sweep"), *config_names("compare")])
        print(COMPLETION.format(words=" ".join(words)))
    else:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else f"; there are {', '.join(known)}"
        print(f"error: there is no verb {name}{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
