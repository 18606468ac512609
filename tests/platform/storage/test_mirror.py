"""A run in storage: whole or not there, as far as here, and enough to go on from on another machine."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch

from dure.config import load_profile
from dure.config.storage import StorageConfig
from dure.errors import RunError
from dure.events import RunListener
from dure.files import read_json_lines
from dure.runs.checkpoints import STATE_FILE, checkpoints
from dure.runs.manifest import MANIFEST, write_manifest
from dure.storage.mirror import Mirror, SharedFolder, shared_folder
from dure.storage.remote import Storage, StorageError
from dure.training.run import RunRequest, run

FILES = ("model.safetensors", "optimizer.pt", STATE_FILE)


def checkpoint(folder, step, content="x"):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in FILES:
        (path / name).write_text(f"{content} {step} {name}")
    write_manifest(path)
    return path


def at(s3, folder):
    folder.mkdir(exist_ok=True)
    return Mirror(Storage(s3.url, waits=()), folder)


def test_a_folder_comes_back_as_it_was_without_what_is_hidden_and_is_sent_once(s3, tmp_path):
    here = tmp_path / "a"
    checkpoint(here, 2)
    checkpoint(here / "checkpoints", 4)
    (here / "metrics.jsonl").write_text("{}\n")
    (here / ".checkpoint-6.part").mkdir()
    (here / ".checkpoint-6.part" / "x").touch()
    (here / "checkpoint-8.broken").mkdir()
    (here / "checkpoint-8.broken" / STATE_FILE).touch()
    (here / "checkpoint-9").mkdir()  # not whole: no state
    (here / "checkpoint-9" / "model.safetensors").touch()
    at(s3, here).push()
    assert at(s3, tmp_path / "b").pull() == 4
    for path in ("checkpoint-2", "checkpoints/checkpoint-4"):
        for name in (*FILES, MANIFEST):
            assert (tmp_path / "b" / path / name).read_bytes() == (here / path / name).read_bytes()
    there = {p.relative_to(tmp_path / "b").as_posix() for p in (tmp_path / "b").iterdir()}
    assert there == {"checkpoint-2", "checkpoints", "metrics.jsonl", ".mirror.json"}
    sent = len(s3.written())
    at(s3, here).push()
    at(s3, tmp_path / "b").push()
    assert len(s3.written()) == sent


@pytest.mark.heavy
@pytest.mark.parametrize(
    "cuts", [(16, 22), pytest.param(range(0, 200, 5), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_no_push_that_is_cut_anywhere_leaves_half_a_checkpoint_to_take(s3, tmp_path, cuts):
    """A request is the first one that fails, as are all after it; the next push then completes the copy."""
    here = tmp_path / "a"
    (here).mkdir()
    (here / "metrics.jsonl").write_text("{}\n")
    checkpoint(here, 2, "old")
    at(s3, here).push()
    before = dict(s3.objects)
    shutil.rmtree(here / "checkpoint-2")
    checkpoint(here, 2, "new")
    checkpoint(here, 4, "new")
    index = (here / ".mirror.json").read_bytes()
    for cut in cuts:
        s3.objects = dict(before)
        (here / ".mirror.json").write_bytes(index)
        asked = [0]

        def fails(method, key, asked=asked, cut=cut):
            asked[0] += 1
            return asked[0] > cut

        s3.fails = fails
        try:
            at(s3, here).push()
            is_done = True
        except StorageError:
            is_done = False
        s3.fails = lambda method, key: False
        other = tmp_path / f"b{cut}"
        told = []
        at(s3, other).pull(told.append)
        assert told == []
        for path in checkpoints(other).values():
            contents = {(path / name).read_text().split()[0] for name in FILES}
            assert len(contents) == 1, f"cut after {cut} requests"
        at(s3, here).push()
        last = tmp_path / f"c{cut}"
        assert at(s3, last).pull() == 4
        assert (last / "checkpoint-2" / "optimizer.pt").read_text().startswith("new")
        if is_done:
            break
    assert cut > 20


def test_an_older_checkpoint_goes_from_storage_after_the_newest_is_whole_and_its_seal_goes_first(
    s3, tmp_path
):
    here = tmp_path / "a"
    checkpoint(here, 2)
    mirror = at(s3, here)
    mirror.push()
    shutil.rmtree(here / "checkpoint-2")
    checkpoint(here, 4)
    s3.asked.clear()
    mirror.push()
    steps = [entry for entry in s3.asked if entry[0] in ("WRITE", "DELETE") and not entry[1].endswith("/")]
    sealed = steps.index(("WRITE", f"team/checkpoint-4/{STATE_FILE}"))
    deleted = [key for method, key in steps[sealed + 1 :] if method == "DELETE"]
    assert deleted[0] == f"team/checkpoint-2/{STATE_FILE}"
    assert len(deleted) == 4
    assert not any(key.startswith("checkpoint-2") for key in s3.files())


def test_a_newer_checkpoint_of_another_machine_is_never_taken_away_and_brings_its_records(s3, tmp_path):
    here, other = tmp_path / "a", tmp_path / "b"
    checkpoint(here, 2)
    (here / "metrics.jsonl").write_text("1\n")
    at(s3, here).push()
    shutil.copytree(here, other)
    checkpoint(other, 4)
    (other / "metrics.jsonl").write_text("1\n2\n")
    at(s3, other).push()
    at(s3, here).push()
    assert f"checkpoint-4/{STATE_FILE}" in s3.files()
    at(s3, other).push()
    assert at(s3, here).pull() == 4
    assert (here / "metrics.jsonl").read_text() == "1\n2\n"


def test_a_checkpoint_that_was_damaged_in_storage_is_not_taken_and_told(s3, tmp_path):
    here = tmp_path / "a"
    checkpoint(here, 2)
    checkpoint(here, 4)
    at(s3, here).push()
    s3.objects["team/checkpoint-4/model.safetensors"] = b"Y 4 model.safetensors"
    told = []
    assert at(s3, tmp_path / "b").pull(told.append) == 2
    assert told == ["checkpoint-4 in s3://bucket/team is not taken: model.safetensors was changed"]


def test_a_driver_sends_nothing_that_is_older_than_what_another_machine_sent_of_a_trial(tmp_path):
    """The driver has the trial as it was before it went on elsewhere, and also what that leaves beside it."""
    far, driver, node = tmp_path / "far", tmp_path / "driver", tmp_path / "node" / "trial"
    shared = SharedFolder(driver, f"file://{far}")
    checkpoint(driver / "trial", 2)
    (driver / "trial" / "metrics.jsonl").write_text("1\n")
    shared.mirror(driver).push()
    elsewhere = Mirror(Storage(f"file://{far}/trial"), node)
    assert elsewhere.pull() == 2
    shutil.rmtree(node / "checkpoint-2")
    checkpoint(node, 4)
    (node / "metrics.jsonl").write_text("1\n2\n")
    (node / "result.json").write_text("{}")
    elsewhere.push()
    assert not (far / "trial" / "checkpoint-2" / STATE_FILE).exists()
    checkpoint(driver / "other", 6)
    shared.mirror(driver).push()
    assert checkpoints(far / "trial").keys() == {4}
    assert (far / "trial" / "metrics.jsonl").read_text() == "1\n2\n"
    assert (far / "trial" / "result.json").exists()
    assert shared.mirror(driver / "trial").pull() == 4
    assert (driver / "trial" / "metrics.jsonl").read_text() == "1\n2\n"
    assert checkpoints(far / "other").keys() == {6}


def test_what_was_removed_here_comes_back_only_when_it_is_asked_for(tmp_path):
    here = tmp_path / "here"
    mirror = Mirror(Storage(f"file://{tmp_path}/far"), here)
    checkpoint(here, 2)
    (here / "study.yaml").write_text("name: a\n")
    mirror.push()
    shutil.rmtree(here / "checkpoint-2")
    (here / "study.yaml").unlink()
    assert mirror.pull() is None
    assert not (here / "study.yaml").exists()
    assert mirror.pull(removed_too=True) == 2
    assert (here / "study.yaml").read_text() == "name: a\n"
    shutil.rmtree(here / "checkpoint-2")
    mirror.push()
    assert mirror.pull(removed_too=True) is None


def test_what_a_trial_sent_its_study_does_not_send_again_and_the_trial_leaves_what_the_study_brought(
    s3, tmp_path
):
    here, other = SharedFolder(tmp_path / "a", s3.url), SharedFolder(tmp_path / "b", s3.url)
    checkpoint(here.folder / "trial", 2)
    here.mirror(here.folder / "trial").push()
    sent = s3.written()
    here.mirror(here.folder).push(apart=["trial"])
    here.mirror(here.folder).push()
    (here.folder / "study.yaml").write_text("name: a\n")
    here.mirror(here.folder).push()
    assert other.mirror(other.folder).pull() == 2
    other.mirror(other.folder / "trial").push()
    assert s3.written()[len(sent) :] == ["team/study.yaml"]


def test_a_folder_in_one_that_is_mirrored_is_a_part_of_it(tmp_path, cpu):
    profile = cpu.model_copy(update={"storage": StorageConfig(url=f"file://{tmp_path}/far")})
    outer = shared_folder(profile, tmp_path / "place" / "unified")
    outer.mirror(outer.folder).push()
    inner = shared_folder(profile, outer.folder / "lr_sweep")
    assert inner.mirror(outer.folder / "lr_sweep").storage.shown == f"file://{tmp_path}/far/unified/lr_sweep"


def test_a_folder_of_any_name_is_mirrored_and_its_parts_with_it(tmp_path, cpu):
    profile = cpu.model_copy(update={"storage": StorageConfig(url=f"file://{tmp_path}/far")})
    for name in ("요약 1", "요약 #2"):
        outer = shared_folder(profile, tmp_path / "place" / name)
        checkpoint(outer.folder / "trial", 2)
        outer.mirror(outer.folder / "trial").push()
        outer.mirror(outer.folder).push()
        assert (tmp_path / "far" / name / "trial" / "checkpoint-2" / MANIFEST).is_file()
        assert outer.mirror(outer.folder / "trial")._read_indexes()
    shutil.rmtree(outer.folder)
    assert shared_folder(profile, outer.folder).mirror(outer.folder).pull() == 2


def test_the_place_in_storage_is_the_same_on_every_machine(tmp_path, monkeypatch, cpu):
    monkeypatch.chdir(tmp_path)
    profile = cpu.model_copy(update={"storage": StorageConfig(url="s3://bucket/team")})
    assert shared_folder(cpu, tmp_path) is None
    for path, expected in [
        ("outputs/x/1", "x/1"),
        ("runs/a", "runs/a"),
        (tmp_path.parent / "outputs" / "seven" / "2", "seven/2"),
        (tmp_path.parent / "elsewhere" / "a", "a"),
    ]:
        shared = shared_folder(profile, tmp_path / path)
        assert shared.url == f"s3://bucket/team/{expected}"
    assert shared.mirror(shared.folder / "trial_1").storage.shown == "s3://bucket/team/a/trial_1"


class _Killed(BaseException):
    """Stands for the end of a machine."""


class _Cut(RunListener):
    def __init__(self, step, then):
        self.step, self.then = step, then

    def progressed(self, progress):
        if progress.kind == "train" and progress.step == self.step:
            self.then()


class _Lines(RunListener):
    def __init__(self):
        self.lines = []

    def notified(self, message):
        self.lines.append(message)


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(next(iter((folder / "final_model").glob("*.safetensors"))))


def _losses(folder):
    return {
        (each["kind"], each["step"]): [each.get("loss"), each.get("eval_loss")]
        for each in read_json_lines(folder / "metrics.jsonl")
    }


@pytest.mark.slow
def test_a_run_whose_machine_is_lost_goes_on_in_an_empty_folder_and_ends_the_same(tiny, cpu, s3, tmp_path):
    experiment = tiny("bert", "full")
    run(RunRequest(experiment, cpu, tmp_path / "whole"))

    def request(path, *listeners):
        return RunRequest(
            experiment, cpu, path, resume=True, listeners=listeners, shared=SharedFolder(path, f"{s3.url}")
        )

    stored = []

    def lost():
        # A checkpoint is written behind training, and storage hears of it at the end of a later step: that of step 2 is
        # there at the latest when that of step 4 begins, and what is under way ends up there or not.
        deadline = 200
        while f"checkpoint-2/{STATE_FILE}" not in s3.files() and deadline:
            deadline -= 1
            time.sleep(0.05)
        s3.fails = lambda method, key: True
        stored.extend(name.partition("/")[0] for name in s3.files() if name.endswith(STATE_FILE))
        raise _Killed

    with pytest.raises(_Killed):
        run(request(tmp_path / "a", _Cut(5, lost)))
    s3.fails = lambda method, key: False
    shutil.rmtree(tmp_path / "a")
    lines = _Lines()
    result = run(request(tmp_path / "b", lines))
    assert result.state == "completed"
    assert any(f"{max(stored)} comes from s3://bucket/team" in line for line in lines.lines)
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "b")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert _losses(tmp_path / "b") == _losses(tmp_path / "whole")
    assert json.loads(s3.objects["team/result.json"])["state"] == "completed"
    assert {name for name in s3.files() if name.startswith("final_model")}
    here = {f"{path.name}/{STATE_FILE}" for path in checkpoints(tmp_path / "b").values()}
    assert here == {name for name in s3.files() if name.endswith(STATE_FILE)}


@pytest.mark.slow
def test_a_run_outlives_its_storage_and_the_next_push_brings_everything(tiny, cpu, s3, tmp_path, monkeypatch):
    monkeypatch.setattr("dure.storage.remote._WAITS_SECONDS", ())
    lines = _Lines()
    path = tmp_path / "run"
    gone = _Cut(1, lambda: setattr(s3, "fails", lambda method, key: True))
    result = run(
        RunRequest(
            tiny("bert", "full"), cpu, path, listeners=(lines, gone), shared=SharedFolder(path, s3.url)
        )
    )
    assert result.state == "completed"
    said = [line for line in lines.lines if "s3://bucket/team" in line]
    assert "the run goes on" in said[0]
    assert "nothing is lost" in said[-1]
    assert "--resume" in said[-1]
    assert len(said) == 2
    s3.fails = lambda method, key: False
    Mirror(Storage(s3.url), path).push()
    assert "final_model/manifest.json" in s3.files()
    assert "result.json" in s3.files()


def test_a_run_that_cannot_know_what_to_resume_does_not_begin_anew(tiny, cpu, s3, tmp_path, monkeypatch):
    s3.fails = lambda method, key: True
    shared = SharedFolder(tmp_path / "run", s3.url)
    monkeypatch.setattr(SharedFolder, "mirror", lambda self, path: Mirror(Storage(self.url, waits=()), path))
    with pytest.raises(RunError, match="not known what to resume"):
        run(RunRequest(tiny("bert", "full"), cpu, tmp_path / "run", resume=True, shared=shared))


def test_the_profile_takes_a_url(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cpu\nname: mine\nstorage: {url: 's3://bucket/x'}\n", encoding="utf-8")
    assert load_profile(str(file)).storage.url == "s3://bucket/x"
