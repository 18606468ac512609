"""Checkpoint folders of a run: their names, which are whole, which is taken, and which may go."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dure.errors import RunError
from dure.files import parse_json
from dure.metrics.metric import Metric
from dure.runs.manifest import MANIFEST, described, faults, has_manifest

_NAME = re.compile(r"checkpoint-(\d+)")
STATE_FILE = "trainer_state.json"
"""Written into a checkpoint when all workers have written their parts; its manifest comes after it."""
RUNNING_LOSS_FILE = "running_loss.pt"
"""Losses since the last record, in a checkpoint that was not due but made for a stop; no other has it."""
WEIGHTS_FILE = "weights.pt"
"""The whole weights in a checkpoint that was written under DeepSpeed, or made of an epoch's weights."""
AVERAGE_FILE = "ema.pt"
"""Averaged weights in a checkpoint, whose other files hold those that training goes on with."""
BROKEN = "broken"
"""What the name of a checkpoint ends with that was set aside."""


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a run."""

    step: int
    score: float


@dataclass(frozen=True)
class Choice:
    """What a run goes on from.

    The checkpoint is whole, and so is the best one; there is none before the first validation.
    """

    path: Path
    best: Best | None

    @property
    def step(self) -> int:
        """Its optimiser step."""
        return int(self.path.name.rpartition("-")[2])

    def is_finished(self, total_steps: int) -> bool:
        """Return whether the run had trained to its end, when that is to be after so many steps."""
        state = _state(self.path)
        return _stops(state) and bool(state["max_steps"] >= total_steps)


def ended_early(path: Path) -> bool:
    """Return whether a run had ended with a checkpoint although there was more to train."""
    state = _state(path)
    return _stops(state) and bool(state["global_step"] < state["max_steps"])


def _stops(state: Mapping[str, Any]) -> bool:
    control = state["stateful_callbacks"].get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop", False))


def best_of(metric: Metric, steps: Iterable[int], history: Sequence[Mapping[str, Any]]) -> Best | None:
    """Return the best of some steps by the trainer's history; the first of equals, and never one without a score."""
    scores = {row["step"]: float(row[metric.name]) for row in history if row.get(metric.name) is not None}
    step = metric.best({step: scores[step] for step in sorted(steps) if step in scores})
    return None if step is None else Best(step, scores[step])


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint of an optimiser step."""
    return f"checkpoint-{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a run by optimiser step, oldest first.

    A checkpoint is written beside and renamed, so one that has its name was whole then; :func:`choose` compares
    it with its manifest.
    """
    if not folder.is_dir():
        return {}
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _NAME.fullmatch(path.name)) and (path / STATE_FILE).is_file()
    }
    return dict(sorted(found.items()))


