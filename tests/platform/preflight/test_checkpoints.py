"""What a run left is found whole, cut short, damaged or of another model, and the file is named."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch

KINDS = ("whole", "adapters", "packed")


def cut(path, part=0.7):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def flip(path):
    """Change one byte of the largest tensor in a file of torch.save."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
        tensor = file.read(largest)
    content[content.index(tensor) + len(tensor) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_left_is_whole_and_of_its_model(runs, look, kind):
    checks = look(checkpoint=runs[kind])
    assert [check for check in checks.values() if check.state == "failed"] == []
    names = [name for name, check in checks.items() if check.area == "checkpoints"]
    assert names == ["result.json", "metrics.jsonl", "checkpoint-1", "checkpoint-2", "final_model"]
    assert "loads as" in checks["final_model"].found


def test_a_part_of_a_run_is_judged_by_the_experiment_around_it(runs, look):
    average = look(checkpoint=runs["adapters"] / "checkpoint-2" / "ema.pt")["ema.pt"]
    assert average.state == "ok"
    assert "not compared" not in average.found
    assert look(checkpoint=runs["whole"] / "final_model")["final_model"].state == "ok"


def test_a_run_whose_record_hides_the_password_of_its_server_is_whole(a_run, look):
    record = a_run("whole") / "experiment.yaml"
    text = record.read_text(encoding="utf-8").replace("tracking: []", "tracking: [mlflow]")
    record.write_text(text.replace("uri: null", "uri: http://team:***@host"), encoding="utf-8")
    checks = look(checkpoint=record.parent)
    assert checks["tracking"].state == "ok", checks["tracking"].found


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("whole", "checkpoint-2/model.safetensors"),
        ("adapters", "checkpoint-2/adapter_model.safetensors"),
        ("adapters", "checkpoint-2/optimizer.pt"),
        ("adapters", "checkpoint-2/ema.pt"),
        ("whole", "final_model/model.safetensors"),
    ],
)
def test_a_file_that_is_cut_short_is_named(a_run, failed, kind, file):
    path = a_run(kind)
    cut(path / file)
    checks = failed(checkpoint=path)
    assert list(checks) == [file.partition("/")[0]]
    (check,) = checks.values()
    assert file in check.found
    assert "cut short" in check.found


def test_a_header_that_is_cut_short_or_damaged_is_told(a_run, failed):
    path = a_run("whole")
    weights = path / "final_model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:50])
    assert "within its header" in failed(checkpoint=path)["final_model"].found
    weights.write_bytes(content[:8] + b"#" + content[9:])
    assert "header of the file is damaged" in failed(checkpoint=path)["final_model"].found


def test_one_flipped_byte_in_saved_tensors_is_found(a_run, failed):
    path = a_run("adapters")
    flip(path / "checkpoint-2" / "optimizer.pt")
    (check,) = failed(checkpoint=path).values()
    assert "damaged" in check.found
    assert "optimizer.pt" in check.found


def test_what_only_the_manifest_knows_is_found(a_run, failed):
    path = a_run("whole")
    (path / "checkpoint-2" / "trainer_state.json").open("a").write("\n")
    (path / "final_model" / "tokenizer_config.json").open("a").write("\n")
    checks = failed(checkpoint=path)
    assert "trainer_state.json has grown" in checks["checkpoint-2"].found
    assert "tokenizer_config.json has grown" in checks["final_model"].found


def test_weights_that_are_not_finite_are_told(a_run, failed):
    path = a_run("adapters") / "checkpoint-2" / "ema.pt"
    saved = torch.load(path, weights_only=True)
    next(iter(saved["model_state"].values())).fill_(float("nan"))
    torch.save(saved, path)
    (check,) = failed(checkpoint=path).values()
    assert "not finite" in check.found


class Trap:
    """What would run when it is unpickled."""

    def __reduce__(self):
        return print, ("opened",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model_state": Trap()}, "does not load as plain weights"),
        ({"epoch": 3}, "holds no weights, but epoch"),
        ([1, 2], "holds no weights, but list"),
    ],
)
def test_a_file_that_is_no_plain_weights_is_told_and_never_run(tmp_path, failed, capsys, content, words):
    torch.save(content, tmp_path / "weights.pt")
    (check,) = failed(checkpoint=tmp_path / "weights.pt").values()
    assert words in check.found
    assert "opened" not in capsys.readouterr().out


def test_a_file_of_another_kind_is_told(tmp_path, failed):
    (tmp_path / "weights.pt").write_text("no weights at all")
    assert "no file of torch.save" in failed(checkpoint=tmp_path / "weights.pt")["weights.pt"].found
    (tmp_path / "notes.txt").write_text("no weights at all")
    assert "suffix '.txt'" in failed(checkpoint=tmp_path / "notes.txt")["notes.txt"].found
    (tmp_path / "empty").mkdir()
    assert "neither a run nor a model" in failed(checkpoint=tmp_path / "empty")["empty"].found


def test_a_path_that_is_not_there_has_the_nearest_one_beside_it(a_run, failed):
    (check,) = failed(checkpoint=a_run("whole") / "checkpoint-3").values()
    assert "nothing there" in check.found
    assert "checkpoint-2" in check.remedy


def test_weights_of_another_model_are_told_with_the_first_tensor(runs, tmp_path, failed):
    torch.save({"model_state": {"other.weight": torch.zeros(3)}}, tmp_path / "weights.pt")
    experiment = str(runs["whole"] / "experiment.yaml")
    checks = {
        path.name: failed(experiment, checkpoint=path)[path.name].found
        for path in (
            tmp_path / "weights.pt",
            runs["adapters"] / "checkpoint-2",
            runs["packed"] / "final_model",
        )
    }
    assert "another model than that of tiny_t5_full" in checks["weights.pt"]
    assert "another model than that of tiny_t5_full" in checks["checkpoint-2"]
    assert "final_model" in checks["final_model"]


def test_a_tensor_of_another_shape_is_told_with_both_shapes(a_run, failed):
    path = a_run("adapters") / "checkpoint-2" / "ema.pt"
    saved = torch.load(path, weights_only=True)
    name = next(name for name, tensor in saved["model_state"].items() if tensor.dim() == 2)
    saved["model_state"][name] = torch.zeros(3, 5)
    torch.save(saved, path)
    (check,) = failed(checkpoint=path).values()
    assert f"'{name}' is [3, 5] and should be" in check.found


def test_a_checkpoint_without_what_a_resumption_needs_is_told(a_run, failed):
    path = a_run("whole")
    step = path / "checkpoint-2"
    (step / "optimizer.pt").unlink()
    assert "no optimizer.pt" in failed(checkpoint=path)["checkpoint-2"].found
    state = json.loads((step / "trainer_state.json").read_text())
    (step / "trainer_state.json").write_text(json.dumps({**state, "global_step": 5}))
    assert "it is of step 5" in failed(checkpoint=path)["checkpoint-2"].found
    (step / "trainer_state.json").unlink()
    assert "was not finished" in failed(checkpoint=path)["checkpoint-2"].found


def test_broken_records_of_a_run_are_named(a_run, failed):
    path = a_run("whole")
    (path / "result.json").write_text("{")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join(["{", *lines]))
    for name in ("checkpoint-1", "checkpoint-2", "final_model"):
        shutil.rmtree(path / name)
    checks = failed(checkpoint=path)
    assert list(checks) == ["result.json", "metrics.jsonl", path.name]
    assert "no checkpoint" in checks[path.name].found
