"""One run: its record, its numbers, its failures."""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dure.config.data import FoldConfig
from dure.config.loading import load_experiment
from dure.errors import RunError, UserError
from dure.events import RunListener
from dure.files import read_json_lines
from dure.modeling.objectives import TokenCrossEntropy
from dure.runs.folder import RunFolder
from dure.runs.logs import captured_output
from dure.runs.manifest import write_manifest
from dure.studies.crossval.results import read_predictions
from dure.training import memory
from dure.training.recorder import check_last_loss
from dure.training.run import RunRequest, run


class _Notes(RunListener):
    def __init__(self):
        self.events = []

    def started(self, start, notify):
        self.events.append(("started", start.total_steps, start.resumed_step))

    def progressed(self, progress):
        self.events.append((progress.kind, progress.step))

    def notified(self, message):
        self.events.append(("told", message))

    def finished(self, result):
        self.events.append(("finished", result.state))


def _with(experiment, section, **values):
    return experiment.model_copy(update={section: getattr(experiment, section).model_copy(update=values)})


def test_a_run_leaves_its_whole_record_and_two_runs_of_one_seed_are_equal(tiny, cpu, tmp_path):
    notes = _Notes()
    experiment = tiny("bart", "lora").with_({"targets": {"eval_rouge1": 1.0, "eval_loss": 100.0}})
    first = run(RunRequest(experiment, cpu, tmp_path / "a", listeners=(notes,)))
    second = run(RunRequest(experiment, cpu, tmp_path / "b"))
    assert first.state == "completed"
    timed = ("_runtime", "_per_second", "memory_mb", "cpu_percent")
    assert {k: v for k, v in first.metrics.items() if not k.endswith(timed)} == {
        k: v for k, v in second.metrics.items() if not k.endswith(timed)
    }
    folder = RunFolder(tmp_path / "a")
    assert folder.read_result() == first
    told = [event[1] for event in notes.events if event[0] == "told"]
    assert sum(each.startswith("forecast: ") for each in told) == 1
    assert first.forecast["steps"] == 6
    assert second.forecast["pace"] == "by earlier runs here"
    least, most = second.forecast["seconds"]
    assert 0 < least < most
    assert first.metrics["unreleased_memory_mb"] == 0
    assert first.metrics["rouge_tokenizer"] == "character"
    assert load_experiment(str(folder.experiment)) == experiment
    environment = json.loads(folder.environment.read_text())
    assert environment["seed"] == 42
    assert environment["packages"]["torch"]
    assert len(environment["data"]) == 3
    records = read_json_lines(folder.metrics)
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in records if "eval_rouge1" in r] == [2, 4, 6]
    assert records[0]["step"] == 0
    assert "untrained_rouge1" in records[0]
    assert (folder.path / first.best_checkpoint).is_dir()
    assert len(list(folder.path.glob("checkpoint-*"))) <= 2
    assert (folder.path / first.final_model_path / "config.json").is_file()
    assert "rouge" in folder.log.read_text()
    kinds = [event[0] for event in notes.events]
    assert notes.events[-1] == ("finished", "completed")
    assert ("started", 6, 0) in notes.events
    assert kinds.count("train") == 6
    # Targets are told after every validation and stand in the result.
    told = [event[1] for event in notes.events if event[0] == "told" and "target " in event[1]]
    assert [words.partition(":")[0] for words in told] == ["step 0", "step 2", "step 4", "step 6"][
        -len(told) :
    ]
    assert all(
        "ROUGE-1 100.00 %: short by" in words and words.endswith(": met by a miniature") for words in told
    )
    assert {each.metric: each.met for each in first.targets} == {"eval_rouge1": False, "eval_loss": True}


def test_the_best_checkpoint_is_what_is_exported_and_early_stopping_ends_the_run(tiny, cpu, tmp_path):
    # A learning rate that ruins the model: the first validation stays the best.
    experiment = _with(
        tiny("t5", "full"), "training", learning_rate=1.0, early_stopping_patience=1, best_metric="eval_loss",
        max_steps=12, eval_every=2, warmup_ratio=0.0, scheduler="constant",
    )  # fmt: skip
    result = run(RunRequest(experiment, cpu, tmp_path))
    losses = {
        r["step"]: r["eval_loss"] for r in read_json_lines(tmp_path / "metrics.jsonl") if "eval_loss" in r
    }
    best = min(losses, key=losses.get)
    assert result.metrics["best_step"] == best
    assert result.metrics["eval_loss"] == losses[best]
    assert result.metrics["steps"] < 12
    assert max(losses) > best


