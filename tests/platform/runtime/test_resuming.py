"""Going on with a run: what may change, what may not, and for how long."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from dure.config.loading import dump_yaml, load_experiment
from dure.errors import RunError, UserError
from dure.events import RunListener
from dure.files import read_json_lines
from dure.runs.checkpoints import last_step
from dure.runs.folder import RunFolder
from dure.runs.resuming import require_continuable
from dure.runtime.experiment import train
from tests.platform.removing import remove

LABELS = ("긍정", "부정")


def write_table(file: Path, *, first: str = "문장 번호") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["id", "text", "label"])
        writer.writerows([f"r{n}", f"{first} {n} 의 내용", LABELS[n % 2]] for n in range(16))


class Heard(RunListener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def notified(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def base(tiny):
    """Two epochs of four steps of a tiny classifier, validated after each."""
    return tiny("bert", "full", save_total_limit=1).with_(
        {"training.epochs": 2, "training.max_steps": None, "training.eval_every": "epoch",
         "training.evaluate_untrained": False, "wandb.enabled": False,
         "data.columns": {"text": "text", "label": "label"}, "data.dev": None}
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(base, cpu, tmp_path_factory):
    """A finished run of two epochs, with its tables beside it."""
    top = tmp_path_factory.mktemp("finished")
    write_table(top / "train.csv")
    write_table(top / "dev.csv", first="다른 문장")
    experiment = base.with_({"data.train": str(top / "train.csv"), "data.dev": str(top / "dev.csv")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        train(experiment, profile=cpu, path=top / "run")
    return top


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run; its tables stay where they are."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run", load_experiment(str(tmp_path / "run" / "experiment.yaml"))


def test_what_changes_no_number_may_be_another(run, cpu, tmp_path):
    path, experiment = run
    moved = tmp_path / "elsewhere" / "rows.csv"
    write_table(moved)
    told = Heard()
    result = train(
        experiment.with_(
            {"training.num_data_workers": 1, "training.log_every": 5, "experiment.tags": ["again"],
             "experiment.description": "more", "wandb.project": "other", "data.train": str(moved)}
        ),
        profile=cpu, path=path, resume=True, follower=told,
    )  # fmt: skip
    assert result.state == "completed"
    assert "completed earlier" in told.lines[-1]


@pytest.mark.parametrize(
    ("is_rehearsal", "change", "is_accepted"),
    [
        (False, {"rehearsal.hidden_size": 48, "tokenizer.max_unknown_rate": 0.4}, True),
        (True, {"rehearsal.hidden_size": 48}, False),
        (False, {"rehearsal.enabled": True}, False),
    ],
)
def test_how_a_rehearsal_would_be_decides_no_real_run(is_rehearsal, change, is_accepted, base, tmp_path):
    before = base.with_({"rehearsal.enabled": is_rehearsal})
    (tmp_path / "experiment.yaml").write_text(dump_yaml(before), encoding="utf-8")
    if is_accepted:
        assert not require_continuable(tmp_path, before.with_(change))
    else:
        with pytest.raises(UserError, match=f"'{next(iter(change))}' is"):
            require_continuable(tmp_path, before.with_(change))


def test_rows_of_another_form_are_the_same_rows(run, cpu, tmp_path):
    path, experiment = run
    tabs = tmp_path / "rows.tsv"
    write_table(tmp_path / "rows.csv")
    tabs.write_text((tmp_path / "rows.csv").read_text("utf-8").replace(",", "\t"), "utf-8")
    assert train(experiment.with_({"data.train": str(tabs)}), profile=cpu, path=path, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.learning_rate", 0.5), ("training.weight_decay", 0.5), ("experiment.seed", 7), ("data.dev", None),
        ("training.batch_size", 8), ("data.max_train_rows", 8), ("data.normalize", "none"), ("training.epochs", 1),
        ("training.max_steps", 3), ("training.eval_batch_size", 2),
    ],
)  # fmt: skip
def test_what_changes_numbers_is_refused_by_name(key, value, run, cpu):
    path, experiment = run
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with pytest.raises(UserError, match=f"'{key}' is") as refused:
        train(experiment.with_({key: value}), profile=cpu, path=path, resume=True)
    assert refused.value.where == str(path / "experiment.yaml")
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_a_table_changed_under_its_name_is_refused(run, cpu, tmp_path):
    path, experiment = run
    changed = tmp_path / "changed.csv"
    write_table(changed)
    changed.write_text(changed.read_text("utf-8").replace("번호 3 ", "번호 33 "), "utf-8")
    with pytest.raises(UserError, match="not the rows that the run was started with") as refused:
        train(experiment.with_({"data.train": str(changed)}), profile=cpu, path=path, resume=True)
    assert refused.value.where == f"data.train={changed}"


@pytest.mark.parametrize(
    "scheduler",
    ["linear", *(pytest.param(each, marks=pytest.mark.slow) for each in ("cosine", "polynomial"))],
)
def test_a_finished_run_can_be_trained_longer_on_the_schedule_of_all_epochs(
    scheduler, base, finished, cpu, tmp_path
):
    tables = {"data.train": str(finished / "train.csv"), "data.dev": str(finished / "dev.csv")}
    short = base.with_(tables | {"training.scheduler": scheduler, "training.warmup_ratio": 0.25})
    path = tmp_path / "run"
    train(short, profile=cpu, path=path)
    assert last_step(path) == 8
    records = read_json_lines(path / "metrics.jsonl")
    told = Heard()
    long = short.with_({"training.epochs": 4})
    result = train(long, profile=cpu, path=path, resume=True, follower=told)
    assert (result.state, result.metrics["steps"]) == ("completed", 16)
    assert "2 → 4 epochs" in told.lines[0]
    assert f"({scheduler}) is computed anew" in told.lines[0]
    after = read_json_lines(path / "metrics.jsonl")
    assert after[: len(records)] == records
    train(long, profile=cpu, path=tmp_path / "whole")
    whole = [each for each in read_json_lines(tmp_path / "whole/metrics.jsonl") if each["kind"] == "train"]
    rates = {each["step"]: each["learning_rate"] for each in after if each["kind"] == "train"}
    assert {n: rates[n] for n in rates if n > 8} == {
        each["step"]: each["learning_rate"] for each in whole if each["step"] > 8
    }
    # The step after the old end trains at the new schedule's rate: at that of its end, linear would not move.
    assert rates[9] > 0
    assert RunFolder(path).read_result() == result
    with pytest.raises(UserError, match=r"'training.epochs' is 2 now, and the run was started with 4"):
        train(short, profile=cpu, path=path, resume=True)


def test_the_first_step_of_a_longer_training_moves_the_weights(base, finished, cpu, tmp_path):
    import torch
    from safetensors.torch import load_file

    tables = {"data.train": str(finished / "train.csv"), "data.dev": str(finished / "dev.csv")}
    short = base.with_(tables | {"training.eval_every": 1, "training.save_total_limit": 10})
    train(short, profile=cpu, path=tmp_path / "run")
    train(short.with_({"training.epochs": 3}), profile=cpu, path=tmp_path / "run", resume=True)
    before, after = (load_file(tmp_path / f"run/checkpoint-{step}/model.safetensors") for step in (8, 9))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_finished_run_without_checkpoints_cannot_be_trained_longer(run, cpu):
    path, experiment = run
    for checkpoint in path.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match="its checkpoints are gone"):
        train(experiment.with_({"training.epochs": 3}), profile=cpu, path=path, resume=True)
    assert RunFolder(path).read_result().state == "completed"


def test_a_run_that_ended_early_says_so_when_it_is_to_be_longer(base, finished, cpu, tmp_path):
    tables = {"data.train": str(finished / "train.csv"), "data.dev": str(finished / "dev.csv")}
    patient = base.with_(
        tables
        | {"training.early_stopping_patience": 1, "training.eval_every": 1, "training.learning_rate": 1e-9}
    )
    result = train(patient, profile=cpu, path=tmp_path / "run")
    assert result.metrics["steps"] < 8
    with pytest.raises(UserError, match="ended early at checkpoint-"):
        train(patient.with_({"training.epochs": 3}), profile=cpu, path=tmp_path / "run", resume=True)


class Removing(RunListener):
    """Removes the run's folder at a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def progressed(self, progress) -> None:
        if progress.step == self.step:
            remove(self.path)


@pytest.mark.parametrize("step", [1, 8])
def test_a_run_whose_folder_vanishes_fails(step, base, finished, cpu, tmp_path):
    path = tmp_path / "run"
    tables = {"data.train": str(finished / "train.csv"), "data.dev": str(finished / "dev.csv")}
    with pytest.raises(RunError, match="was removed while this command worked in it"):
        train(base.with_(tables), profile=cpu, path=path, listeners=[Removing(path, step)])
    assert not (path / "result.json").exists()


def test_what_a_kill_left_half_written_goes_and_what_lost_its_name_gets_it_again(run, cpu):
    path, experiment = run
    half = path / ".final_model.0123abcd0123abcd0123abcd.part"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (path / "final_model").rename(path / ".final_model.0123abcd0123abcd89abcdef.old")
    train(experiment, profile=cpu, path=path, resume=True)
    assert not half.exists()
    assert json.loads((path / "final_model/config.json").read_text())
    assert list(path.glob(".final_model*")) == []
