"""The two verbs over a run: real epochs of a tiny model, its own records and rows."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.image import imread

from dure.config.schema import Experiment
from dure.epochs.driver import cross_over, find_sweet_spots
from dure.epochs.sweet_spot import Thresholds
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.modeling.weights import load_weights
from dure.runs.folder import StageFolder
from dure.training.run import RunRequest, run


def quiet(message: str) -> None:
    """Say nothing."""


def epochs_of_run(experiment: Experiment, num_epochs: int) -> Experiment:
    """Let a rehearsal train whole epochs and validate after each."""
    training = experiment.training.model_copy(
        update={
            "epochs": num_epochs,
            "max_steps": None,
            "eval_every": "epoch",
            "learning_rate": 3e-3,
            "keep_epochs": 1,
        }
    )
    data = experiment.data.model_copy(update={"max_train_rows": 16, "max_dev_rows": 12})
    return experiment.model_copy(update={"training": training, "data": data})


@pytest.fixture(
    scope="module",
    params=[("bert", "full"), ("bert", "lora"), pytest.param(("bart", "full"), marks=pytest.mark.slow)],
    ids="-".join,
)
def stage(request, tiny, cpu, tmp_path_factory):
    """A finished stage with the weights of its epochs."""
    path = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run(RunRequest(epochs_of_run(tiny(*request.param), 3), cpu, path, layout=StageFolder))
    return path


def test_the_sweet_spots_of_a_run_are_written_as_record_report_and_picture(stage):
    record = find_sweet_spots(stage, thresholds=Thresholds(), notify=quiet)
    losses = {
        round(row["epoch"]): row["eval_loss"] for row in read_json_lines(stage / "metrics.jsonl")
        if "eval_loss" in row
    }  # fmt: skip
    assert sorted(losses) == [1, 2, 3]
    for row in record["modules"].values():
        assert row["votes"]["lowest"] == min(losses, key=losses.get)
        assert all(point["train_loss"] is not None for point in row["series"])
    (folder,) = {path.parent for path in (stage / "sweet_spot_analysis").glob("*.json")}
    saved = json.loads(next(folder.glob("sweet_spot_analysis_*.json")).read_text(encoding="utf-8"))
    assert saved["modules"] == record["modules"]
    assert next(folder.glob("sweet_spot_report_*.txt")).read_text(encoding="utf-8").startswith("sweet spots")
    assert imread(next((folder / "plots").glob("*.png"))).shape[2] == 4


def test_the_scores_of_a_crossover_are_those_of_the_run_and_its_model_loads(stage, cpu):
    record = cross_over(stage, profile=cpu, searches=("greedy",), max_evaluations=8, notify=quiet)
    losses = {
        round(row["epoch"]): row["eval_loss"] for row in read_json_lines(stage / "metrics.jsonl")
        if "eval_loss" in row
    }  # fmt: skip
    by_name = {row["name"]: row for row in record["candidates"]}
    assert by_name["last"]["selection"] == pytest.approx(losses[3], rel=1e-4)
    (tested,) = (row["test_loss"] for row in read_json_lines(stage / "metrics.jsonl") if "test_loss" in row)
    # What the run exported and tested is its best epoch.
    assert by_name["best"]["held_out"] == pytest.approx(tested, rel=1e-4)
    assert "test" in record["held_out"]
    saved = json.loads((stage / "checkpoints" / "crossover_final.json").read_text(encoding="utf-8"))
    assert saved["kept"] == record["kept"]

    from dure.config.loading import load_experiment

    family = load_family(load_experiment(str(stage / "experiment.yaml")))
    _, tokenizer = family.load_exported(stage / "final_model")
    load_corpus(family, notify=quiet, tokenizer=tokenizer)
    model = family.load_model(tokenizer, cpu)
    state = torch.load(record["path"], weights_only=True)
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    assert unexpected == []
    load_weights(model, stage / "checkpoints" / "epoch_1.pt")


def test_a_folder_that_is_no_run_or_kept_no_epochs_is_told(tmp_path, stage, cpu):
    with pytest.raises(UserError, match="no folder of a finished run"):
        find_sweet_spots(tmp_path, thresholds=Thresholds(), notify=quiet)
    with pytest.raises(UserError, match="no such folder"):
        find_sweet_spots(tmp_path / "nothing", thresholds=Thresholds(), notify=quiet)
    (tmp_path / "experiment.yaml").write_bytes((stage / "experiment.yaml").read_bytes())
    (tmp_path / "final_model").mkdir()
    with pytest.raises(UserError, match="no weights of single epochs"):
        cross_over(tmp_path, profile=cpu, searches=(), max_evaluations=1, notify=quiet)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("mt5", "full"),
        ("mt5", "lora"),
        ("t5", "qlora"),
        ("bart", "full"),
        ("bart", "lora"),
        ("distilbert", "lora"),
    ],
)
def test_everything_that_is_trained_belongs_to_a_module(architecture, kind, tiny, cpu):
    family = load_family(tiny(architecture, kind))
    model = family.load_model(load_corpus(family, notify=quiet).tokenizer, cpu)
    prefixes = tuple(prefix for prefixes in family.modules(model).values() for prefix in prefixes)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name in trained if not name.startswith(prefixes)] == []


def test_both_verbs_print_their_table_or_one_json_object(stage, capsys):
    from dure.cli import main

    def call(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        assert end.value.code == 0
        return capsys.readouterr().out

    assert "sweet spots by epoch" in call("sweet-spot", stage)
    assert json.loads(call("sweet-spot", stage, "--window", 2, "--json"))["thresholds"]["window"] == 2
    table = call("crossover", stage, "--search", "greedy", "--evaluations", 4, "--profile", "cpu")
    assert "uniform_soup" in table
    assert "paired bootstrap" in table
