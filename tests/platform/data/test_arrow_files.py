"""The cache: nothing is believed that was changed, and nothing stays for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pyarrow
import pytest

from dure.data import arrow_files
from dure.data.arrow_files import evict, load_entry, max_bytes, written_entry
from dure.errors import UserError


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    monkeypatch.setattr(arrow_files, "_verified", {})


def write(cache, key, numbers=(1, 2, 3), kind="encoded"):
    path = cache / kind / f"{key}.arrow"
    with written_entry(path, lambda: {"of": key}) as append:
        append(pyarrow.record_batch([pyarrow.array(numbers)], names=["ids"]))
    return path


def rows_of(path):
    return next(path.parent.glob(f"{path.stem}-*.arrow"))


def flip(file):
    """Change a number in the middle of a file, which stays as long as it was."""
    content = bytearray(file.read_bytes())
    place = content.rindex((2).to_bytes(8, "little"))
    content[place] = 99
    file.write_bytes(content)


def test_rows_of_the_same_size_that_were_changed_are_not_believed(tmp_path):
    path = write(tmp_path, "a")
    flip(rows_of(path))
    assert load_entry(path) is None
    write(tmp_path, "a")
    dataset, facts = load_entry(path)
    assert dataset["ids"][:] == [1, 2, 3]
    assert facts == {"of": "a"}


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"content": {}, "seal": ""}'])
def test_facts_that_are_none_or_were_changed_are_not_believed(text, tmp_path):
    path = write(tmp_path, "a")
    record = path.with_suffix(".json")
    changed = json.loads(record.read_text())
    record.write_text(text)
    assert load_entry(path) is None
    changed["content"]["facts"]["of"] = "b"
    record.write_text(json.dumps(changed))
    assert load_entry(path) is None


def test_a_file_is_hashed_once_in_a_process_and_again_when_it_was_changed(tmp_path, monkeypatch):
    path = write(tmp_path, "a")
    looks = []
    monkeypatch.setattr(arrow_files, "hash_of", lambda file: looks.append(file) or plain(file))
    for _ in range(3):
        assert load_entry(path) is not None
    assert len(looks) == 1
    os.utime(rows_of(path), (1, 1))
    assert load_entry(path) is not None
    assert len(looks) == 2


plain = arrow_files.hash_of


def used(path, seconds_ago):
    moment = time.time() - seconds_ago
    for file in path.parent.glob(f"{path.stem}*"):
        os.utime(file, (moment, moment))


def test_what_was_not_used_for_long_goes_and_above_the_limit_what_was_not_used_for_longest(tmp_path):
    day = 86_400
    old, middle, recent, now = (write(tmp_path, key, range(10_000)) for key in "abcd")
    for path, days in ((old, 100), (middle, 3), (recent, 2)):
        used(path, days * day)
    stray = tmp_path / "encoded" / ".x.part"
    stray.write_bytes(b"torn")
    os.utime(stray, (1, 1))
    other = tmp_path / "background" / "dure-1.json"
    other.parent.mkdir()
    other.write_text("{}")
    os.utime(other, (1, 1))
    evict(tmp_path, 1e9)
    assert load_entry(old) is None
    assert not stray.exists()
    assert other.exists()
    load_entry(middle)  # is used now, so `recent` is the one that was not for longest
    evict(tmp_path, 170_000)
    assert load_entry(recent) is None
    assert load_entry(middle) is not None
    evict(tmp_path, 1)  # what was just used may be about to be opened elsewhere
    assert load_entry(middle) is not None
    assert load_entry(now) is not None


def test_the_limit_is_that_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DURE_CACHE_MAX_GB", "0.00009")
    first = write(tmp_path, "a", range(10_000))
    used(first, 7200)
    write(tmp_path, "b", range(10_000))
    assert load_entry(first) is None
    for wrong in ("much", "0", "-1", "nan"):
        monkeypatch.setenv("DURE_CACHE_MAX_GB", wrong)
        with pytest.raises(UserError, match=wrong):
            max_bytes()


WRITE = """
import sys
from pathlib import Path
import pyarrow
from dure.data.arrow_files import load_entry, written_entry
for _ in range(30):
    with written_entry(Path(sys.argv[1]), dict) as append:
        append(pyarrow.record_batch([pyarrow.array(range(1000))], names=["ids"]))
    assert load_entry(Path(sys.argv[1])) is not None
"""


@pytest.mark.heavy
def test_processes_that_write_one_entry_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "encoded" / "a.arrow"
    writing = [subprocess.Popen([sys.executable, "-c", WRITE, str(path)], env=os.environ) for _ in range(3)]
    assert [each.wait(timeout=300) for each in writing] == [0, 0, 0]
    assert load_entry(path)[0]["ids"][:] == list(range(1000))
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".arrow", ".json"]
