"""Importing the family that an experiment names, or that a configuration of an older system is of."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from dure.config.families import family_module, own_families
from dure.config.loading import load_record
from dure.config.schema import Experiment
from dure.errors import UserError, named, nearest
from dure.events import Notify
from dure.family.contract import Family
from dure.metrics.metric import Metric
from dure.runs.folder import RunFolder

logger = logging.getLogger(__name__)


def load_family(experiment: Experiment, notify: Notify = logger.info) -> Family:
    """Import the family of an experiment and make it.

    Raises:
        UserError: The module cannot be imported, or does not define exactly one family.
    """
    family = family_class(experiment.family)(experiment, notify)
    _check_metrics(family, experiment.family)
    return family


def family_of_run(run: RunFolder, notify: Notify = logger.info, overrides: Sequence[str] = ()) -> Family:
    """Return the family of a run's experiment, which reads tables as the training table was read.

    The run may be an export of one; ``overrides`` are ``a.b=value`` texts over the experiment.

    Raises:
        UserError: There is no experiment, or it is broken.
    """
    found = run.read_environment().get("recognised", {})
    return load_family(
        load_record(run.experiment, (*(f"{key}={value}" for key, value in found.items()), *overrides)), notify
    )


def family_class(name: str) -> type[Family]:
    """Import the family of a module by its dotted name.

    Raises:
        UserError: The module cannot be imported, or does not define exactly one family.
    """
    if name.startswith("."):
        raise UserError(
            f"'{name}' is no module name",
            where="family",
            expected="a module's dotted name, such as my_package.my_family",
        )
    try:
        module = family_module(name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken_module(name, error) from error
        own = {each.rpartition(".")[2]: each for each in own_families()}
        like = nearest(name.rpartition(".")[2], list(own))
        raise UserError(
            f"there is no module '{name}'",
            where="family",
            expected="a module's dotted name, such as my_package.my_family",
            hint=own[like] if like else "run from the folder that holds the module",
        ) from None
    except Exception as error:  # a user's module may raise anything while it is imported
        raise _broken_module(name, error) from error
    families = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Family) and member.__module__ == module.__name__
    ]
    found = [member for member in families if not inspect.isabstract(member)]
    if len(found) != 1:
        lacking = sorted(families[0].__abstractmethods__) if len(families) == 1 else []
        raise UserError(
            f"module '{name}' defines {len(found)} families",
            where="family",
            expected="exactly one subclass of Family",
            hint=f"{families[0].__name__} lacks {', '.join(lacking)}" if lacking else None,
        )
    return found[0]


def family_of_old(predicts: Literal["logits", "text"], text: str) -> str:
    """Return which of dure's own families a file of an older system is of.

    ``text`` is everything that the file says, and ``predicts`` is as ``Family.predicts`` has it.
    """
    declared = {}
    for name in own_families():
        with suppress(UserError):  # a package of several, which are named by their own modules
            declared[name] = family_class(name)
    candidates = {
        name: each.converts
        # A family that is built upon another says more than that one, so it is asked first.
        for name, each in sorted(declared.items(), key=lambda item: -len(item[1].__mro__))
        if each.predicts == predicts and each.converts is not None
    }
    plain = next(name for name, words in candidates.items() if not words)
    said = text.casefold()
    return next(
        (name for name, words in candidates.items() if words and any(word in said for word in words)), plain
    )


def _check_metrics(family: Family, name: str) -> None:
    """Check that a family declares its metrics as :class:`Metric`."""
    declared = getattr(family, "metrics", None)
    if not isinstance(declared, tuple) or not all(isinstance(each, Metric) for each in declared):
        old = " (metric_names, of an older dure, is not read)" if hasattr(family, "metric_names") else ""
        raise UserError(
            f"the family of module '{name}' does not declare its metrics{old}",
            where="family",
            expected='metrics = (Metric("eval_accuracy", "max", "share"), …), a tuple of dure.metrics.metric.Metric',
        )


def _broken_module(name: str, error: Exception) -> UserError:
    """Return the error of a module that is there, but does not run to its end."""
    frames = traceback.extract_tb(error.__traceback__)
    # A mistake of syntax names its place itself; the last frame is that of the import then.
    place = "" if isinstance(error, SyntaxError) else f" at {frames[-1].filename}:{frames[-1].lineno}"
    return UserError(
        f"module '{name}' cannot be imported{place} ({named(error, 160)})",
        where="family",
        hint="correct the module; --debug shows the whole way to the mistake",
    )
