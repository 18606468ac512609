"""``dure sweet-spot`` and ``dure crossover``: from a run to the epochs of its modules, and to a model made of them."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import set_seed

from dure.config.schema import Profile
from dure.data.batching import length_order
from dure.data.collating import moved
from dure.epochs.crossover import crossover, save_crossover
from dure.epochs.loss_series import series_of
from dure.epochs.mixing import EMA, EpochWeights, Source, State, tied_names
from dure.epochs.sweet_spot import DEFAULT, Thresholds, analysis_record, sweet_spot
from dure.errors import UserError, counted
from dure.events import Notify
from dure.family import Family
from dure.family.corpus import load_corpus
from dure.family.loading import family_of_run
from dure.family.run_weights import finished_run
from dure.family.saved_model import read_model
from dure.files import json_lines, write_json, write_text
from dure.metrics.metric import Metric
from dure.runs.epochs import epochs_of
from dure.runs.folder import RunFolder

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


ANALYSIS = "sweet_spot_analysis"
EMA_FILE = "ema.pt"


def find_sweet_spots(run: Path, *, thresholds: Thresholds = DEFAULT, notify: Notify) -> dict[str, Any]:
    """Say of every module of a run at which epoch it was at its best, and write report and picture.

    ``sweet_spot_analysis/`` of the run's folder gets ``sweet_spot_analysis_<time>.json``,
    ``sweet_spot_report_<time>.txt`` and ``plots/sweet_spots_<time>.png``. The run is finished, or a stage of a
    progressive training.

    Returns:
        The analysis with the ``files`` it is in. Where the run kept weights of epochs, only these are named.

    Raises:
        UserError: The folder holds no finished run, or no validation was recorded at the end of an epoch.
    """
    from dure.epochs.sweet_spot_plot import plot_sweet_spots
    from dure.epochs.sweet_spot_table import sweet_spot_text

    folder = finished_run(run)
    family = family_of_run(folder, notify)
    model, _ = read_model(family, folder.final_model)
    series = series_of(run, family.modules(model), family.module_losses())
    record = analysis_record(series, thresholds, saved=epochs_of(folder.checkpoints) or None)
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    files = {
        "analysis": run / ANALYSIS / f"sweet_spot_analysis_{stamp}.json",
        "report": run / ANALYSIS / f"sweet_spot_report_{stamp}.txt",
        "plot": run / ANALYSIS / "plots" / f"sweet_spots_{stamp}.png",
    }
    plot_sweet_spots(files["plot"], record)
    write_text(files["report"], sweet_spot_text(record))
    write_json(files["analysis"], record)
    return {**record, "files": {name: str(path) for name, path in files.items()}}


def cross_over(
    run: Path,
    *,
    profile: Profile,
    searches: tuple[Literal["greedy", "optuna"], ...],
    max_evaluations: int,
    notify: Notify,
) -> dict[str, Any]:
    """Build the final model of a run from the epochs of its modules, if that is better than every baseline.

    Candidates are compared by their loss on the validation rows; the winner meets the baselines on the test rows. A run
    without test rows has its validation rows cut into halves, and the record says so. ``crossover_final.pth`` and
    ``crossover_final.json`` come to lie beside the weights of the epochs. Each search may score ``max_evaluations``
    models.

    Returns:
        What ``crossover_final.json`` holds, with the ``path`` of the model.

    Raises:
        UserError: The folder holds no finished run, it kept no weights of epochs, or there are no rows to judge by.
    """
    folder = finished_run(run)
    family = family_of_run(folder, notify)
    family.profile = profile
    files = epochs_of(folder.checkpoints)
    if not files:
        raise UserError(
            "no weights of single epochs were kept",
            where=str(folder.checkpoints),
            expected="files epoch_<n>.pt, as a stage of dure progressive has them",
        )
    _, tokenizer = read_model(family, folder.final_model)
    corpus = load_corpus(family, notify=notify, tokenizer=tokenizer)
    seed = family.experiment.experiment.seed
    selection, held_out, selected_by, held_out_by = _splits(corpus.dev, corpus.test, seed, run, notify)
    # As the run did it, so that what it did not train is the same.
    set_seed(seed)
    model = family.load_model(tokenizer, profile)
    judge = _Judge(family, model, tokenizer, corpus.train, torch.device(profile.device))
    average = folder.checkpoints / EMA_FILE
    sources: list[tuple[Source, Path]] = [*files.items()]
    if average.is_file():
        sources.append((EMA, average))
    weights = EpochWeights(dict(sources), family.modules(model), ties=tied_names(model.state_dict()))
    series = series_of(run, family.modules(model), family.module_losses())
    spots = {name: sweet_spot(points, saved=weights.epochs).epoch for name, points in series.items()}
    outcome = crossover(
        weights,
        {name: epoch for name, epoch in spots.items() if epoch is not None},
        lambda state: float(np.mean(judge.row_losses(state, selection))),
        lambda state: judge.row_losses(state, held_out),
        metric=ROW_LOSS,
        best=_best_epoch(folder, family, list(weights.epochs)),
        searches=searches,
        max_evaluations=max_evaluations,
        seed=seed,
        notify=notify,
    )
    about = {"score": "loss", "selection": selected_by, "held_out": held_out_by}
    path = save_crossover(outcome, weights, folder.checkpoints, about=about)
    return {**outcome.as_dict(), **about, "path": str(path)}


ROW_LOSS = Metric("loss", "min")
"""What a model is scored by here, over all rows and on each one."""


class _Judge:
    """Scores states of one model by the loss of each row."""

    def __init__(
        self,
        family: Family,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: datasets.Dataset,
        device: torch.device,
    ) -> None:
        self.batch_size = family.experiment.training.rows_evaluated
        self.objective = family.objective(model, train)
        self.batches = family.batches(tokenizer, model)
        self.device = device
        self.model = model.to(device).eval()

    @torch.no_grad()
    def row_losses(self, state: State, dataset: datasets.Dataset) -> list[float]:
        """Return what each row adds to the loss of the table, which is the mean of them; always in one order."""
        self.model.load_state_dict(state, strict=False)
        found = []
        # Rows of similar length together, so that batches pad little.
        rows = dataset.select(length_order(dataset["length"][:]))
        for begin in range(0, len(rows), self.batch_size):
            members = [rows[place] for place in range(begin, min(begin + self.batch_size, len(rows)))]
            batch = moved(self.batches.collate(members), self.device)
            logits = self.model(**self.batches.inputs(batch))["logits"].float()
            found.append(self.objective.row_losses(logits, self.batches.targets(batch)).cpu())
        return self.objective.shares(torch.cat(found))


def _best_epoch(folder: RunFolder, family: Family, saved: list[int]) -> int | None:
    """Return the saved epoch that is best by the metric of the run; None when none was validated."""
    metric = family.best_metric
    values = {
        round(record["epoch"]): record[metric.name]
        for record in json_lines(folder.metrics)
        if record.get(metric.name) is not None
        and math.isclose(record["epoch"], round(record["epoch"]), abs_tol=0.02)
        and round(record["epoch"]) in saved
    }
    return metric.best(values)


def _splits(
    dev: datasets.Dataset | None, test: datasets.Dataset | None, seed: int, run: Path, notify: Notify
) -> tuple[datasets.Dataset, datasets.Dataset, str, str]:
    """Return the rows that select and those that are held out, and what both are in words."""
    if dev is None:
        raise UserError(
            "the run has no validation rows to select by",
            where=str(run),
            expected="data.dev in experiment.yaml",
        )
    if test is not None:
        return dev, test, f"the {counted(len(dev), 'row')} of dev", f"the {counted(len(test), 'row')} of test"
    if len(dev) < 2:
        raise UserError(
            "one validation row cannot both select and be held out", where=str(run), expected="data.test"
        )
    order = np.random.default_rng(seed).permutation(len(dev))
    first, second = np.sort(order[: len(dev) // 2]), np.sort(order[len(dev) // 2 :])
    notify("the run has no test rows: one half of the validation rows selects, the other is held out")
    return (
        dev.select(first),
        dev.select(second),
        f"{counted(len(first), 'row')}, a half of dev",
        f"{counted(len(second), 'row')}, the other half of dev; all of dev chose the sweet spots and the best epoch",
    )
