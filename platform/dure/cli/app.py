"""The parser that verbs register with, and what holds for all of them."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from dure.cli.printing import results
from dure.errors import UserError


@dataclass(frozen=True)
class Verb:
    """What is known of a verb beside its options.

    ``place`` is where the help lists it: what trains, what comes after, what checks and looks after it, tables. One
    that works in a folder of its own can run on in the ``background``.
    """

    place: int
    background: bool = False


VERBS: dict[str, Verb] = {}
"""The verbs by name, once :func:`load_verbs` was called."""
_LAST = 1000
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


_PYTHON_TYPE = re.compile(r" <(?:\w+|list\[\w+\])>$")


def help_records(command: Any, context: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what the help says of every parameter: ``argument`` or ``option``, its name, and its sentence."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            kind, (name, sentence) = parameter.param_type_name, record
            yield kind, _PYTHON_TYPE.sub("", name) if kind == "argument" else name, sentence


class _Verb(TyperCommand):
    """A verb whose help names its arguments as its file does, without the parser's braces and types of Python.

    An empty word for a path or an argument, as a variable of the shell that is not set gives it, is refused: as a path
    it would mean the working folder.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            _refuse_nothing(parameter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = list(help_records(self, ctx))
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            if rows := [(name, sentence) for of, name, sentence in records if of == kind]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _refuse_nothing(parameter: Any) -> None:
    """Let a parameter refuse an empty word, if it is an argument or a path."""
    process = parameter.process_value
    is_argument = parameter.param_type_name == "argument"
    is_path = parameter.type_descriptor.annotation is Path

    def checked(context: Any, value: Any) -> Any:
        if (is_argument or is_path) and (value == "" or (isinstance(value, (list, tuple)) and "" in value)):
            raise UserError(
                "an empty word is given",
                where=_usage(parameter) if is_argument else parameter.opts[0],
                expected="a name; . is the working folder" if is_path else "a name",
                hint='look whether a variable of the shell is set, such as NAME of "$NAME"',
            )
        return process(context, value)

    parameter.process_value = checked


def _usage(argument: Any) -> str:
    """Return how a usage line names an argument: ``RUN``, of several ``RUN…``, and ``[TABLE]`` where it may be missing."""
    name = argument.metavar
    if argument.nargs != 1 and "…" not in name:
        name += "…"
    return name if argument.required or name.startswith("[") else f"[{name}]"


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: VERBS[name].place)


app = typer.Typer(
    name="dure",
    cls=_InOrder,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models.",
)


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]


def verb(
    name: str, *, place: int, background: bool = False, has_json: bool = True
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Register a function as a verb; what it takes as a dataclass becomes one option per field.

    Where it ``has_json``, it gets the option ``--json``, by which :func:`~dure.cli.printing.print_result` prints.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        VERBS[name] = Verb(place, background)
        # Given as the short help, the first paragraph stands whole in the list of verbs.
        short = " ".join(inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0].split())
        app.command(name, cls=_Verb, short_help=short)(_flat(function, has_json))
        return function

    return register


def load_verbs() -> None:
    """Register every file of :mod:`dure.cli.verbs`; one that cannot be imported says so when it is called."""
    from dure.cli import verbs

    for module in pkgutil.iter_modules(verbs.__path__):
        try:
            importlib.import_module(f"{verbs.__name__}.{module.name}")
        except Exception as error:  # Whatever is wrong with one verb, the others work.
            _register_broken(module.name.replace("_", "-").strip("-"), error)


def _register_broken(name: str, error: Exception) -> None:
    def broken() -> None:
        raise error

    VERBS[name] = Verb(_LAST)
    app.command(
        name,
        help=f"Cannot be loaded: {error}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(broken)


def _flat(function: Callable[..., int | None], has_json: bool) -> Callable[..., int | None]:
    """Return the function as the parser takes it: with the fields of its dataclasses as parameters."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and is_dataclass(kind):
            inner = get_type_hints(kind, include_extras=True)
            parameters += [
                each.replace(annotation=inner[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
                for each in inspect.signature(kind).parameters.values()
            ]
            groups[name] = kind
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    if has_json:
        parameters.append(
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
        )

    def parsed(as_json: bool = False, **values: Any) -> int | None:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        with results(as_json=as_json):
            return function(**values)

    parsed.__name__, parsed.__doc__ = function.__name__, function.__doc__
    parsed.__annotations__ = {each.name: each.annotation for each in parameters}
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return parsed


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dure {importlib.metadata.version('dure')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and log every step in detail.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what dure and libraries log, during a run too.")
    ] = False,
    background: Annotated[
        bool,
        typer.Option("--background", help="Run on by itself, as a job of this machine; see `dure jobs`."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set what holds for every verb."""
    logging.basicConfig(
        level=logging.INFO if verbose or debug else logging.ERROR, stream=sys.stderr, format=LOG_FORMAT
    )
    if debug:
        # Only of dure: libraries' debug logs hold the headers of requests, tokens included.
        for name in ("dure", "trainables"):
            logging.getLogger(name).setLevel(logging.DEBUG)
    if verbose or debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info")
    else:
        # Bars and warnings of libraries would break into what dure shows.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
