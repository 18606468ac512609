"""The studies that are disturbed: small, and the same on every machine with a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SMALL = (
    "rehearsal.hidden_size=32",
    "rehearsal.num_layers=1",
    "rehearsal.vocab_size=400",
    "rehearsal.max_train_rows=96",
    "rehearsal.max_dev_rows=20",
    "rehearsal.max_steps=80",
    "rehearsal.num_evaluations=20",
    "training.batch_size=4",
    "training.epochs=4",
    "training.log_every=1",
    "training.best_metric=eval_loss",
    "training.early_stopping_patience=100",
    "wandb.enabled=false",
)
_SEQ2SEQ = (*_SMALL, "generation.num_beams=2", "generation.max_length=24", "generation.min_length=0",
            "training.gradient_accumulation_steps=1")  # fmt: skip
_SHORT = ("rehearsal.max_steps=40", "rehearsal.num_evaluations=10")
_FILES = {
    "one_at_a_time.yaml": "name: one_at_a_time\ndevice: cpu\nmax_concurrent_trials: 1\n",
    "two_workers.yaml": "name: two_workers\ndevice: cpu\nnum_workers: 2\n",
    "other_seed.yaml": "extends: transfer_bert\nexperiment: {name: other_seed, seed: 7}\n",
    "three.yaml": (
        "kind: batch\nname: three\ndescription: Three small classifiers\n"
        "experiments: [transfer_bert, transfer_distilbert, other_seed.yaml]\nmetrics: [eval_loss]\n"
    ),
}


@dataclass(frozen=True)
class Study:
    """A study that faults are injected into."""

    name: str
    """Its kind."""
    command: tuple[str, ...]
    """Its command line, from the verb on; file names are those of :func:`write_files`."""
    interval: int = 4
    """Most optimizer steps from one checkpoint to the next."""
    steps: int = 80
    """Optimizer steps of a run."""
    resumes_folder: bool = False
    """Whether ``--resume`` takes the folder."""

    def words(self, output: Path, *, resume: bool) -> list[str]:
        """Return the command line that writes to a folder, or goes on there."""
        if resume and self.resumes_folder:
            return [*self.command, "--resume", str(output)]
        return [*self.command, "--output", str(output), *(["--resume"] if resume else [])]


_ALONE = ("--profile", "one_at_a_time.yaml")
STUDIES = {
    study.name: study
    for study in (
        Study("train", ("train", "transfer_bert", "--rehearse", *_SMALL)),
        Study("workers", ("train", "transfer_bert", "--rehearse", "--profile", "two_workers.yaml", *_SMALL)),
        Study("batch", ("batch", "three.yaml", "--rehearse", *_ALONE, *_SMALL)),
        Study(
            "sweep",
            ("sweep", "transfer_bert", "--rehearse", "--trials", "3", *_ALONE, *_SMALL),
        ),
        Study(
            "progressive",
            ("progressive", "transfer_bert", "--rehearse", "--ratios", "0.3,0.6,1", "--epochs-per-stage", "6",
             *_ALONE, *_SMALL),
            interval=24,
        ),
        Study(
            "candidates",
            ("progressive", "transfer_bert", "--rehearse", "--ratios", "0.5,1", "--epochs-per-stage", "4",
             "--candidates", "training.learning_rate=1e-3,3e-4", "--eta", "2", *_ALONE, *_SMALL),
            interval=24,
        ),
        Study(
            "comparison",
            ("crossval", "transfer_bert", "transfer_distilbert", "--rehearse", "--folds", "2", *_ALONE, *_SMALL, *_SHORT,
             "training.ema=0.9", "objective.r_drop=0.5"),
            steps=40,
        ),
        Study("seq2seq", ("train", "kobart_baseline", "--rehearse", *_SEQ2SEQ, *_SHORT), steps=40),
        Study("crossval", ("crossval", "transfer_bert", "--rehearse", "--folds", "3", *_ALONE, *_SMALL)),
        Study(
            "unified",
            ("unified-test", "--preset", "tiny", "--samples", "32", "task.sample_label_noise=0.2"),
            interval=8,
            resumes_folder=True,
        ),
    )
}  # fmt: skip


def write_files(folder: Path) -> None:
    """Write the files that the commands name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
