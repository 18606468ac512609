"""The contract of a family as a test that anyone can run.

    from dure.family.testing import check_family

    def test_my_family_keeps_the_contract(tmp_path):
        check_family(experiment, tmp_path)

The experiment is best a rehearsal: everything is computed on the machine that tests, in seconds. A promise that is
broken raises an ``AssertionError`` that names it.
"""

from __future__ import annotations

import csv
import math
import pickle
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dure.config.loading import load_profile
from dure.config.schema import Experiment, Profile
from dure.data.collating import Batch, Batches, pieces
from dure.errors import counted
from dure.events import silent
from dure.family import Family, load_family
from dure.family.corpus import Corpus, load_corpus, read_split
from dure.family.predicting import predict_rows
from dure.files import read_json_lines
from dure.metrics.metric import choosable
from dure.modeling.objectives import Objective
from dure.runs.checkpoints import checkpoints
from dure.runs.folder import SCORE, RunFolder, RunResult
from dure.training.run import RunRequest, run

_NUM_ROWS = 5
"""Rows of the batch that is looked at: an odd number, so that halves differ."""
_TIMES = ("runtime", "per_second", "seconds", "_time")


def check_family(
    experiment: Experiment, folder: Path, *, profile: Profile | None = None, runs: bool = True
) -> None:
    """Take the family of an experiment through everything that it promises.

    It is built, and its rows encoded and put into batches. A batch in pieces must have the loss and the gradients of
    the whole. Some steps must lower the loss; what is saved then must load to the same logits, and predict a row alone
    as among others. Modules must hold every parameter once, and figures be those that are declared. At last a run is
    trained to its end, cut after a checkpoint, and resumed to the same records.

    Args:
        experiment: What to build, small. Its run must have at least two checkpoints, and keep them.
        folder: An empty folder to work in.
        profile: The machine; the CPU of this one when not given.
        runs: Whether whole runs are trained, which takes most of the time.

    Raises:
        AssertionError: A promise is broken.
    """
    profile = profile or load_profile("cpu")
    made = _made(experiment, profile)
    _check_batch(made)
    _check_pieces(made)
    _check_modules(made)
    _check_baseline(made)
    _check_steps(made)
    _check_saved(made, folder / "final_model")
    if runs:
        _check_run(made, profile, folder)


@dataclass(frozen=True)
class _Made:
    family: Family
    corpus: Corpus
    model: PreTrainedModel
    batches: Batches
    objective: Objective
    batch: Batch


def _made(experiment: Experiment, profile: Profile) -> _Made:
    family = load_family(experiment, silent)
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, profile)
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate([corpus.train[row] for row in range(_NUM_ROWS)])
    return _Made(family, corpus, model, batches, family.objective(model, corpus.train), batch)


def _require(is_kept: bool, promise: str) -> None:
    if not is_kept:
        raise AssertionError(promise)


def _check_batch(made: _Made) -> None:
    missing = {"input_ids", "length", "truncated"} - set(made.corpus.train.column_names)
    _require(not missing, f"encode() gives no {', '.join(sorted(missing))}")
    found = made.batches.num_rows(made.batch)
    _require(found == _NUM_ROWS, f"num_rows() is {found} for a batch of {_NUM_ROWS} rows")
    try:
        pickle.dumps(made.batches.collate)
    except Exception as error:
        raise AssertionError(f"batches() cannot be sent to processes that load batches: {error}") from None
    targets = made.batches.targets(made.batch)
    _require(targets is not None, "targets() is None although the rows have targets")
    losses = made.objective.row_losses(_logits(made.model, made), targets)
    _require(
        len(losses) == _NUM_ROWS and losses.shape[1] % 2 == 0,
        f"row_losses() has shape {tuple(losses.shape)}, must be ({_NUM_ROWS}, losses and as many numbers of items)",
    )


