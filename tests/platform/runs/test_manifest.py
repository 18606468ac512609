"""What a checkpoint held when it was written, compared with what is there."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import RunError
from dure.files import read_json_lines
from dure.metrics.metric import Metric
from dure.runs import checkpoints
from dure.runs.folder import RunFolder
from dure.runs.manifest import MANIFEST, faults, write_manifest
from dure.training.run import RunRequest, run

SUM = Metric("eval_rouge_sum", "max", "percent")


def _flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@given(
    contents=st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1, max_size=50), min_size=1),
    data=st.data(),
)
def test_whatever_changes_in_a_file_is_found_and_nothing_else(tmp_path_factory, contents, data):
    folder = tmp_path_factory.mktemp("folder")
    (folder / "part").mkdir()
    for name, content in contents.items():
        (folder / "part" / name).write_bytes(content)
    write_manifest(folder)
    assert faults(folder) == []
    (folder / "added later").write_text("harmless")
    assert faults(folder) == []
    name = data.draw(st.sampled_from(sorted(contents)))
    path, content = folder / "part" / name, contents[name]
    changed = data.draw(st.none() | st.binary(max_size=60).filter(lambda other: other != content))
    path.unlink() if changed is None else path.write_bytes(changed)
    (fault,) = faults(folder)
    assert fault.startswith(f"part/{name} ")


def test_a_damaged_manifest_is_a_fault_and_none_is_an_older_versions(tmp_path):
    (tmp_path / "a").write_text("a")
    assert faults(tmp_path) == []
    write_manifest(tmp_path)
    for content in ("", "[]", '{"files": {}}', '{"algorithm": "md5", "files": {}}'):
        (tmp_path / MANIFEST).write_text(content)
        assert MANIFEST in faults(tmp_path)[0]


@pytest.fixture(scope="module")
def a_run(tiny, cpu, tmp_path_factory):
    """A finished run with checkpoints at 2, 4 and 6 of 6, the best being that of 4, and a result."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        experiment = tiny("t5", "lora", save_total_limit=3, best_metric="eval_loss")
        result = run(RunRequest(experiment, cpu, path))
    return experiment, path, result


@pytest.fixture
def resumed(a_run, cpu, tmp_path):
    """Copy the run, break it, resume it: ``resumed(lambda folder: …)`` gives the result, what was told, the folder."""
    experiment, source, _ = a_run

    def resume(breaking):
        from dure.events import RunListener

        told = []

        class Notes(RunListener):
            def notified(self, message):
                told.append(message)

        folder = tmp_path / "run"
        shutil.copytree(source, folder)
        breaking(folder)
        result = run(RunRequest(experiment, cpu, folder, resume=True, listeners=(Notes(),)))
        return result, told, folder

    return resume


def _same(result, other):
    return (
        all(result.metrics[key] == other.metrics[key] for key in ("eval_loss", "best_step", "steps"))
        and result.best_checkpoint == other.best_checkpoint
    )


def _weights(folder):
    return (RunFolder(folder).final_model / "model.safetensors").read_bytes()


def test_every_checkpoint_and_the_final_model_are_whole_by_their_manifest(a_run):
    _, path, _ = a_run
    for folder in (*checkpoints.checkpoints(path).values(), path / "final_model"):
        assert json.loads((folder / MANIFEST).read_text())["files"]
        assert faults(folder) == []
    assert len(checkpoints.checkpoints(path)) == 3


@pytest.mark.parametrize(
    ("what", "breaking"),
    [
        ("optimizer.pt is cut short", lambda newest: _cut(newest / "optimizer.pt")),
        ("adapter_model.safetensors was changed", lambda newest: _flip(newest / "adapter_model.safetensors")),
        ("scheduler.pt is missing", lambda newest: (newest / "scheduler.pt").unlink()),
        ("manifest.json is damaged", lambda newest: _cut(newest / MANIFEST)),
    ],
)
def test_a_broken_checkpoint_is_set_aside_and_told_and_the_one_before_ends_in_the_same_model(
    a_run, resumed, what, breaking
):
    result, told, folder = resumed(lambda path: breaking(path / "checkpoint-6"))
    assert _same(result, a_run[2])
    assert _weights(folder) == _weights(a_run[1])
    (line,) = [each for each in told if "checkpoint-6" in each]
    assert what in line
    assert line.endswith("going on from checkpoint-4")
    assert (folder / "checkpoint-6.broken").is_dir()
    assert faults(folder / "checkpoint-6") == []