def test_a_diverging_run_fails_and_says_what_to_change(tiny, cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(TokenCrossEntropy, "total", lambda self, logits, labels: logits.sum() * float("nan"))
    with pytest.raises(RunError, match="learning_rate"):
        run(RunRequest(tiny("t5", "full"), cpu, tmp_path))
    assert RunFolder(tmp_path).read_result().state == "failed"


@pytest.mark.parametrize(
    ("precision", "said"),
    [("fp32", r"learning_rate \(3e-05\)$"), ("bf16", r"or set training\.precision=fp32 \(this was bf16\)$")],
)
def test_a_diverged_run_is_advised_what_it_did_not_do(precision, said, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"kind": "train", "step": 1, "loss": null}\n')
    experiment = load_experiment("transfer_bert", ["training.learning_rate=3e-5"])
    with pytest.raises(RunError, match=said):
        check_last_loss(metrics, experiment, precision)


def test_a_failure_is_recorded_told_and_leaves_no_memory(tiny, cpu, tmp_path):
    notes = _Notes()
    wrong = _with(tiny("t5", "lora"), "lora", targets=("q", "wi_0"))
    before = memory.allocated_mb("cpu")
    with pytest.raises(UserError, match="wi_0"):
        run(RunRequest(wrong, cpu, tmp_path, listeners=(notes,)))
    result = RunFolder(tmp_path).read_result()
    assert result.state == "failed"
    assert "wi_0" in result.error
    assert notes.events[-1] == ("finished", "failed")
    assert memory.allocated_mb("cpu") - before < 1


def test_an_unknown_best_metric_is_refused_before_training(tiny, cpu, tmp_path):
    wrong = _with(tiny("t5", "lora"), "training", best_metric="eval_rouge")
    with pytest.raises(UserError, match=r"training\.best_metric.*\n.*\n.*eval_rouge"):
        run(RunRequest(wrong, cpu, tmp_path))


def test_a_run_that_was_killed_before_its_model_was_saved_only_saves_it(tiny, cpu, tmp_path):
    experiment = tiny("t5", "lora")
    whole = run(RunRequest(experiment, cpu, tmp_path))
    shutil.rmtree(tmp_path / "final_model")
    (tmp_path / "result.json").unlink()
    notes = _Notes()
    again = run(RunRequest(experiment, cpu, tmp_path, resume=True, listeners=(notes,)))
    assert "train" not in [event[0] for event in notes.events]
    for name in ("eval_loss", "eval_rouge1", "test_loss", "test_rouge1", "best_step", "steps"):
        assert again.metrics[name] == whole.metrics[name]
    assert (tmp_path / "final_model" / "model.safetensors").is_file()


@pytest.mark.parametrize("steps", [2, 4])
def test_a_checkpoint_whose_weights_are_not_finite_is_refused(steps, tiny, cpu, tmp_path):
    experiment = tiny("bert", "full", max_steps=2, eval_every=2, save_total_limit=9)
    run(RunRequest(experiment, cpu, tmp_path))
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "final_model")
    last = tmp_path / "checkpoint-2"
    weights = load_file(last / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, last / "model.safetensors", metadata={"format": "pt"})
    write_manifest(last)
    longer = _with(experiment, "training", max_steps=steps)
    with pytest.raises(UserError, match="not finite") as refused:
        run(RunRequest(longer, cpu, tmp_path, resume=True))
    assert refused.value.where == str(last)
    assert "move checkpoint-2 out" in refused.value.hint
    assert not (tmp_path / "final_model").exists()


def test_live_tensors_are_what_counts_as_allocated():
    memory.release()  # what tests before this one left in circles
    before = memory.allocated_mb("cpu")
    held = torch.zeros(4 * 1024 * 1024)
    assert memory.allocated_mb("cpu") - before == pytest.approx(16, abs=0.1)
    view = held.view(-1, 2)
    assert memory.allocated_mb("cpu") - before == pytest.approx(16, abs=0.1)
    del held, view
    memory.release()
    assert memory.allocated_mb("cpu") == pytest.approx(before, abs=0.1)


def test_the_log_catches_what_native_code_prints(tmp_path, capfd):
    with captured_output(tmp_path / "log"):
        os.write(1, b"native\n")
        print("python")
    os.write(1, b"after\n")
    assert (tmp_path / "log").read_text().split() == ["native", "python"]
    assert capfd.readouterr().out == "after\n"


