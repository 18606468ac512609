"""The weights that are meant by a path: a run's final model, what won its crossover, a file of weights, an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dure.config.schema import Profile
from dure.errors import UserError
from dure.events import Notify
from dure.family.contract import Family
from dure.family.exported import is_export, read_exported, read_record
from dure.family.loading import family_of_run
from dure.files import read_json
from dure.runs.checkpoints import AVERAGE_FILE, WEIGHTS_FILE
from dure.runs.folder import RunFolder, UnifiedFolder, folder_at
from dure.runs.manifest import check_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SUFFIXES = (".pt", ".pth")
_FOLDERS_ABOVE = 3
"""A file of weights may lie in a checkpoint's folder, and that in the folder of a run."""


@dataclass(frozen=True)
class RunWeights:
    """Weights of a run, or an export of them."""

    run: Path
    """Folder of the run, or the export."""
    file: Path | None
    """File of the weights; None for ``final_model/``, and for an export."""
    words: str
    """What they are, for people."""

    @property
    def location(self) -> Path:
        """File or folder that the weights lie in."""
        if self.file is not None or is_export(self.run):
            return self.file or self.run
        return RunFolder(self.run).final_model

    def family(self, notify: Notify, overrides: Sequence[str] = ()) -> Family:
        """Return the family of the run's experiment, with ``a.b=value`` texts laid over that."""
        return family_of_run(RunFolder(self.run), notify, overrides)

    def read(
        self, family: Family, profile: Profile, notify: Notify, *, adapted: bool = False
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model with these weights, on the CPU, and its tokenizer.

        Weights of a model with adapters need the checkpoint that these were put on; all others only the run's folder.
        ``adapted`` lets adapters stay beside the model that they were put on; a final model has them merged, so that
        those of the best checkpoint are taken.

        Raises:
            UserError: What is needed is not there, broken, or of another model.
        """
        if is_export(self.run):
            return read_exported(family, self.run)
        family.profile = profile
        from transformers import set_seed

        from dure.family.corpus import load_corpus
        from dure.family.saved_model import read_model
        from dure.modeling.weights import load_weights

        final = RunFolder(self.run).final_model
        has_adapters = family.experiment.lora is not None
        if self.file is None and not (adapted and has_adapters):
            return read_model(family, final)
        model: PreTrainedModel | None = None
        if final.is_dir():
            model, tokenizer = read_model(family, final)
        else:
            tokenizer = load_corpus(family, notify=notify).tokenizer
        if model is None or has_adapters:
            # As training did it, so that what it did not train is the same.
            set_seed(family.experiment.experiment.seed)
            model = family.load_model(tokenizer, profile)
        if self.file is not None:
            load_weights(model, self.file)
        else:
            _load_best(model, self.run)
        return model.eval(), tokenizer


def weights_at(path: Path) -> RunWeights:
    """Return the weights that a path means.

    Args:
        path: Folder of a finished run: its final model; of a unified training what won its crossover. Or a file of
            weights in such a folder: of an epoch, a stage's ``best_model.pt``, an average (``ema.pt``), or
            ``crossover_final.pth``. Or an export.

    Raises:
        UserError: It is none of these.
    """
    if path.is_file():
        return _weights_in(path)
    if is_export(path):
        record = read_record(path)
        return RunWeights(path, None, f"an export of {record.run} as {record.format}: {record.source}")
    folder = finished_run(path, otherwise=", or an export of dure")
    crossover = UnifiedFolder(path).crossover
    if crossover.is_file():
        return RunWeights(path, crossover, _words_of(crossover))
    return RunWeights(path, None, f"{folder.final_model.name}, the best checkpoint")


def finished_run(path: Path, *, otherwise: str = "") -> RunFolder:
    """Return the folder of a run that left its final model.

    Raises:
        UserError: It is none; ``otherwise`` says what else would have been right.
    """
    folder = folder_at(path)
    if not folder.experiment.is_file() or not folder.final_model.is_dir():
        # Runs of a study, or experiments of a cross-validation, whose folds predict together.
        ends = [*path.glob("*/final_model"), *path.glob("*/fold_*/final_model")]
        inside = sorted({each.relative_to(path).parts[0] for each in ends})
        hint = f"one within it: {', '.join(inside)}" if inside else None
        if folder_at(path.parent).final_model.is_dir() and path.parent != path:
            hint = f"the folder around it: {path.parent}"
        if is_export(path):
            hint = "the run that it was made of; an export takes dure predict, and what it writes dure score"
        raise UserError(
            "this is no folder of a finished run" if path.exists() else "there is no such folder",
            where=str(path),
            expected=f"a folder with experiment.yaml and final_model/{otherwise}",
            hint=hint,
        )
    return folder


def _load_best(model: PreTrainedModel, run: Path) -> None:
    """Put the adapters of a run's best checkpoint into a model, or their average."""
    from dure.modeling.folders import LOST
    from dure.modeling.rows import ADAPTER
    from dure.modeling.weights import load_weights

    result = RunFolder(run).read_result()
    name = None if result is None else result.best_checkpoint
    checkpoint = folder_at(run).checkpoints / (name or "checkpoint")
    if not checkpoint.is_dir():
        raise UserError(
            "its best checkpoint is not there, which has the adapters by themselves",
            where=str(run),
            hint="a file of an epoch, or --format transformers, which has them merged",
        )
    files = (checkpoint / AVERAGE_FILE, checkpoint / WEIGHTS_FILE)
    file = next((each for each in files if each.is_file()), None)
    if file is not None:
        load_weights(model, file)
    else:
        check_whole(checkpoint, hint=LOST)
        model.load_adapter(str(checkpoint), ADAPTER, is_trainable=True)


def _weights_in(file: Path) -> RunWeights:
    if file.suffix not in _SUFFIXES:
        raise UserError(
            f"files with the suffix '{file.suffix}' are no weights of a run",
            where=str(file),
            expected=f"a run's folder, or a file of weights in it ({', '.join(_SUFFIXES)})",
        )
    above = file.absolute().parents[:_FOLDERS_ABOVE]
    run = next((folder for folder in above if RunFolder(folder).experiment.is_file()), None)
    if run is None:
        raise UserError(
            "it lies in no folder of a run, so that its experiment is not known",
            where=str(file),
            expected="a file of weights below a folder with experiment.yaml",
        )
    return RunWeights(run, file, _words_of(file))


def _words_of(file: Path) -> str:
    """Return what a file of weights is; a crossover's record says what of it was kept."""
    record = file.with_suffix(".json")
    if file.suffix == ".pth" and record.is_file():
        kept = read_json(record, what="record of a crossover")
        kind = "a crossover" if kept.get("is_crossover") else "which no crossover beat"
        return f"{file.name}: '{kept.get('kept')}', {kind}"
    return f"{file.parent.name}/{file.name}"
