"""The program: it runs a verb, and ends with a message and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, get_origin

import typer

from dure.cli.app import app, load_verbs
from dure.cli.dotenv import FILE as DOTENV
from dure.cli.dotenv import load_dotenv
from dure.errors import DureError, named, nearest, shell_word
from dure.files import is_disk_full
from dure.imports import import_fast
from dure.proxies import ask_here_directly
from dure.secrets import redacted
from dure.signals import INTERRUPTED_CODE, Interrupted, install

FLAGS = ("--debug", "--verbose", "-v", "--background")
"""Flags of the program itself that are accepted anywhere, since people put them last; after -- they are a job's."""

_FEW = 3
"""Verbs of which a hint names each."""
_PLAINLY = {
    "Input should be a valid integer, unable to parse string as an integer": "this is no whole number",
    "Input should be a valid number, unable to parse string as a number": "this is no number",
}
"""What pydantic says of words that are no numbers, and plainer words."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; exits 0, 1 when a run failed, 2 when the user's input is wrong, 130 on Ctrl-C."""
    from dure.jobs.background_environment import enter

    enter()
    import_fast()
    load_verbs()
    words = sys.argv[1:] if arguments is None else arguments
    end = words.index("--") if "--" in words else len(words)
    flags = [word for word in words[:end] if word in FLAGS]
    words = flags + [_at_home(word) for word in words[:end] if word not in FLAGS] + words[end:]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets escapes, and no traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.cwd()
    except FileNotFoundError as error:
        _fail(error, "the working folder is not there any more\n  try: cd to a folder that is", 2, words)
    _check_encoding(words)
    if added := load_dotenv(Path.cwd()):
        print(f"{DOTENV}: {', '.join(added)} taken from it", file=sys.stderr)
    ask_here_directly()
    install()
    try:
        if "--background" in flags and not {"--dry-run", "--help", "-h"} & set(words):
            from dure.cli.verbs.jobs import run_in_background

            sys.exit(run_in_background([word for word in words if word != "--background"]))
        if "_DURE_COMPLETE" in os.environ:  # a shell asks what words there are
            app(prog_name="dure")
        # Not by calling the parser: it would make an exit code of Ctrl-C, and forget whether there is something to resume.
        command = typer.main.get_command(app)
        with command.make_context("dure", [*words] or ["--help"]) as context:
            result = command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except DureError as error:
        _fail(error, str(error), error.exit_code, words)
    except KeyboardInterrupt as stopped:
        _interrupted(words, is_kept=isinstance(stopped, Interrupted))
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; Python must not flush into it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        _end_of(error, words)
    sys.exit(result if isinstance(result, int) else 0)


def _at_home(word: str) -> str:
    """Return ``--option=~/path`` with the path that ``~`` stands for; no shell sees to that behind a ``=``."""
    option, _, path = word.partition("=")
    is_path = option.startswith("--") and option != "--text" and path.startswith("~/")
    return f"{option}={Path(path).expanduser()}" if is_path else word


def _check_encoding(words: list[str]) -> None:
    """End where Python reads names by a locale that has no letters for them, as with LC_ALL=C and PYTHONUTF8=0."""
    encoding = sys.getfilesystemencoding()
    names = "".join([*words, str(Path.cwd())])
    if encoding != "utf-8" and any("\udc80" <= character <= "\udcff" for character in names):
        text = f"names on the command line or of the working folder are not {encoding}, by which Python reads them here"
        _fail(None, f"{text}\n  try: export PYTHONUTF8=1", 2, words)


def _interrupted(words: list[str], *, is_kept: bool = False) -> NoReturn:
    """End as the user asked; what has begun in a folder of its own can go on there."""
    # That of unified training takes the folder, or a checkpoint, to go on from.
    option = "--resume FOLDER" if any(word.startswith("unified-") for word in words) else "--resume"
    hint = f"\n  try: {option} continues it where it was" if is_kept else ""
    _fail(None, f"interrupted{hint}", INTERRUPTED_CODE, words)