def test_when_the_best_and_the_last_break_the_run_repeats_what_they_held(a_run, resumed):
    best = a_run[2].metrics["best_step"]

    def breaking(path):
        _flip(path / f"checkpoint-{best}" / "adapter_model.safetensors")
        _cut(path / "checkpoint-6" / "trainer_state.json")

    result, _, folder = resumed(breaking)
    assert _same(result, a_run[2])
    assert _weights(folder) == _weights(a_run[1])


def test_with_all_checkpoints_broken_the_run_begins_anew(a_run, resumed):
    def breaking(path):
        for step in (2, 4, 6):
            _cut(path / f"checkpoint-{step}" / "trainer_state.json")

    result, told, folder = resumed(breaking)
    assert _same(result, a_run[2])
    assert any(line.endswith("the run begins anew") for line in told)
    assert [row["step"] for row in read_json_lines(folder / "metrics.jsonl") if "loss" in row] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_a_checkpoint_of_an_older_version_is_taken_as_it_is_and_said(a_run, resumed):
    def breaking(path):
        for step in (2, 4, 6):
            (path / f"checkpoint-{step}" / MANIFEST).unlink()

    result, told, _ = resumed(breaking)
    assert _same(result, a_run[2])
    assert any("checkpoint-6 has no manifest.json" in line for line in told)


def _fake(folder, step, best, history):
    path = folder / checkpoints.checkpoint_name(step)
    path.mkdir()
    (path / "weights").write_text(str(step))
    scores = {row["step"]: row["eval_rouge_sum"] for row in history}
    state = {
        "global_step": step, "best_global_step": best, "best_metric": scores.get(best),
        "log_history": [row for row in history if row["step"] <= step],
    }  # fmt: skip
    (path / checkpoints.STATE_FILE).write_text(json.dumps(state))
    write_manifest(path)


HISTORY = [
    {"step": step, "eval_rouge_sum": score} for step, score in ((2, 3.0), (4, 5.0), (6, 2.0), (8, 4.0))
]


def test_a_lost_best_checkpoint_is_told_and_the_best_whole_one_by_the_records_takes_its_place(tmp_path):
    for step in (4, 6, 8):
        _fake(tmp_path, step, 4, HISTORY)
    _flip(tmp_path / "checkpoint-4" / "weights", 0)
    told = []
    choice = checkpoints.choose(tmp_path, SUM, told.append)
    assert choice == checkpoints.Choice(tmp_path / "checkpoint-8", checkpoints.Best(8, 4.0))
    assert told == [
        "checkpoint-4 is set aside as checkpoint-4.broken: weights was changed; going on from checkpoint-8",
        "the best, checkpoint-4, is lost: of those that are whole, checkpoint-8 is the best (eval_rouge_sum 4.0000)",
    ]


def test_rather_than_lose_the_best_the_run_goes_back_to_before_it(tmp_path):
    _fake(tmp_path, 2, 2, HISTORY)
    for step in (4, 6):
        _fake(tmp_path, step, 4, HISTORY)
    (tmp_path / "checkpoint-4" / "weights").unlink()
    told = []
    choice = checkpoints.choose(tmp_path, SUM, told.append)
    assert choice == checkpoints.Choice(tmp_path / "checkpoint-2", checkpoints.Best(2, 3.0))
    assert "checkpoint-6 is set aside as checkpoint-6.broken: newer than checkpoint-2" in told[0]
    assert list(checkpoints.checkpoints(tmp_path)) == [2]


def test_at_the_end_a_broken_best_is_never_silently_another_model(tmp_path):
    for step in (4, 8):
        _fake(tmp_path, step, 4, HISTORY)
    best, told = checkpoints.Best(4, 5.0), []
    assert checkpoints.best_whole(tmp_path, best, HISTORY, SUM, told.append) == best
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert checkpoints.best_whole(tmp_path, best, HISTORY, SUM, told.append) == checkpoints.Best(8, 4.0)
    assert "it is missing" in told[0]
    _flip(tmp_path / "checkpoint-8" / "weights", 0)
    with pytest.raises(RunError, match="its weights are lost"):
        checkpoints.best_whole(tmp_path, best, HISTORY, SUM, told.append)