def test_validation_rows_that_stand_in_training_are_left_out_refused_or_told(tiny, cpu, tmp_path):
    rows = ["fname,dialogue,summary"] + [f"{n},#Person1#: 말 {n} 번,요약 {n}" for n in range(12)]
    (tmp_path / "train.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "dev.csv").write_text("\n".join([rows[0], *rows[1:4]]), encoding="utf-8")
    files = {"train": str(tmp_path / "train.csv"), "dev": str(tmp_path / "dev.csv")}
    experiment = _with(tiny("t5", "lora"), "data", **files)
    notes = _Notes()
    result = run(RunRequest(experiment, cpu, tmp_path / "run", listeners=(notes,)))
    assert result.metrics["num_train_rows"] == 9
    assert any("3 of 12 training rows" in event[1] for event in notes.events if event[0] == "told")
    assert "test_rouge1" not in result.metrics
    with pytest.raises(UserError, match="3 of 12"):
        run(RunRequest(_with(experiment, "data", on_overlap="error"), cpu, tmp_path / "refused"))
    with pytest.raises(UserError, match=r"data\.dev"):
        run(RunRequest(_with(experiment, "data", dev="sample"), cpu, tmp_path / "mixed"))


def _predictions(path):
    with (path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_held_out_rows_of_every_fold_are_predicted_by_its_best_model(tiny, cpu, tmp_path):
    texts = [f"글 {number} 번" for number in range(30)]
    lines = ["text,label"] + [
        f"{text},{'기쁨 ' if number % 3 else '슬픔'}" for number, text in enumerate(texts)
    ]
    (tmp_path / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    rows, accuracies = [], []
    for number in (1, 2, 3):
        data = {
            "train": str(tmp_path / "train.csv"),
            "dev": None,
            "max_dev_rows": None,
            "fold": FoldConfig(number=number, of=3),
        }
        experiment = _with(tiny("bert", "full", epochs=1, max_steps=2), "data", **data)
        folder = tmp_path / f"fold_{number}"
        result = run(RunRequest(experiment, cpu, folder, keeps_predictions=True))
        kept = _predictions(folder)
        accuracy = sum(row["predicted_label"] == row["label"].strip() for row in kept) / len(kept)
        accuracies.append(accuracy)
        assert accuracy == pytest.approx(result.metrics["test_accuracy"])
        trivial = sum(row["label"].strip() == "기쁨" for row in kept) / len(kept)
        assert result.metrics["baseline_test_accuracy"] == pytest.approx(trivial)
        assert list(kept[0]) == [
            "row", "text", "label", "predicted_label", "probability_기쁨", "probability_슬픔",
            "score_accuracy", "score_loss",
        ]  # fmt: skip
        for row in kept:
            assert row["text"] == texts[int(row["row"])]
            assert float(row["probability_기쁨"]) + float(row["probability_슬픔"]) == pytest.approx(
                1, abs=1e-5
            )
        rows += [int(row["row"]) for row in kept]
    assert sorted(rows) == list(range(30))
    together = read_predictions({number: tmp_path / f"fold_{number}" for number in (1, 2, 3)})
    labels, made = together.classes
    # The folds are of the same size, so the accuracy of all rows is the mean over folds.
    right = sum(label == prediction for label, prediction in zip(labels, made, strict=True))
    assert right / 30 == pytest.approx(sum(accuracies) / 3)
    assert list(together.probabilities) == ["기쁨", "슬픔"]


def test_a_run_keeps_the_text_that_it_generated_for_test_rows_and_what_each_is_worth(tiny, cpu, tmp_path):
    result = run(RunRequest(tiny("t5", "lora", max_steps=1), cpu, tmp_path / "run"))
    kept = _predictions(tmp_path / "run")
    assert len(kept) == 6
    scores = [f"score_{name}" for name in ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_sum", "loss")]
    assert list(kept[0]) == ["row", "id", "text", "target", "predicted_summary", *scores]
    for name in ("rouge1", "rouge_sum", "loss"):
        mean = sum(float(row[f"score_{name}"]) for row in kept) / len(kept)
        assert mean == pytest.approx(result.metrics[f"test_{name}"], abs=1e-6)
    assert result.definitions["eval_rouge1"] == {"direction": "max", "unit": "share"}