def _check_pieces(made: _Made) -> None:
    """Check that a batch in pieces has the loss and the gradients of the whole, as steps of several passes need."""
    items = made.objective.count(made.batches.targets(made.batch))
    whole, expected = _gradients(made, [made.batch], items)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    _require(largest > 0, "the loss has no gradient")
    for rows in (3, 1):
        cut = list(pieces(made.batches, made.batch, rows))
        sizes = [made.batches.num_rows(piece) for piece in cut]
        _require(
            sum(sizes) == _NUM_ROWS and min(sizes) >= 1 and max(sizes) <= rows,
            f"split() makes pieces of {sizes} rows of {_NUM_ROWS}, where at most {rows} are wanted",
        )
        counted = sum(made.objective.count(made.batches.targets(piece)) for piece in cut)
        _require(
            torch.allclose(torch.as_tensor(counted, dtype=torch.float32), items.float()),
            f"count() is {items.tolist()} for a batch, and {counted} for its pieces together",
        )
        loss, gradients = _gradients(made, cut, items)
        _require(
            math.isclose(loss, whole, rel_tol=1e-4, abs_tol=1e-6),
            f"the loss is {whole:g} for a batch, and {loss:g} for its pieces together",
        )
        for name, gradient in expected.items():
            apart = float((gradient - gradients[name]).abs().max())
            _require(
                apart <= 1e-3 * float(gradient.abs().max()) + 1e-5 * largest,
                f"the gradient of {name} in pieces of {rows} rows is off by {apart:g}",
            )


