"""Files that dure writes can be read by whoever may read the folder, and records that are no records are named."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import tracemalloc

import pytest
import torch
import xxhash
from safetensors.torch import save_file

from dure import files
from dure.errors import UserError
from dure.files import json_lines, read_json, read_json_lines, write_text, written_beside
from dure.runs.manifest import write_manifest

DEEP = "[" * 100_000


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=["others read", "the group writes", "nobody else"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


def test_saved_weights_have_the_permissions_of_any_new_file(umask, tmp_path):
    with written_beside(tmp_path / "final_model") as beside:
        beside.mkdir()
        save_file({"a": torch.zeros(2)}, beside / "model.safetensors")
    with written_beside(tmp_path / "one.safetensors") as beside:
        save_file({"a": torch.zeros(2)}, beside)
    assert mode(tmp_path / "final_model" / "model.safetensors") == 0o666 & ~umask
    assert mode(tmp_path / "one.safetensors") == 0o666 & ~umask
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    save_file({"a": torch.zeros(2)}, checkpoint / "model.safetensors")
    write_manifest(checkpoint)
    assert {mode(path) for path in checkpoint.iterdir()} == {0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-1",
        "final_model",
        "one.safetensors",
    ]


@pytest.mark.parametrize("text", [DEEP, '{"a": ' * 100_000, '{"a": ' + "9" * 5000 + "}", "[]", "{", b"\xff"])
def test_a_record_that_is_none_is_an_error_that_names_the_file(text, tmp_path):
    file = tmp_path / "result.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=r"result\.json: this is no result"):
        read_json(file, what="result")
    file.write_bytes(file.read_bytes() + b"\n{}\n")
    with pytest.raises(UserError, match=r"result\.json, line 1"):
        read_json_lines(file)


def test_a_record_that_is_too_large_is_named_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 100)
    file = tmp_path / "result.json"
    file.write_text('{"a": "' + "x" * 200 + '"}\n{}\n')
    with pytest.raises(UserError, match="larger than"):
        read_json(file, what="result")
    with pytest.raises(UserError, match="line 1"):
        read_json_lines(file)


@pytest.mark.heavy
def test_records_are_read_one_at_a_time_however_many_they_are(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f'{{"step": {step}, "loss_of_a_module": 0.125}}\n' for step in range(200_000))
    tracemalloc.start()
    try:
        total = sum(record["step"] for record in json_lines(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 199_999 * 100_000
    assert peak < 1_000_000


def test_a_file_is_hashed_in_little_memory_since_eight_are_at_a_time_beside_training(tmp_path):
    path = tmp_path / "optimizer.pt"
    path.write_bytes(bytes(3_000_000))
    tracemalloc.start()
    try:
        found = files.hash_of(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == xxhash.xxh3_128_hexdigest(bytes(3_000_000))
    assert peak < 600_000


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "No space left on device", "a/.x.0123abcd.part"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_could_not_be_written_is_told_by_its_own_name(tmp_path, error):
    with pytest.raises(OSError, match="No space left") as caught, written_beside(tmp_path / "x.csv"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x.csv"))
    with pytest.raises(PermissionError) as caught, written_beside(tmp_path / "x.csv") as beside:
        raise PermissionError(errno.EACCES, "Permission denied", str(beside))
    assert caught.value.filename == str(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="other"), written_beside(tmp_path / "x.csv"):
        raise ValueError("other")


@pytest.mark.parametrize("name", ["x" * 255, "가" * 85, "x" * 241])
def test_the_longest_name_that_a_folder_takes_is_written(name, tmp_path):
    write_text(tmp_path / name, "one\n")
    write_text(tmp_path / name, "two\n")
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "two\n"


def test_a_folder_of_the_longest_name_is_replaced(tmp_path):
    path = tmp_path / ("가" * 85)
    for text in ("one", "two"):
        with written_beside(path) as beside:
            beside.mkdir()
            (beside / "x").write_text(text)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert (path / "x").read_text() == "two"


def replaced(path, text="new"):
    with written_beside(path) as beside:
        beside.mkdir()
        (beside / "x").write_text(text)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("old")
    return tmp_path / "out"


def test_what_a_hidden_process_of_another_user_writes_is_not_taken_for_left(tmp_path, monkeypatch):
    def of_another(pid, number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with written_beside(tmp_path / "out") as beside:
        beside.touch()
        written = beside.name
    with subprocess.Popen(["true"]) as ended:
        pass
    theirs = tmp_path / written.replace(f"{os.getpid():08x}", f"{ended.pid:08x}")
    theirs.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", of_another)
        write_text(tmp_path / "out", "")
    assert theirs.exists()
    theirs.with_name(written.replace(f"{os.getpid():08x}", "f" * 8)).touch()  # a number that no process has
    write_text(tmp_path / "out", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_keeps_its_name_when_the_new_one_cannot_have_it(folder, monkeypatch):
    rename = pathlib.Path.rename

    def refused(path, target):
        if path.suffix == ".part":
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(target))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", refused)
        with pytest.raises(OSError, match="quota"):
            replaced(folder)
    assert (folder / "x").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]
    replaced(folder)
    assert (folder / "x").read_text() == "new"


def test_a_folder_is_written_although_the_old_one_cannot_go(folder, monkeypatch):
    unlink = os.unlink

    def in_use(path, *args, **kwargs):
        if path == "x":
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        unlink(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", in_use)  # a file of it is open, on NFS
        replaced(folder)
    assert (folder / "x").read_text() == "new"
    assert len(list(folder.parent.iterdir())) == 2


def test_a_folder_that_a_link_leads_to_is_left_alone(folder):
    link = folder.with_name("link")
    link.symlink_to(folder)
    with pytest.raises(OSError, match="link"):
        replaced(link)
    assert (folder / "x").read_text() == "old"
    assert sorted(folder.parent.iterdir()) == [link, folder]


KILLED = """
import os, pathlib, signal, sys
from dure.files import written_beside
end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
where, when = pathlib.Path(sys.argv[1]), sys.argv[2]
with written_beside(where) as beside:
    if when == "file":
        beside.write_text("half")
        end()
    beside.mkdir()
    (beside / "x").write_text("new")
    if when == "folder":
        end()
    rename = pathlib.Path.rename
    pathlib.Path.rename = lambda *names: (rename(*names), end())
"""


@pytest.mark.parametrize("when", ["file", "folder", "between the names"])
def test_what_a_kill_left_beside_an_output_goes_when_it_is_written_again(when, tmp_path):
    path = tmp_path / "out"
    if when == "between the names":
        path.mkdir()
        (path / "x").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, path, when], check=False)
    assert done.returncode == -signal.SIGKILL
    (left, *_) = hidden = [each.name for each in tmp_path.iterdir()]
    assert all(name.startswith(".out.") for name in hidden)
    # What somebody else may be writing, and what only looks like it, stays.
    mine = [
        f".out.{'0' * 24}.part",
        f".out.{left[5:13]}{os.getpid():08x}01234567.part",
        ".out.part",
        ".other.part",
    ]
    for name in mine:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="a failed write"), written_beside(path):
        raise ValueError("a failed write")
    kept = ["out"] if when == "between the names" else []
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*mine, *kept])
    assert not kept or (path / "x").read_text() == "old"
