"""Going back to an epoch whose weights are kept: what came after it is moved aside, and the run goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerState

from dure.config.schema import Experiment
from dure.events import Notify
from dure.family import load_family
from dure.files import read_json, read_json_lines, write_json, written_beside
from dure.modeling.weights import STATE, read_saved
from dure.runs.checkpoints import AVERAGE_FILE, STATE_FILE, WEIGHTS_FILE, checkpoint_name, checkpoints
from dure.runs.epochs import RAW, epochs_of
from dure.runs.folder import RunFolder, move_aside
from dure.training.recovery import STATE_FILE as RECOVERY_FILE


def go_back(
    folder: RunFolder,
    file: Path,
    experiment: Experiment,
    *,
    made_of_all: Iterable[Path] = (),
    notify: Notify,
) -> None:
    """Let a run's folder be as it was after an epoch, so that resuming it goes on there; nothing is deleted.

    With the checkpoint of that step the run goes on exactly. When that is gone, one is made of the epoch's weights,
    which says nothing of the optimizer's moments. When nothing came after the epoch, nothing is done. ``made_of_all``
    is what else in the folder comes from the whole run; it goes aside too if it is there.

    Raises:
        UserError: The file cannot be read.
    """
    saved = read_saved(file, mmap=True)
    epoch, step = int(saved["epoch"]), int(saved["step"])
    records = read_json_lines(folder.metrics)
    kept = checkpoints(folder.checkpoints)
    later = [path for number, path in kept.items() if number > step]
    later += [path for number, path in epochs_of(folder.checkpoints).items() if number > epoch]
    if not later and all(record["step"] <= step for record in records):
        return
    aside = move_aside((folder.result, folder.final_model, *made_of_all), folder.path)
    # The records stay: the resumed run drops those after its checkpoint by itself.
    if folder.metrics.is_file():
        shutil.copy2(folder.metrics, aside)
    best = _best(records, step, experiment, kept)
    if step in kept:
        _point_at_best(kept[step], best)
    else:
        _make_checkpoint(folder.checkpoints / checkpoint_name(step), saved, best, records, experiment)
    for path in later:
        path.rename(aside / path.name)
    how = "exactly" if step in kept else "from its weights, since its checkpoint is gone"
    notify(f"going on after epoch {epoch} (step {step}) {how}; what came later is in {aside.name}")


def _best(
    records: list[dict[str, Any]], step: int, experiment: Experiment, kept: Mapping[int, Path]
) -> tuple[int, float] | None:
    """Return step and metric of the best validation up to a step; of that step itself when the best one is gone."""
    metric = load_family(experiment).best_metric
    name = metric.name
    found = [
        (record["step"], record[name])
        for record in records
        if 0 < record["step"] <= step and record.get(name) is not None
    ]
    if not found:
        return None
    best = min(found, key=lambda each: metric.cost(each[1]))  # the first one of equals, as while training
    if best[0] in kept:
        return best
    return found[-1] if found[-1][0] == step else None


def _point_at_best(checkpoint: Path, best: tuple[int, float] | None) -> None:
    """Let a checkpoint name the best one that is still there."""
    file = checkpoint / STATE_FILE
    state = read_json(file, what="state of a trainer")
    named = _named(checkpoint, best)
    if named["best_global_step"] != state["best_global_step"]:
        write_json(file, state | named)


def _named(checkpoint: Path, best: tuple[int, float] | None) -> dict[str, Any]:
    if best is None:
        return dict.fromkeys(("best_global_step", "best_metric", "best_model_checkpoint"))
    step, metric = best
    path = checkpoint.with_name(checkpoint_name(step))
    return {"best_global_step": step, "best_metric": metric, "best_model_checkpoint": str(path)}


def _make_checkpoint(
    path: Path,
    saved: Mapping[str, Any],
    best: tuple[int, float] | None,
    records: list[dict[str, Any]],
    experiment: Experiment,
) -> None:
    """Write what a run goes on with from the weights of an epoch: a checkpoint without an optimizer."""
    step = int(saved["step"])
    every = experiment.training.eval_every
    patience = experiment.training.early_stopping_patience
    stopping = [] if patience is None else [EarlyStoppingCallback(patience)]
    for callback in stopping:
        since = (best or (step,))[0]
        callback.early_stopping_patience_counter = sum(
            experiment.training.best_metric in record and since < record["step"] <= step for record in records
        )
    state = TrainerState(
        epoch=float(saved["epoch"]),
        global_step=step,
        logging_steps=experiment.training.log_every,
        eval_steps=None if every == "epoch" else every,
        save_steps=None if every == "epoch" else every,
        train_batch_size=experiment.training.batch_size,
        stateful_callbacks=stopping,
        **_named(path, best),
    )
    with written_beside(path) as beside:
        beside.mkdir()
        torch.save({STATE: saved.get(RAW, saved[STATE])}, beside / WEIGHTS_FILE)
        if RAW in saved:
            torch.save({STATE: saved[STATE], "num_updates": step}, beside / AVERAGE_FILE)
        write_json(beside / RECOVERY_FILE, {"rows_at_once": None, "num_oom": 0})
        state.save_to_json(str(beside / STATE_FILE))
