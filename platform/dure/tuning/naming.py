"""The names by which Ray's dashboard shows the trials of a study."""

from __future__ import annotations

from collections.abc import Callable

from ray import tune
from ray._raylet import setproctitle  # type: ignore[attr-defined]  # its stub leaves it out
from ray.tune.trainable.function_trainable import wrap_function


def named_trainable(
    function: Callable[..., None], study: str, *, one_trial_each: bool
) -> type[tune.Trainable]:
    """Return a trial function as the class that Tune would make of it, named after its study.

    Ray shows the name as the class of the actors, in their tasks (``seven.train``) and in the titles of their
    processes; Tune's own classes are all named ``ImplicitFunc``.

    Args:
        function: What ``tune.with_resources`` returned.
        study: Name of the study.
        one_trial_each: Whether every trial has a process of its own. It is then shown as ``<study>/<trial>``; one
            that goes on to the next trial is shown as ``<study>``, since Ray asks for this only once.
    """

    class Trial(wrap_function(function, name=study)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return f"{study}/{self.trial_name}" if one_trial_each else study

    Trial.__name__ = Trial.__qualname__ = study
    return Trial


def show_as(name: str) -> None:
    """Let the title of this process, a trial's, say what runs in it: ``ray::seven/kobart_baseline``.

    Ray sets a title of its own whenever Tune asks the trial for its next result, so this is called after each.
    """
    setproctitle(f"ray::{name}")
