"""What a trial costs: dure, a plain Tune function that trains by itself, and TorchTrainers nested in Tune.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.trial_overhead [--trials 12] [--repeats 1]

All train the same tiny model on the same rows (a rehearsal T5 of one layer: validated untrained, 4 steps, validated, tested
and saved) in Tune trials, one at a time, each way in a Ray cluster of its own. dure runs them through its study adapter: in
the trial's process, which goes on to the next trial. The plain function is what most people write: it loads tokenizer, rows
and model, makes a ``Seq2SeqTrainer`` and reports its metrics; every trial has a process of its own, as is usual in Tune. The
nested way is the documented one: a Tune function that calls ``TorchTrainer(...).fit()`` with one worker and
``TuneReportCallback``, and ``dure.training.run.run`` in the worker. Figures are from the first trial's start to the last one's
end, over the number of trials; starting the cluster is not in them, starting the trials' processes is. CPU time is that of
this process and all of Ray's. ``work`` is the training alone, in one process where everything is imported: the limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from dure.config import load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.events import StudyListener, TrialStatus
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.logs import captured_output
from dure.runtime.cluster import cluster
from dure.runtime.fit import Reporter
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.training.run import RunRequest, run
from tests.benchmarks.table import Row, Spent, hand_over


def experiment(name: str) -> Experiment:
    """Make the tiny experiment of one trial."""
    return rehearsal_of(
        Experiment.model_validate(
            {
                "family": "trainables.summarization",
                "experiment": {"name": name},
                "model": {"checkpoint": "none", "architecture": "t5"},
                "tokenizer": {"encoder_max_len": 32, "decoder_max_len": 12},
                "training": {"batch_size": 4},
                "generation": {"max_length": 6},
                "lora": {"rank": 4, "alpha": 8, "targets": ["q", "v"]},
                "rehearsal": {
                    "hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 300, "max_steps": 4,
                    "num_evaluations": 1, "max_train_rows": 16, "max_dev_rows": 4,
                },
                "task": {"rouge_tokenizer": "character"},
            }
        )
    )  # fmt: skip


class TreeCpu(threading.Thread):
    """Adds up the CPU seconds of this process and of all that descend from it.

    Ray takes no account of workers that end, so all are looked at five times a second; what a process does after the last
    look at it is lost.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seen: dict[int, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(0.2):
            self.look()

    def look(self) -> float:
        """Look at all processes and return the CPU seconds of all that were seen."""
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                self._seen[process.pid] = sum(process.cpu_times()[:2])
        return sum(tuple(self._seen.values()))

    def end(self) -> None:
        """Look no more."""
        self._over.set()


class _Clock(StudyListener):
    """Notes when the first trial starts and the last one ends, and the CPU time in between."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None
        self.last = (0.0, 0.0)
        self._cpu = TreeCpu()
        self._cpu.start()

    def changed(self, trial: TrialStatus) -> None:
        self.last = self._cpu.look(), time.perf_counter()
        self.first = self.first or self.last

    def spent(self, trials: int) -> Spent:
        """Return what a trial took."""
        self._cpu.end()
        assert self.first is not None
        cpu, wall = (end - begin for begin, end in zip(self.first, self.last, strict=True))
        return Spent(cpu / trials, wall / trials)


class _TuneClock(tune.Callback):
    """The same, for Tune alone."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Leave it here: Tune writes its callbacks to disk, and the clock is a thread."""
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.clock.changed(TrialStatus(trial.config["trial"], "running", Path()))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.clock.changed(TrialStatus(trial.config["trial"], "completed", Path()))


def ours(names: Sequence[str], folder: Path) -> Spent:
    """Run the trials through dure and return what a trial took."""
    clock = _Clock()
    profile = load_profile("cpu").model_copy(update={"max_concurrent_trials": 1})
    study = BatchStudy(kind="batch", name="overhead", experiments=tuple(names))
    summary = run_study(
        Batch(study, [experiment(name) for name in names]), profile=profile, path=folder, follower=clock
    )
    if summary.state != "completed":
        raise SystemExit(f"a trial failed: {summary}")
    return clock.spent(len(names))


def _worker(config: Mapping[str, Any]) -> None:
    request: RunRequest = config["request"]
    run(replace(request, listeners=(Reporter(request.experiment.training.effective_batch_size),)))


def _nested_trial(config: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> None:
    request = requests[config["trial"]]
    TorchTrainer(
        _worker,
        train_loop_config={"request": request},
        scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=train.RunConfig(storage_path=str(request.path / "ray"), callbacks=[TuneReportCallback()]),
    ).fit()


def _plain_trial(config: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> None:
    """Train as a script of one's own does, without dure's loop."""
    request = requests[config["trial"]]
    family = load_family(request.experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    assert corpus.dev is not None
    assert corpus.test is not None
    set_seed(request.experiment.experiment.seed)
    model = family.load_model(corpus.tokenizer, request.profile)
    score = family.compute_metrics(model, corpus.tokenizer, corpus.dev)
    needed = ["input_ids", "attention_mask", "labels"]
    rows = [
        split.select_columns([name for name in split.column_names if name in needed])
        for split in (corpus.train, corpus.dev, corpus.test)
    ]
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            str(request.path), max_steps=request.experiment.training.max_steps or 0, eval_strategy="steps",
            eval_steps=request.experiment.training.eval_every, per_device_train_batch_size=4,
            per_device_eval_batch_size=4, predict_with_generate=True, report_to="none", disable_tqdm=True,
            use_cpu=True, dataloader_pin_memory=False, eval_on_start=True, logging_steps=1,
        ),
        data_collator=DataCollatorForSeq2Seq(corpus.tokenizer, model=model),
        train_dataset=rows[0], eval_dataset=rows[1], processing_class=corpus.tokenizer, compute_metrics=score,
    )  # fmt: skip
    trainer.train()
    trainer.predict(rows[2])
    trainer.save_model()
    tune.report(trainer.evaluate())


def on_tune(
    function: Callable[..., None], names: Sequence[str], folder: Path, resources: Mapping[str, float]
) -> Spent:
    """Run the trials as a function on Tune and return what a trial took."""
    clock = _Clock()
    profile = load_profile("cpu")
    requests = {name: RunRequest(experiment(name), profile, folder / name) for name in names}
    folder.mkdir(parents=True)
    with captured_output(folder / "tune.log"), cluster():
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(function, requests=requests), dict(resources)),
            param_space={"trial": tune.grid_search(list(names))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(
                storage_path=str(folder / "tune"), callbacks=[_TuneClock(clock)], verbose=0
            ),
        ).fit()
    if results.errors:
        raise SystemExit(f"a trial failed: {results.errors[0]}")
    return clock.spent(len(names))


def work(folder: Path) -> Spent:
    """Return what one run takes by itself, in a process where everything is imported."""
    run(RunRequest(experiment("warm"), load_profile("cpu"), folder / "warm"))
    return Spent.by(lambda: run(RunRequest(experiment("timed"), load_profile("cpu"), folder / "timed")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn and hand their rows over."""
    parser = argparse.ArgumentParser(description="What a trial costs in dure and in Tune")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args(arguments)
    names = [f"tiny_{number:02d}" for number in range(options.trials)]
    ways: dict[str, Callable[[Path], Spent]] = {
        "work": work,
        "dure": lambda path: ours(names, path),
        "plain Tune function": lambda path: on_tune(_plain_trial, names, path, {"CPU": 1}),
        "nested, as documented": lambda path: on_tune(_nested_trial, names, path, {"CPU": 0.01}),
    }
    found: dict[str, list[Spent]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        for repeat, (way, measured) in product(range(options.repeats), ways.items()):
            with redirect_stdout(sys.stderr):
                found[way].append(measured(Path(top) / str(repeat) / way.replace(" ", "_")))
            print(f"{way}: {found[way][-1]}", file=sys.stderr)
    nested = {way: each for way, each in found.items() if not way.startswith("plain")}
    plain = {way: each for way, each in found.items() if not way.startswith("nested")}
    rows = [
        Row("a trial, beside a plain function", plain, options.trials, limit="work"),
        Row("a trial, beside nesting", nested, options.trials, 10, limit="work"),
    ]
    hand_over("trial_overhead", rows)


if __name__ == "__main__":
    main()
