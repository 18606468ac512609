"""Trials of a study that begin with the same model validate it once, and no number tells which of them did."""

from __future__ import annotations

import pytest

from dure.files import read_json_lines
from dure.runs.folder import STUDY_FILE
from dure.training.run import RunRequest, run

TIMED = ("seconds", "_runtime", "_per_second")


def records_of(folder):
    return [
        {name: value for name, value in record.items() if not name.endswith(TIMED)}
        for record in read_json_lines(folder / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def study(tiny, cpu, tmp_path_factory):
    """A study in which the first trial has been run, and how to run another one in it or alone."""
    folder = tmp_path_factory.mktemp("study")
    (folder / STUDY_FILE).write_text("kind: batch\n", encoding="utf-8")
    base = tiny("t5", "lora").with_({"training.max_steps": 2, "training.eval_every": 2, "lora.dropout": 0.3})

    def trial(path, **more):
        changes = {name.replace("__", "."): value for name, value in more.items()}
        run(RunRequest(base.with_(changes), cpu, path))
        return records_of(path), len(list((folder / ".untrained").glob("*.json")))

    _, found = trial(folder / "first")
    assert found == 1
    return folder, trial


def test_the_second_trial_takes_the_scores_and_its_training_does_not_notice(study, tmp_path):
    folder, trial = study
    taken, found = trial(folder / "second", training__learning_rate=0.02)
    alone, _ = trial(tmp_path / "alone", training__learning_rate=0.02)
    assert found == 1
    assert taken == alone
    assert {name for name in taken[0] if name.startswith("untrained_")} > {
        "untrained_loss",
        "untrained_rouge1",
    }
    assert not (tmp_path / ".untrained").exists()


@pytest.mark.parametrize(
    "changed", [{"experiment__seed": 7}, {"generation__num_beams": 3}, {"data__max_dev_rows": 3}], ids=str
)
def test_another_model_decoding_or_table_is_validated_itself(study, changed):
    folder, trial = study
    before = len(list((folder / ".untrained").glob("*.json")))
    _, found = trial(folder / next(iter(changed)), **changed)
    assert found == before + 1