def last_step(folder: Path) -> int:
    """Return the step of the newest checkpoint of a run; 0 when there is none."""
    return max(checkpoints(folder), default=0)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, as it is named."""
    return next(reversed(checkpoints(folder).values()), None)


def choose(folder: Path, metric: Metric, notify: Callable[[str], None]) -> Choice | None:
    """Return the checkpoint that a run goes on from, after its files were compared with its manifest.

    That is the newest one that is whole and whose best one is. Where there is none, it is the newest whole one, and
    its best is the best whole one by the records. What is broken, and what is newer than the choice, is set aside
    and never deleted. Each of this is reported. Checkpoints of older versions, which have no manifest, are taken as
    they are.
    """
    inspected = _Inspected(checkpoints(folder))
    step = newest = None
    for each in reversed(inspected.found):
        if inspected.fault(each) is None:
            newest = newest or each
            best_step = _state(inspected.found[each]).get("best_global_step")
            if not best_step or inspected.fault(best_step) is None:
                step = each
                break
    is_complete = step is not None
    step = step or newest
    if step is None:
        inspected.set_aside(None, notify)
        return None
    state = _state(inspected.found[step])
    best = Best(state["best_global_step"], state["best_metric"]) if state.get("best_global_step") else None
    other = best
    if not is_complete:
        whole = [each for each in inspected.found if each <= step and inspected.fault(each) is None]
        other = best_of(metric, whole, state.get("log_history", []))
    inspected.set_aside(step, notify)
    if best is not None and not is_complete:
        notify(f"the best, {checkpoint_name(best.step)}, is lost: {_next_best(other, metric)}")
    return Choice(inspected.found[step], other)


def best_whole(
    folder: Path,
    best: Best,
    history: Sequence[Mapping[str, Any]],
    metric: Metric,
    notify: Callable[[str], None],
) -> Best:
    """Return the best checkpoint of a run that has trained, or the best whole one by the records, which is reported.

    Raises:
        RunError: There was a best one, and none that was validated is whole.
    """
    inspected = _Inspected(checkpoints(folder))
    fault = inspected.fault(best.step)
    if fault is None:
        return best
    name = checkpoint_name(best.step)
    other = best_of(metric, [each for each in inspected.found if inspected.fault(each) is None], history)
    if other is None:
        raise RunError(
            f"the best checkpoint, {folder / name}, is broken ({fault}), and no other that was validated is whole: "
            "its weights are lost, and no others are taken for them; run again"
        )
    notify(f"the best checkpoint, {name}, is broken ({fault}): {_next_best(other, metric)}")
    return other


def take_as_best(best: Best | None, state: Any, folder: Path) -> None:
    """Put the best checkpoint, or that there is none, into the state of a Hugging Face trainer."""
    state.best_global_step = None if best is None else best.step
    state.best_metric = None if best is None else best.score
    state.best_model_checkpoint = None if best is None else str(folder / checkpoint_name(best.step))


class _Inspected:
    """The checkpoints of a run, each compared with its manifest when it is asked for, and then no more."""

    def __init__(self, found: dict[int, Path]) -> None:
        self.found = found
        self._faults: dict[int, str | None] = {}

    def fault(self, step: int) -> str | None:
        """Return in words what is broken of a checkpoint."""
        if step not in self.found:
            return "it is missing"
        if step not in self._faults:
            self._faults[step] = described(faults(self.found[step])) or self._state_fault(step)
        return self._faults[step]

    def set_aside(self, taken: int | None, notify: Callable[[str], None]) -> None:
        """Rename what is broken or newer than what is taken, and report it in one line."""
        said = []
        for step, path in self.found.items():
            newer = f"newer than {checkpoint_name(taken)}" if taken is not None and step > taken else None
            fault = self._faults.get(step) or newer
            # One that may go anyway can have gone for the sake of the disk budget, by another run of the study.
            if fault is not None and path.is_dir():
                aside = _free_name(path)
                path.rename(aside)
                said.append(f"{path.name} is set aside as {aside.name}: {fault}")
        if said:
            then = "the run begins anew" if taken is None else f"going on from {checkpoint_name(taken)}"
            notify(f"{'; '.join(said)}; {then}")
        if taken is not None and not has_manifest(self.found[taken]):
            notify(
                f"{checkpoint_name(taken)} has no {MANIFEST}, as an older dure wrote it: it is taken as it is, "
                "not compared with what was written"
            )

    def _state_fault(self, step: int) -> str | None:
        try:
            if _state(self.found[step])["global_step"] == step:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            pass  # what it is instead of a state does not matter
        return f"{STATE_FILE} is no state of step {step}"


def _next_best(best: Best | None, metric: Metric) -> str:
    if best is None:
        return "none of those that are whole was validated, so the next validation is the best"
    return (
        f"of those that are whole, {checkpoint_name(best.step)} is the best ({metric.name} {best.score:.4f})"
    )


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = parse_json((path / STATE_FILE).read_bytes())
    return state


def _free_name(path: Path) -> Path:
    names = (f"{path.name}.{BROKEN}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(other for name in names if not (other := path.with_name(name)).exists())


def retain(folder: Path, limit: int, protected: Iterable[int]) -> None:
    """Delete the oldest checkpoints above ``limit``.

    The newest one and the protected steps (the best; whatever an analysis still needs) are never deleted,
    even when that leaves more than ``limit``. A checkpoint that was made for a stop takes nobody's place: it goes
    as soon as there is a newer one.
    """
    found = checkpoints(folder)
    kept = {max(found, default=-1), *protected}
    extra = [step for step, path in found.items() if (path / RUNNING_LOSS_FILE).is_file()]
    due = [step for step in found if step not in extra]
    removable = [step for step in due if step not in kept]
    for step in (*(step for step in extra if step not in kept), *removable[: max(0, len(due) - limit)]):
        remove_checkpoint(found[step])


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint; renamed first, so that a kill meanwhile leaves no half of it under its name.

    A file that is read meanwhile cannot go on NFS: it goes with the leftovers when the run begins again.

    Raises:
        FileNotFoundError: It is gone already.
    """
    doomed = path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.deleted"))
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written or half deleted."""
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run that will not be continued."""
    for path in checkpoints(folder).values():
        remove_checkpoint(path)
    remove_leftovers(folder)


def remove_weights(folder: Path) -> None:
    """Remove the checkpoints and the final model of a finished run; its records stay."""
    remove_checkpoints(folder)
    shutil.rmtree(folder / "final_model", ignore_errors=True)
