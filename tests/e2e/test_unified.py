"""`dure unified-test`: the whole pipeline on the smallest model, every artefact, and nothing done twice."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from tests.platform.small_disk import MEGABYTE, disks

from .conftest import call, program


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished pipeline, run as a user would."""
    path = tmp_path_factory.mktemp("unified") / "out"
    outcome = program(
        *("unified-test", "--preset", "tiny", "--samples", "32", "--output", path, "--json"),
        "task.sample_label_noise=0.2",
        cwd=path.parent,
        DURE_CACHE=str(tmp_path_factory.getbasetemp() / "cache"),
    )
    assert outcome.code == 0, outcome.err
    return path, json.loads(outcome.out)


def test_every_artefact_is_there(finished):
    path, results = finished
    names = sorted(file.name for file in (path / "checkpoints_final").glob("*.pt"))
    assert [
        re.fullmatch(r"checkpoint_epoch_(\d{4})_lr_\d\.\d{6}_\d{8}_\d{6}\.pt", name)[1] for name in names
    ] == ["0001", "0002"]
    assert len(list((path / "lr_sweep_results").glob("lr_sweep_2*.json"))) == 1
    assert len(list((path / "lr_sweep_results").glob("lr_sweep_plot_*.png"))) == 1
    assert len(list((path / "sweet_spot_analysis").glob("sweet_spot_analysis_*.json"))) == 1
    assert len(list((path / "sweet_spot_analysis").glob("sweet_spot_report_*.txt"))) == 1
    assert len(list((path / "sweet_spot_analysis/plots").glob("*.png"))) == 1
    assert len(list((path / "oom_stats").glob("oom_stats_*.json"))) == 1
    assert len(list((path / "logs").glob("training_*.log"))) == 1
    assert (path / "training_curves.png").read_bytes().startswith(b"\x89PNG")
    metadata = json.loads((path / "checkpoints_final/metadata.json").read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in metadata] == [1, 2]
    assert [entry["file"] for entry in metadata] == names
    assert all(entry["metrics"]["loss"] > 0 and entry["learning_rate"] is not None for entry in metadata)
    assert results["learning_rate"] == results["sweep"]["training.learning_rate"]


def test_the_final_model_loads_as_plain_weights_and_says_what_it_is(finished):
    path, results = finished
    state = torch.load(path / "checkpoints_final/crossover_final.pth", weights_only=True)
    epoch = next((path / "checkpoints_final").glob("checkpoint_epoch_0002_*.pt"))
    kept = torch.load(epoch, weights_only=True)["model_state"]
    assert state.keys() == kept.keys()
    said = json.loads((path / "checkpoints_final/crossover_final.json").read_text(encoding="utf-8"))
    assert said["kept"] == results["crossover"]["kept"]
    assert said["held_out"] != said["selection"]


def test_file_names_and_metadata_have_the_rate_that_the_epoch_ended_with(finished):
    folder = finished[0] / "checkpoints_final"
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert metadata
    for entry in metadata:
        assert entry["learning_rate"] > 0
        assert f"_lr_{entry['learning_rate']:.6f}_" in entry["file"]