def _end_of(error: Exception, words: list[str]) -> NoReturn:
    # The parser's own errors know their message, and where in the command it was.
    show: Any = getattr(error, "format_message", None)
    if show is not None:
        context: Any = getattr(error, "ctx", None)
        said = show().replace("Value error, ", "")
        for theirs, ours in _PLAINLY.items():
            said = said.replace(theirs, ours)
        lines = [" ".join(said.split())]
        if context is not None:
            usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
            lines.append(f"  expected: {usage}")
            option = getattr(error, "option_name", None) or ""
            known = [name for parameter in context.command.params for name in parameter.opts]
            like: str | None = nearest(option, known) if option else None
            if lines[0].startswith("No such command"):
                like = _runnable(next(word for word in words if not word.startswith("-")))
            if type(error).__name__ == "NoSuchOption":
                lines[0] = f"No such option: {option}"
                setting = _setting(option, words) if "KEY=VALUE" in usage else None
                here = [each for each in (setting, _key_of_study(option, context)) if each]
                like = ", or ".join(here) or _elsewhere(option, context, like)
            lines.append(f"  try: {like or f'{context.command_path} --help'}")
        _fail(error, "\n".join(lines), 2, words)
    if is_disk_full(error):
        place = getattr(error, "filename", None)
        text = f"{place}: the disk is full" if place else "a disk that is written to is full"
        _fail(error, f"{text}\n  try: make room there, or write to another one", 1, words)
    if isinstance(error, OSError) and error.filename is not None:
        is_permission = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        hint = (
            "look at the permissions of it and of its folder"
            if is_permission
            else "--debug shows who needs it"
        )
        _fail(error, f"{error.filename}: {error.strerror}\n  try: {hint}", 2, words)
    _fail(
        error,
        f"{named(error)}\n  (a defect of dure or of a library; --debug shows where)",
        1,
        words,
    )


def _runnable(word: str) -> str | None:
    """Return the command for a word that is no verb: a file or a name of what can be run, or an old program."""
    from dure.config.library import available, in_place_of

    if Path(word).suffix in (".yaml", ".yml") or word in {**available("experiment"), **available("study")}:
        return f"dure run {shell_word(word)}"
    return in_place_of(word)


def _setting(option: str, words: list[str]) -> str | None:
    """Return what takes the place of an option that is a setting here, or was one in another system's scripts."""
    from dure.config.aliases import successor
    from dure.config.problems import as_override
    from dure.config.schema import Experiment
    from dure.config.sections import dotted_keys
    from dure.config.tree import given_value

    name = option.lstrip("-").replace("-", "_")
    places = [index for index, word in enumerate(words) if word.partition("=")[0] == option]
    if not places:  # one letter of several, as in -xyz
        return None
    word, *following = words[places[0] : places[0] + 2]
    given = [word.partition("=")[2]] if "=" in word else [each for each in following if each[:2] != "--"]
    value = given[0] if given else "true"
    own = [key for key in dotted_keys(Experiment) if name in (key, key.rpartition(".")[2])]
    if len(own) == 1:
        return f"{shell_word(f'{own[0]}={value}')}, without dashes: settings of the YAML are no options"
    with suppress(ValueError):  # brackets that do not close are quoted as they are
        value = given_value(value)
    now = successor(name.split("."), value)
    return None if now is None else as_override(now)


def _key_of_study(option: str, context: Any) -> str | None:
    """Return the list in the file of a verb's kind of study that holds what only another verb has an option for."""
    from dure.studies.study import study_kinds

    verb, name = context.info_name, option.strip("-").replace("-", "_")
    plan, taken = study_kinds().get(verb), {each.name for each in context.command.params}
    fields = {} if plan is None else {key: plan.model_fields[key] for key in plan.model_fields.keys() - taken}
    lists = [
        key for key in (name, f"{name}s") if key in fields and get_origin(fields[key].annotation) is tuple
    ]
    return f"'{lists[0]}: […]' in the YAML of a {verb}" if lists else None


def _elsewhere(option: str, context: Any, like: str | None) -> str | None:
    """Return the verbs that have an option, if they are few; what is like it where none has it."""
    verbs = context.find_root().command.commands.items()
    able = [f"dure {name}" for name, verb in verbs if any(option in each.opts for each in verb.params)]
    if not able:
        return like
    has = "has" if len(able) == 1 else "have"
    return f"{' or '.join(able)}, which {has} it" if len(able) <= _FEW else None


def _fail(error: Exception | None, text: str, code: int, words: list[str]) -> NoReturn:
    if error is not None and "--debug" in words:
        print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"dure: {redacted(text)}", file=sys.stderr)
    sys.exit(code)
