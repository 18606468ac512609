"""A wrong table is named once, before a study starts, and not by every one of its trials."""

from __future__ import annotations

import pytest

from .conftest import call

TABLES = {
    "unclosed": ('text,label\n"good,1\nbad,0\n', "never closed"),
    "no_column": ("body,label\ngood,1\nbad,0\n", "there is no column 'text'"),
    "empty_cell": ("text,label\ngood,\nbad,0\n", "row 1"),
}


@pytest.mark.parametrize("verb", ["crossval", "progressive", "sweep", "batch"])
@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_ends_a_study_before_it_starts(verb, name, tmp_path):
    text, said = TABLES[name]
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    what = "transfer" if verb == "batch" else "transfer_bert"
    outcome = call(verb, what, "--rehearse", "data.train=rows.csv", "data.dev=null")
    assert outcome.code == 2
    assert "rows.csv" in outcome.err
    assert said in outcome.err
    assert outcome.err.count(said) == 1
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "outputs").exists()


def test_too_few_rows_for_the_folds_are_told_before_anything_starts(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\ngood,1\nbad,0\n", encoding="utf-8")
    outcome = call("crossval", "transfer_bert", "--rehearse", "data.train=rows.csv", "data.dev=null")
    assert outcome.code == 2
    assert "rows.csv" in outcome.err