def test_a_second_session_does_nothing_again(finished):
    path, results = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.pt*")}
    last = next((path / "checkpoints_final").glob("checkpoint_epoch_0002_*.pt"))
    outcome = call(
        *("unified-test", "--preset", "tiny", "--samples", "32", "--json", "task.sample_label_noise=0.2"),
        *("--resume", last),
    )
    assert outcome.code == 0, outcome.err
    # Preset, rows and settings stand in the folder, and need not be said again.
    outcome = call("unified-test", "--json", "--resume", path)
    assert outcome.code == 0, outcome.err
    assert outcome.value["crossover"]["kept"] == results["crossover"]["kept"]
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
def test_it_goes_on_after_a_kept_epoch_and_moves_aside_what_came_later(finished, tmp_path):
    path = tmp_path / "out"
    shutil.copytree(finished[0], path)
    first, last = sorted((path / "checkpoints_final").glob("checkpoint_epoch_*.pt"))
    step = torch.load(first, weights_only=True)["step"]
    shutil.rmtree(path / f"checkpoints_final/checkpoint-{step}", ignore_errors=True)
    again = ("unified-test", "--preset", "tiny", "--samples", "32", "--json", "task.sample_label_noise=0.2")
    outcome = call(*again, "--resume", first)
    assert outcome.code == 0, outcome.err
    assert f"going on after epoch 1 (step {step}) from its weights" in outcome.err
    assert "the moments of the optimizer begin anew" in outcome.err
    (aside,) = path.glob("replaced_*")
    assert (aside / last.name).is_file()
    assert (aside / "crossover_final.pth").is_file()
    assert (path / "checkpoints_final/crossover_final.pth").is_file()
    metadata = json.loads((path / "checkpoints_final/metadata.json").read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in metadata] == [1, 2]
    # The command of a session that was killed continues it.
    (path / "continues_after.json").write_text(json.dumps({"file": first.name}), encoding="utf-8")
    outcome = call(*again, "--resume", first)
    assert outcome.code == 0, outcome.err
    assert f"what went on after {first.name} is not finished and is continued" in outcome.err
    assert list(path.glob("replaced_*")) == [aside]


def test_what_is_written_already_asks_for_no_room(finished, tmp_path):
    with disks(tmp_path) as mount:
        disk = mount(sum(file.stat().st_size for file in finished[0].rglob("*")) // MEGABYTE + 6)
        shutil.copytree(finished[0], disk / "out")
        outcome = call("unified-test", "--json", "--resume", disk / "out")
        assert outcome.code == 0, outcome.err
        assert "disk:" not in outcome.err


def test_the_option_for_epochs_wins_over_the_setting_of_the_first_command(finished, tmp_path):
    path = tmp_path / "out"
    shutil.copytree(finished[0], path)
    study = path / "study.yaml"
    study.write_text(
        study.read_text(encoding="utf-8").replace("overrides:", "overrides:\n- training.epochs=2", 1)
    )
    outcome = call("unified-test", "--resume", path, "--epochs", "3", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "\n  epochs: 3\n" in outcome.out
    usual = call("unified-test", "--preset", "tiny", "--dry-run")
    set_so = call("unified-test", "--preset", "tiny", "--dry-run", "training.epochs=4")
    assert ["\n  epochs: 2\n" in usual.out, "\n  epochs: 4\n" in set_so.out] == [True, True]


@pytest.mark.slow
def test_a_finished_training_becomes_longer_and_is_judged_anew(finished, tmp_path):
    path = tmp_path / "out"
    shutil.copytree(finished[0], path)
    outcome = call("unified-test", "--json", "--resume", path, "--epochs", "3")
    assert outcome.code == 0, outcome.err
    assert "2 → 3 epochs" in outcome.err
    assert len(list((path / "checkpoints_final").glob("checkpoint_epoch_0003_*.pt"))) == 1
    assert len(list((path / "sweet_spot_analysis").glob("sweet_spot_analysis_*.json"))) == 1
    (aside,) = path.glob("replaced_*")
    assert (aside / "crossover_final.json").is_file()
    assert outcome.value["sweep"] == finished[1]["sweep"]


def test_it_is_not_continued_with_other_settings(finished):
    outcome = call("unified-test", "--preset", "tiny", "--samples", "16", "--resume", finished[0])
    assert outcome.code == 2
    assert "the run was started with" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("unified-test", "--preset", "1b"), "--preset"),
        (("unified-train", "--preset", "tiny", "--batch-size", "3"), "--batch-size"),
        (
            ("unified-train", "--preset", "tiny", "--epochs", "5", "training.epochs=3", "--dry-run"),
            "give one of them",
        ),
        (("unified-train", "--preset", "tiny", "--resume", "nowhere"), "--resume nowhere"),
        (("unified-test", "--samples", "0"), "--samples"),
        (("train-local", "--preset", "tiny", "--profile", "nothing"), "nothing"),
    ],
)
def test_wrong_input_is_named(arguments, said):
    outcome = call(*arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
