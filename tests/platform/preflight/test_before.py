"""What is told before anything starts."""

from __future__ import annotations

import pytest

from dure.config import load_experiment, rehearsal_of
from dure.errors import UserError
from dure.preflight.before import before_run
from dure.runtime.placement import load_profile


def test_a_rehearsal_tells_once_by_how_much_its_learning_rates_are_larger(tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text(
        "text,label\n" + "".join(f"row {place},{place % 2}\n" for place in range(20)), encoding="utf-8"
    )
    real = load_experiment(
        "transfer_bert", [f"data.train={table}", "data.dev=50%", "training.learning_rate=1e-3"]
    )
    rehearsed, heard = rehearsal_of(real), []
    before_run(
        [rehearsed, rehearsed], files=[], profile=load_profile("cpu"), output=tmp_path, notify=heard.append
    )
    assert rehearsed.training.learning_rate == 0.05
    (line,) = (line for line in heard if line.startswith("rehearsal: "))
    assert "50 times the real ones" in line


def test_a_rehearsal_of_a_folder_with_another_model_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    rehearsed = rehearsal_of(load_experiment("kobart_baseline", [f"model.checkpoint={tmp_path}"]))
    output = tmp_path / "output"
    with pytest.raises(UserError, match="is a bert model, which is no encoder-decoder"):
        before_run(
            [rehearsed], files=[], profile=load_profile("cpu"), output=output, notify=lambda line: None
        )
    assert not output.exists()


def test_a_precision_that_the_machine_does_not_train_in_is_refused_before_anything_is_written(tmp_path):
    rehearsed = rehearsal_of(load_experiment("transfer_bert", ["training.precision=fp16"]))
    with pytest.raises(UserError, match="'fp16' does not train on a CPU"):
        before_run(
            [rehearsed], files=[], profile=load_profile("cpu"), output=tmp_path, notify=lambda line: None
        )


@pytest.mark.parametrize(
    ("experiment", "architecture", "said"),
    [
        ("transfer_bert", "nope", "transformers knows no 'nope'"),
        ("transfer_bert", "t5", "'t5' is no text encoder"),
        ("transfer_bert", "null", "must know the model's type"),
        ("causal_gemma", "gemma3", "model.architecture=gemma3_text"),
    ],
)
def test_a_rehearsal_of_no_kind_that_the_family_trains_is_refused_before_anything_is_written(
    tmp_path, experiment, architecture, said
):
    rehearsed = rehearsal_of(load_experiment(experiment, [f"model.architecture={architecture}"]))
    with pytest.raises(UserError, match=said):
        before_run(
            [rehearsed], files=[], profile=load_profile("cpu"), output=tmp_path, notify=lambda line: None
        )
