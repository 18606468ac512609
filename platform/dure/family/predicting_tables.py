"""Predicting a table of any size: block by block, in this process or by others, to a file in the table's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import check_reading
from dure.config.schema import Profile
from dure.data.arrow_files import key_of
from dure.data.fields import roles_to_predict
from dure.data.sources import files_of
from dure.data.tables import Role, Table, columns_of, read_table
from dure.data.writing import check_output, write_rows
from dure.errors import UserError, shell_word
from dure.events import Notify, silent
from dure.family.contract import Family
from dure.family.corpus import cache_folder, encode_split
from dure.family.predicted_blocks import BLOCK_ROWS, PredictedBlocks
from dure.family.predicting import predict_rows
from dure.family.run_weights import weights_at
from dure.files import hash_of
from dure.runs.folder import RunFolder

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Predictor:
    """A final model that predicts, wherever it is loaded; it travels to other processes."""

    run: Path
    """Folder of its run, or file of its weights."""
    overrides: tuple[str, ...]
    """``data.key=value`` texts of how tables are read."""
    profile: Profile
    threads: int
    """With how many threads the CPU computes: the last digit of a logit depends on it."""

    def family(self, notify: Notify) -> Family:
        """Return the family of the run's experiment."""
        return weights_at(self.run).family(notify, self.overrides)

    def load(
        self, family: Family, notify: Notify, *, device: str | None = None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model onto the device, or another one.

        Raises:
            UserError: The run is not whole.
        """
        import torch

        torch.set_num_threads(self.threads)
        model, tokenizer = weights_at(self.run).read(family, self.profile, notify)
        model.to(torch.device(device or self.profile.device))
        return model, tokenizer


Spread = Callable[[Predictor, "datasets.Dataset", Sequence[int]], Iterator[tuple[int, list[dict[str, Any]]]]]
"""Lets other processes predict blocks of encoded rows: gives each one's number with its predictions, in any order."""


def rows_of(encoded: datasets.Dataset, block: int) -> datasets.Dataset:
    """Return the rows of a block."""
    start = block * BLOCK_ROWS
    return encoded.select(range(start, min(start + BLOCK_ROWS, len(encoded))))


def predict_file(
    runs: Sequence[Path],
    source: str,
    output: Path,
    *,
    overrides: Sequence[str],
    force: bool,
    resume: bool,
    profile: Profile,
    spread: Spread | None = None,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> dict[str, Any]:
    """Predict the rows of a table with the final models of runs, and write them in the table's order.

    The files were looked at by :func:`check_files`. Rows go to the disk as they are read, encoded and predicted: memory does not grow with the table, but for 16 bytes
    of every id and the ids of rows that are skipped. What was predicted of a file that a kill left without an end stays beside it.

    Args:
        runs: Folders of runs of one family; several, such as the folds of a cross-validation, predict together.
        source: Table with the family's input columns, and ids if it has them.
        output: File to write: the id column under its own name, then the family's predictions. Rows that are skipped
            stand there with their ids and without a prediction.
        overrides: ``data.key=value`` texts of how the table is read, over what the run was trained with.
        force: Whether a file that is there is replaced.
        resume: Whether to go on with what an earlier command has predicted for this output.
        profile: The machine.
        spread: Predicts in other processes, to the same bytes; this one does when not given.
        progress: Gets rows done and rows in all, over all models.
        notify: Gets one-line messages.

    Returns:
        ``rows`` (predicted ones), ``skipped``, ``output`` and ``models``.

    Raises:
        UserError: The table is not what the family needs, the output cannot be written or came there meanwhile, or the
            family's predictions cannot be put together.
    """
    import torch

    blocks, threads = PredictedBlocks(output), torch.get_num_threads()
    family = weights_at(runs[0]).family(notify, overrides)
    if len(runs) > 1 and type(family).combine is Family.combine:
        family.combine([])  # raises, before hours of computing
    roles, table = _read(family, source, notify)
    facts = {
        "the table": [table.fingerprint, table.num_rows, BLOCK_ROWS],
        "the models": [_identity(run) for run in runs],
        "the device": profile.device,
    }
    with blocks.held(facts, threads, resume=resume) as threads:
        try:
            _predict_blocks(
                [Predictor(run.absolute(), tuple(overrides), profile, threads) for run in runs],
                source, table, blocks, spread, progress, notify,
            )  # fmt: skip
        except BaseException:
            if blocks:
                notify(
                    f"{len(blocks):,} blocks of predictions are kept in {blocks.folder}; --resume goes on with them"
                )
            raise
        ids = {
            role.name: role.column for role in roles if role.is_id and role.name in table.dataset.column_names
        }
        names = blocks.read(0, 0)[0]
        rows = _in_order(family, table, list(ids), blocks, len(runs))
        write_rows(blocks.whole, [*ids.values(), *names], rows)
        outcome = {
            "rows": table.num_rows,
            "skipped": len(table.left_out),
            "output": str(output),
            "models": [str(weights_at(run).location) for run in runs],
        }
        check_output(output, force=force)  # something may have come there meanwhile
        blocks.publish(outcome)
    return outcome


def check_files(
    runs: Sequence[Path],
    source: str,
    output: str | Path | None,
    *,
    overrides: Sequence[str],
    force: bool,
    resume: bool,
) -> Path:
    """Check what :func:`predict_file` is given as far as that is known without a model, and without importing torch.

    Returns:
        The file to write.

    Raises:
        UserError: A folder holds no finished run, there is no such table, or the output is not named, cannot be written
            or is there.
    """
    check_reading(overrides, with_columns=True)
    for run in runs:
        weights_at(run)
    files = files_of(source)
    if output is None:
        raise UserError(
            "no file is named that the predictions of a table go into",
            where="--output",
            expected="a .csv, .tsv, .jsonl, .parquet or .xlsx",
            hint=f"dure predict {shell_word(runs[0])} {shell_word(source)} -o predictions.csv",
        )
    output = Path(output)
    if output.exists() and any(output.samefile(file) for file in files):
        raise UserError(
            "this is the table to predict, which would be lost",
            where=f"--output {output}",
            hint="another file",
        )
    check_output(output, force=force)
    PredictedBlocks(output).check(resume=resume, force=force)
    return output


def _predict_blocks(
    predictors: Sequence[Predictor],
    source: str,
    table: Table,
    blocks: PredictedBlocks,
    spread: Spread | None,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> None:
    """Predict what is missing, one model after the other."""
    num_blocks = -(-table.num_rows // BLOCK_ROWS)
    total = len(predictors) * table.num_rows
    missing = [blocks.missing(place, num_blocks) for place in range(len(predictors))]
    sizes = [min(BLOCK_ROWS, table.num_rows - block * BLOCK_ROWS) for block in range(num_blocks)]
    done = total - sum(sizes[number] for numbers in missing for number in numbers)
    if done:
        notify(f"{done:,} of {total:,} rows were predicted before")

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    for place, (predictor, numbers) in enumerate(zip(predictors, missing, strict=True)):
        if not numbers:
            continue
        heard = notify if place == 0 else silent
        origin = weights_at(predictor.run)
        if origin.file is not None:
            heard(f"predicting with {origin.words}")
        family = predictor.family(heard)
        of_model = table if place == 0 else _read(family, source, heard)[1]
        # For others to predict, only the tokenizer is needed here.
        model, tokenizer = predictor.load(family, heard, device="cpu" if spread else None)
        encoded = encode_split(family, tokenizer, of_model, notify=heard)
        if spread is None:
            for number in numbers:
                rows = rows_of(encoded, number)
                blocks.write(place, number, predict_rows(family, model, tokenizer, rows, progress=count))
            continue
        del model
        for number, predictions in spread(predictor, encoded, numbers):
            blocks.write(place, number, predictions)
            count(len(predictions))


def _read(family: Family, source: str, notify: Notify) -> tuple[Sequence[Role], Table]:
    data = family.experiment.data
    roles = roles_to_predict(family.roles, data.columns, columns_of(source, data), notify)
    settled = {role.name for role in roles if role.is_id}
    table = read_table(
        source,
        roles,
        {name: column for name, column in data.columns.items() if name not in settled},
        for_prediction=True,
        reading=data,
        cache_folder=cache_folder(),
    )
    for message in table.messages():
        notify(message)
    return roles, table


def _identity(run: Path) -> str:
    """Return a hash of what a run predicts with, and of its settings."""
    origin = weights_at(run)
    place = origin.location
    weights = place.rglob("*") if place.is_dir() else [place]
    files = sorted(file for file in {RunFolder(origin.run).experiment, *weights} if file.is_file())
    return key_of([[file.name, hash_of(file)] for file in files])


def _in_order(
    family: Family, table: Table, ids: Sequence[str], blocks: PredictedBlocks, num_models: int
) -> Iterator[list[Any]]:
    """Give every row of a table to predict in the order of its files: its ids and what was predicted, or nothing."""
    left_out = deque(table.left_out)
    nothing: list[None] = []

    def skipped() -> list[Any]:
        each = left_out.popleft()
        return [*(each.ids.get(role, "") for role in ids), *nothing]

    for block in range(-(-table.num_rows // BLOCK_ROWS)):
        parts = [blocks.read(model, block) for model in range(num_models)]
        predictions: Sequence[Mapping[str, Any]] = parts[0] if num_models == 1 else family.combine(parts)
        nothing = [None] * len(predictions[0])
        start = block * BLOCK_ROWS
        places = table.row_places(start, start + BLOCK_ROWS)
        texts = table.dataset[start : start + BLOCK_ROWS]
        for row, prediction in enumerate(predictions):
            while left_out and left_out[0].place < places[row]:
                yield skipped()
            yield [*(texts[role][row] for role in ids), *prediction.values()]
    while left_out:
        yield skipped()
