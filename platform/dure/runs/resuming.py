"""What may change when a run goes on: what changes no number, and how long it trains."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dure.config.loading import load_record
from dure.config.schema import Experiment
from dure.config.tree import flat
from dure.errors import UserError
from dure.runs.folder import RunFolder

FREE = (
    *("experiment.description", "experiment.tags", "tracking", "wandb.*", "mlflow.*", "model.use_unsloth"),
    *("targets", "targets.*", "tokenizer.max_unknown_rate"),
    *("training.num_data_workers", "training.log_every", "training.save_total_limit", "training.on_oom"),
)
"""Settings that change no number of a run; ``on_oom`` only decides whether there are any after memory ran out."""
PLACES = (
    *("data.train", "data.dev", "data.test", "data.columns", "data.columns.*", "data.columns_separator"),
    *("data.encoding", "data.quoting", "data.header", "data.on_bad_row"),
)
"""Settings that say where rows are and how they are read; the rows themselves are compared by their hash."""
LENGTH = ("training.epochs", "training.max_steps")
"""Settings by which a run may become longer."""


def started_with(path: Path) -> Experiment | None:
    """Return the experiment that the run of a folder was started with; None where none was."""
    file = RunFolder(path).experiment
    return load_record(file) if file.is_file() else None


def require_continuable(path: Path, wanted: Experiment, *, may_be_longer: bool = False) -> bool:
    """Check that a run can go on as an experiment says, and return whether it is to be longer than it was.

    Nothing is checked where the folder keeps no experiment. More epochs or steps may be asked for where it
    ``may_be_longer``.

    Raises:
        UserError: A setting that changes numbers is not what it was; names it with both values.
    """
    before = started_with(path)
    if before is None:
        return False
    file = RunFolder(path).experiment
    old, new = (flat(each.model_dump(mode="json")) for each in (before, wanted))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and not _is_free(key, old, new)]
    if not changed:
        return False
    is_length = may_be_longer and set(changed) <= set(LENGTH)
    if is_length and _is_longer(old, new):
        return True
    key, *others = changed
    more = f"; so are {', '.join(others)}" if others and not is_length else ""
    raise UserError(
        f"'{key}' is {new.get(key)!r} now, and the run was started with {old.get(key)!r}{more}",
        where=str(file),
        hint="a run that goes on can become longer, and not shorter than it was"
        if is_length
        else "resume with the same settings, or start a new run without --resume",
    )


def _is_free(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if any(fnmatchcase(key, pattern) for pattern in FREE):
        return True
    if key.startswith("rehearsal.") and not (old["rehearsal.enabled"] or new["rehearsal.enabled"]):
        return True
    # A split that was not there, or is no more, is none that is only elsewhere.
    is_place = any(fnmatchcase(key, pattern) for pattern in PLACES)
    return is_place and not (key in ("data.dev", "data.test") and None in (old.get(key), new.get(key)))


def _is_longer(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    epochs, limit = LENGTH
    is_limit_kept = new[limit] is None or (old[limit] is not None and new[limit] >= old[limit])
    return bool(new[epochs] >= old[epochs] and is_limit_kept)