def _gradients(
    made: _Made, batches: list[Batch], items: torch.Tensor
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of batches as parts of one step, and the gradients that they add up to; without dropout."""
    made.model.eval()
    made.model.zero_grad()
    total = 0.0
    for batch in batches:
        outputs = made.model(**made.batches.inputs(batch))
        loss = made.objective(outputs, made.batches.targets(batch), items)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    found = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    return total, found


def _check_modules(made: _Made) -> None:
    modules = made.family.modules(made.model)
    for name, _ in made.model.named_parameters():
        holders = [module for module, prefixes in modules.items() if name.startswith(prefixes)]
        _require(len(holders) == 1, f"modules() puts the parameter {name} into {holders or 'none'}")
    losses = made.family.module_losses()
    _require(set(losses) <= set(modules), "module_losses() names a module that modules() does not")
    for name in losses.values():
        metric = made.family.metric(name)
        is_loss = metric is not None and metric.direction == "min"
        _require(is_loss, f"module_losses() names {name}, which is not declared as better the lower it is")


def _check_baseline(made: _Made) -> None:
    figures = _baseline(made)
    _require(figures == _baseline(made), "baseline() differs from one call to the next")
    _check_declared(made, figures, "baseline()")
    _require(all(map(math.isfinite, figures.values())), f"baseline() is not finite: {figures}")


def _check_declared(made: _Made, names: Iterable[str], what: str) -> None:
    undeclared = sorted(name for name in names if made.family.metric(name) is None)
    _require(not undeclared, f"{what} gives {', '.join(undeclared)}, which no metric of the family declares")


def _baseline(made: _Made) -> dict[str, float]:
    corpus = made.corpus
    return {} if corpus.dev is None else made.family.baseline(corpus.tokenizer, corpus.train, corpus.dev)


def _check_steps(made: _Made) -> None:
    trained = [weight for weight in made.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    made.model.eval()  # Without dropout, by whose chance alone a loss may rise.
    targets = made.batches.targets(made.batch)
    losses = []
    for _ in range(6):
        loss = made.objective(made.model(**made.batches.inputs(made.batch)), targets)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    _require(losses[-1] < losses[0], f"steps on one batch do not lower its loss: {losses}")


def _check_saved(made: _Made, folder: Path) -> None:
    """Check what predicts later: another process that knows the experiment and the saved model, and nothing else."""
    tokenizer = made.corpus.tokenizer
    made.family.export(made.model, tokenizer, folder)
    later = load_family(made.family.experiment, silent)
    model, loaded_tokenizer = later.load_exported(folder)
    before, after = _logits(made.model, made), _logits(model, made)
    _require(
        torch.allclose(before, after, atol=2e-4, rtol=1e-3),
        f"logits of the saved model are off by {float((before - after).abs().max()):g}",
    )
    source = read_split(made.family, "train", made.family.experiment.data.train).dataset[:_NUM_ROWS]
    inputs = {
        role.name: source[role.name] for role in made.family.roles if role.is_input and role.name in source
    }
    features = later.encode(inputs, loaded_tokenizer)
    same = made.family.encode(inputs, tokenizer)["input_ids"] == features["input_ids"]
    _require(same, "the saved tokenizer encodes otherwise")
    _check_predictions(later, model, loaded_tokenizer, datasets.Dataset.from_dict(features))


def _check_predictions(
    family: Family, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: datasets.Dataset
) -> None:
    done: list[int] = []
    together = predict_rows(family, model, tokenizer, rows, progress=done.append)
    _require(sum(done) == len(together) == len(rows), "predictions() gives another number of rows")
    alone = [predict_rows(family, model, tokenizer, rows.select([row]))[0] for row in range(len(rows))]
    for one, other in zip(alone, together, strict=True):
        _require(_is_same(one, other), f"a row alone is predicted as {one}, among others as {other}")


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(value, other[name], rel_tol=1e-3, abs_tol=1e-4)
        if isinstance(value, float)
        else value == other[name]
        for name, value in one.items()
    )


def _logits(model: PreTrainedModel, made: _Made) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(**made.batches.inputs(made.batch))["logits"]
    return logits.float()


def _check_run(made: _Made, profile: Profile, folder: Path) -> None:
    """Check the figures of a run, and that it resumes to the same ones from its last checkpoint but one."""
    experiment = made.family.experiment
    whole = run(RunRequest(experiment, profile, folder / "whole"))
    computed = {name for name in _figures(whole) if name.startswith("eval_")}
    _check_declared(made, computed, "validation")
    missing = set() if made.corpus.dev is None else {*choosable(made.family.metrics)} - computed
    _require(not missing, f"validation does not give {sorted(missing)}, which are declared")
    baseline = {f"baseline_{name.removeprefix('eval_')}": value for name, value in _baseline(made).items()}
    stands = baseline.items() <= whole.metrics.items()
    _require(stands, "baseline() is not what stands beside the result of a run")
    _check_row_scores(made, RunFolder(folder / "whole"), whole)
    cut = RunFolder(shutil.copytree(folder / "whole", folder / "cut"))
    kept = checkpoints(cut.checkpoints)
    # Of an embedded corpus of few different texts most training rows are validation rows too, and are left out.
    what = f"{whole.metrics['steps']} steps on {counted(len(made.corpus.train), 'training row')}"
    _require(
        len(kept) > 1,
        f"the run keeps {counted(len(kept), 'checkpoint')} of {what}, and two are needed: more rows with texts of their "
        "own, a smaller training.eval_every, or a larger save_total_limit",
    )
    shutil.rmtree(kept[max(kept)])
    shutil.rmtree(cut.final_model)
    cut.result.unlink()
    resumed = run(RunRequest(experiment, profile, cut.path, resume=True))
    _require(_figures(resumed) == _figures(whole), "a resumed run ends with other figures")
    records = [list(_records(RunFolder(folder / name))) for name in ("whole", "cut")]
    _require(records[0] == records[1], "a resumed run has other records")


def _check_row_scores(made: _Made, folder: RunFolder, result: RunResult) -> None:
    """Check that what rows add to metrics has these as its mean, with what was predicted beside it."""
    if made.corpus.tested is None or made.corpus.test is None:
        return
    with folder.predictions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    _require(len(rows) == made.corpus.tested.table.num_rows, "a run does not predict all of its test rows")
    for column in (name for name in rows[0] if name.startswith(SCORE)):
        name = column.removeprefix(SCORE)
        metric, figure = made.family.metric(f"eval_{name}"), result.metrics.get(f"test_{name}")
        is_compared = metric is not None and metric.direction is not None
        _require(is_compared, f"row_scores() gives {name}, of which no direction is declared")
        scores = [float(row[column]) for row in rows if row[column]]
        _require(
            len(scores) == len(rows)
            and isinstance(figure, float)
            and math.isclose(math.fsum(scores) / len(scores), figure, rel_tol=1e-5, abs_tol=1e-6),
            f"the mean of {column} is not test_{name}, {figure}",
        )


def _figures(result: RunResult) -> dict[str, Any]:
    return {
        name: value
        for name, value in result.metrics.items()
        if name.startswith(("eval_", "test_", "steps")) and not name.endswith(_TIMES)
    }


def _records(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Give what a run recorded, without what depends on the clock."""
    for record in read_json_lines(folder.metrics):
        yield {name: value for name, value in record.items() if not name.endswith(_TIMES)}
