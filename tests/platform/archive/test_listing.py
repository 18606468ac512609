"""What lies in the outputs is listed as it stands, and only what nobody needs may go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from dure import clean, list_runs
from dure.archive.listing import listing_table
from dure.data.arrow_files import forget, load_entry, spare_entries, written_entry
from dure.errors import UserError
from dure.reporting.columns import plain_text
from dure.runs.checkpoints import STATE_FILE
from dure.runs.lock import held
from dure.runs.manifest import write_manifest

from .made_runs import made_run

HITS = [1.0, 0.0]


def study(folder, end="completed"):
    """Write a study of two runs whose stream says how it ended, or nothing."""
    made_run(folder / "one", HITS, metrics={"eval_accuracy": 0.8})
    made_run(folder / "two", HITS, metrics={"eval_accuracy": 0.6})
    (folder / "study.yaml").write_text("kind: batch\nexperiments: [one, two]\n", encoding="utf-8")
    lines = [{"event": "study_started", "name": "s"}]
    if end is not None:
        lines.append({"event": "study_finished", "name": "s", "state": end, "seconds": 1.0})
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder


def checkpoint(run, step, best, *, is_own=True):
    """Write a checkpoint of 1,000 bytes, the best of which is another step."""
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    state = {"best_global_step": best, "global_step": step, "epoch": 1.0}
    (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    if is_own:
        write_manifest(folder)
    return folder


def test_runs_and_studies_are_listed_with_state_best_score_time_and_size(tmp_path):
    study(tmp_path / "s" / "1")
    study(tmp_path / "s" / "2", end=None)
    made_run(tmp_path / "alone" / "1", HITS)
    made_run(tmp_path / "broken" / "1", None, state="failed")
    cut = made_run(tmp_path / "cut" / "1", HITS)
    (cut / "result.json").unlink()
    found = {each.path.removeprefix(f"{tmp_path}/"): each for each in list_runs(tmp_path).entries}
    states = {path: (each.kind, each.state) for path, each in found.items()}
    assert states == {
        "s/1": ("batch", "completed"),
        "s/2": ("batch", "interrupted"),
        "alone/1": ("run", "completed"),
        "broken/1": ("run", "failed"),
        "cut/1": ("run", "interrupted"),
    }
    first = found["s/1"]
    assert (first.num_runs, first.metric, first.score, first.seconds) == (2, "eval_accuracy", 0.8, 20.0)
    assert first.num_bytes > 4000
    assert [each.path for each in list_runs(tmp_path, state="failed").entries] == [
        str(tmp_path / "broken" / "1")
    ]
    by_score = list_runs(tmp_path, sort="score").entries
    assert [each.score for each in by_score] == [0.8, 0.8, 0.7, None, None]
    assert [each.name for each in list_runs(tmp_path / "s" / "1", sort="name").entries] == ["one", "two"]
    with held(tmp_path / "s" / "2"):
        assert {each.state for each in list_runs(tmp_path / "s" / "2").entries} == {"running"}


def test_a_cross_validation_is_listed_by_its_mean_over_folds_and_a_study_as_the_best_of_its_runs(tmp_path):
    folds = tmp_path / "folds"
    for name, second in (("one", HITS), ("two", [1.0, 1.0])):
        for fold, hits in enumerate((HITS, second), start=1):
            run = folds / name / f"fold_{fold}"
            made_run(run, hits, name=f"{name}_{fold}", metrics={"eval_accuracy": 0.99})
    (folds / "study.yaml").write_text("kind: crossval\nexperiments: [one, two]\n", encoding="utf-8")
    [listed] = list_runs(tmp_path).entries
    assert (listed.kind, listed.num_runs, listed.score) == ("crossval", 4, 0.75)
    study(tmp_path / "batch")
    text = plain_text(listing_table(list_runs(tmp_path)))
    assert "accuracy 75.00 %, mean of folds" in text
    assert "accuracy 80.00 %, best of 2" in text


def test_a_unified_training_is_completed_once_its_results_stand_and_not_while_it_goes_on(tmp_path):
    made_run(tmp_path / "u", HITS)
    (tmp_path / "u" / "study.yaml").write_text(
        "kind: unified\nexperiment: red_heart_tiny\n", encoding="utf-8"
    )
    stream = tmp_path / "u" / "events.jsonl"
    stream.write_text('{"event": "finished", "state": "completed"}\n', encoding="utf-8")
    assert [each.state for each in list_runs(tmp_path).entries] == ["interrupted"]
    (tmp_path / "u" / "unified_results.json").write_text('{"state": "completed"}', encoding="utf-8")
    (found,) = list_runs(tmp_path).entries
    assert (found.kind, found.state) == ("unified", "completed")
    later = time.time() + 60
    os.utime(stream, (later, later))
    assert [each.state for each in list_runs(tmp_path).entries] == ["interrupted"]


def test_a_copy_has_the_date_of_its_run(tmp_path):
    run = made_run(tmp_path / "run", HITS)
    begun = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    (run / "events.jsonl").write_text(json.dumps({"at": begun.isoformat(), "event": "notice"}) + "\n")
    shown = begun.astimezone().strftime("%Y-%m-%d %H:%M")
    assert [each.date for each in list_runs(tmp_path).entries] == [shown]
    (run / "events.jsonl").write_text("{")
    assert [each.date for each in list_runs(tmp_path).entries] != [shown]


def test_five_hundred_runs_are_listed_within_seconds(tmp_path):
    first = made_run(tmp_path / "0", HITS)
    files = {file.name: file.read_bytes() for file in first.iterdir()}
    for number in range(1, 500):
        (tmp_path / str(number)).mkdir()
        for name, content in files.items():
            (tmp_path / str(number) / name).write_bytes(content)
    start = time.process_time()
    assert len(list_runs(tmp_path).entries) == 500
    assert time.process_time() - start < 5


def test_only_checkpoints_beside_the_best_of_finished_work_may_go(tmp_path):
    done = made_run(tmp_path / "done", HITS)
    spare, best, foreign = (
        checkpoint(done, 2, 4),
        checkpoint(done, 4, 4),
        checkpoint(done, 3, 4, is_own=False),
    )
    last = checkpoint(done, 6, 4)
    cut = made_run(tmp_path / "cut", HITS)
    checkpoint(cut, 2, 4), checkpoint(cut, 4, 4)
    (cut / "result.json").unlink()
    needed = study(tmp_path / "study", end="interrupted")
    checkpoint(needed / "one", 2, 4), checkpoint(needed / "one", 4, 4)
    (done / "notes.txt").write_text("mine", encoding="utf-8")
    assert clean(needed).removable == clean(needed / "one").removable == ()
    shown = clean(tmp_path)
    assert {each.path for each in shown.removable} == {str(spare), str(last)}
    assert shown.num_bytes == sum(each.num_bytes for each in shown.removable) > 2000
    assert spare.is_dir()
    assert not shown.is_removed
    assert clean(tmp_path, remove=True).is_removed
    assert not spare.exists()
    assert not last.exists()
    assert best.is_dir()
    assert foreign.is_dir()
    assert (done / "notes.txt").is_file()
    assert len(list(tmp_path.rglob("checkpoint-*"))) == 6
    assert clean(tmp_path).removable == ()


def test_what_a_working_process_holds_is_left_alone(tmp_path):
    done = made_run(tmp_path / "done", HITS)
    checkpoint(done, 2, 4), checkpoint(done, 4, 4)
    with held(done):
        assert clean(tmp_path, remove=True).removable == ()
    assert len(clean(tmp_path, remove=True).removable) == 1


def test_a_run_that_somebody_began_to_work_in_is_left_alone_and_all_others_are_cleaned(tmp_path):
    for name in ("a", "b"):
        done = made_run(tmp_path / name, HITS)
        checkpoint(done, 2, 4), checkpoint(done, 4, 4)
    (tmp_path / "a" / "inner").mkdir()
    code = "import sys, time; from pathlib import Path; from dure.runs.lock import held\nwith held(Path(sys.argv[1])):\n print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "a" / "inner"], stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        try:
            found = clean(tmp_path, remove=True)
        finally:
            other.kill()
    assert [each.path for each in found.removable] == [str(tmp_path / "b" / "checkpoint-2")]
    (said,) = found.left
    assert str(other.pid) in said
    assert (tmp_path / "a" / "checkpoint-2").is_dir()


def entry(cache, name, age_days, used_days):
    """Write a cached table that was written and last used so many days ago."""
    import pyarrow

    path = cache / "tables" / f"{name}.arrow"
    with written_entry(path, dict) as append:
        append(pyarrow.record_batch([pyarrow.array(["x" * 1000])], names=["text"]))
    now = time.time()
    for file in path.parent.glob(f"{name}-*.arrow"):
        os.utime(file, (now, now - age_days * 86_400))
    os.utime(path.with_suffix(".json"), (now, now - used_days * 86_400))
    return path


def test_cached_tables_go_that_were_never_used_again_or_are_too_much(tmp_path, monkeypatch):
    entry(tmp_path, "never", 20, 20)
    often = entry(tmp_path, "often", 20, 2)
    entry(tmp_path, "young", 1, 1)
    (tmp_path / "tables" / "mine.txt").write_text("mine", encoding="utf-8")
    (spare,) = spare_entries(tmp_path)
    assert "never used again since it was written 20 days ago" in spare.reason
    assert spare.files[0].stem == "never"
    monkeypatch.setenv("DURE_CACHE_MAX_GB", "2e-6")
    over = spare_entries(tmp_path)
    assert [each.files[0].stem for each in over] == ["never", "often"]
    assert "DURE_CACHE_MAX_GB" in over[1].reason
    forget(over[0])
    assert load_entry(often) is not None
    assert sorted({file.name.partition("-")[0] for file in (tmp_path / "tables").iterdir()}) == [
        "mine.txt",
        "often",
        "often.json",
        "young",
        "young.json",
    ]


def test_a_folder_that_is_not_there_is_no_empty_list(tmp_path):
    for verb in (list_runs, clean):
        with pytest.raises(UserError, match="no such folder"):
            verb(tmp_path / "none")


def test_before_anything_ran_there_is_nothing_to_list_and_nothing_that_may_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    assert list_runs().entries == ()
    assert clean().removable == ()
