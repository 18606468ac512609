"""A run that is a stage: where its files lie, and that it begins at the weights that it was given."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dure.errors import UserError
from dure.family.run_weights import weights_at
from dure.family.saved_model import write_model
from dure.files import read_json_lines, write_json
from dure.runs.epochs import mark_best
from dure.runs.folder import StageFolder
from dure.training.run import RunRequest, run


def test_a_stage_folder_keeps_checkpoints_and_logs_apart(tmp_path):
    folder = StageFolder(tmp_path / "stage_3_30pct")
    assert folder.checkpoints == folder.path / "checkpoints"
    assert folder.final_model == folder.path / "final_model"
    assert folder.training_metrics == folder.path / "training_metrics.json"
    assert folder.log.parent == folder.path / "logs"
    assert re.fullmatch(r"stage_3_30pct_\d{8}_\d{6}\.log", folder.log.name)
    assert folder.read_training_metrics() is None
    write_json(folder.training_metrics, {"stage": 3})
    assert folder.read_training_metrics() == {"stage": 3}


@pytest.mark.parametrize(("architecture", "kind"), [("bert", "full"), ("distilbert", "lora")])
def test_a_warm_started_run_begins_at_the_given_weights(architecture, kind, tiny, cpu, tmp_path):
    experiment = tiny(architecture, kind, learning_rate=1e-3, best_metric="eval_loss")
    # A rehearsal validates after so many steps, a stage after every epoch.
    training = experiment.training.model_copy(
        update={"eval_every": "epoch", "max_steps": None, "epochs": 2, "keep_epochs": 1}
    )
    experiment = experiment.model_copy(update={"training": training})
    first, second = StageFolder(tmp_path / "first"), StageFolder(tmp_path / "second")
    result = run(RunRequest(experiment, cpu, first.path, layout=StageFolder))
    assert sorted(path.name for path in first.checkpoints.glob("*.pt")) == ["epoch_1.pt", "epoch_2.pt"]
    assert first.log.parent.is_dir()
    assert not (first.path / "run.log").exists()
    steps = {
        epoch: torch.load(first.checkpoints / f"epoch_{epoch}.pt", weights_only=True)["step"]
        for epoch in (1, 2)
    }
    [best] = [epoch for epoch, step in steps.items() if step == result.metrics["best_step"]]
    warm_start = mark_best(first.checkpoints, best)

    # The model that training left is made again from the weights alone.
    left = load_file(first.final_model / "model.safetensors")
    shutil.rmtree(first.final_model)
    weights = weights_at(warm_start)
    family = weights.family(print)
    write_model(family, *weights.read(family, cpu, print), tmp_path / "again")
    made = load_file(tmp_path / "again" / "model.safetensors")
    assert left.keys() == made.keys()
    assert all(torch.equal(left[name], made[name]) for name in left)

    run(RunRequest(experiment, cpu, second.path, layout=StageFolder, warm_start=warm_start))
    records = {
        name: read_json_lines(folder.metrics)[0] for name, folder in (("first", first), ("second", second))
    }
    assert records["second"]["step"] == 0
    assert records["second"]["untrained_loss"] == result.metrics["eval_loss"]
    assert records["first"]["untrained_loss"] != result.metrics["eval_loss"]


def test_a_stage_refuses_weights_of_another_model(tiny, cpu, tmp_path):
    file = tmp_path / "best_model.pt"
    torch.save({"model_state": {"strange.weight": torch.zeros(1)}}, file)
    with pytest.raises(UserError, match="of another model") as caught:
        run(RunRequest(tiny("bert", "full"), cpu, tmp_path / "run", layout=StageFolder, warm_start=file))
    assert caught.value.where == str(file)
