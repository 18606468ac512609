"""Reading rows: every form of a target, what is told, and that nothing is made up."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.config.data import ReadingConfig
from dure.data.tables import read_table
from dure.errors import UserError
from trainables.red_heart.data import SharesReader, roles_of, targets_of, uneven_sums
from trainables.red_heart.tasks import BENTHAM, EMOTIONS

ROLES = roles_of(EMOTIONS, BENTHAM)
SIZES = {"emotion": 7, "bentham": 10, "regret": 1, "surd": 4}
FEAR = [0.0, 0.1, 0.0, 0.7, 0.2, 0.0, 0.0]


def table_of(rows, folder, name="train.jsonl", **options):
    path = folder / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return read_table(path, ROLES, {}, cache_folder=folder / "cache", reading=ReadingConfig(**options))


def targets(table):
    rows = table.dataset[:]
    return targets_of(rows, SIZES, table.num_rows)


def test_emotions_are_read_as_list_object_or_name_and_none_collapses_to_the_first_class(tmp_path):
    forms = [FEAR, {"fear": 0.7, "surprise": 0.2, "Sadness": 0.1}, "fear", '"FEAR"', json.dumps(FEAR)]
    table = table_of([{"text": f"t{place}", "emotions": form} for place, form in enumerate(forms)], tmp_path)
    shares = targets(table)[:, :7]
    for row in (0, 1, 4):
        assert shares[row] == pytest.approx(FEAR)
    for row in (2, 3):
        assert shares[row].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert table.dataset["leading_emotion"][:] == ["fear"] * 5


@given(st.lists(st.floats(0.01, 1), min_size=7, max_size=7, unique=True))
def test_a_list_leads_where_its_largest_number_stands(values):
    cell = SharesReader(EMOTIONS, may_name_one=True).read(json.dumps(values))
    shares = targets_of({"emotions": [cell]}, SIZES, 1)[0, :7]
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert shares.argmax() == int(np.argmax(np.float32(values)))


def test_emotions_of_equal_strength_are_shared_and_lead_to_no_class(tmp_path):
    table = table_of(
        [{"text": "a", "emotions": [1, 1, 0, 0, 0, 0, 0]}, {"text": "b", "emotions": "joy"}], tmp_path
    )
    assert targets(table)[0, :2].tolist() == [0.5, 0.5]
    assert table.dataset["leading_emotion"][:] == ["", "joy"]


def test_what_a_row_lacks_is_missing_and_never_a_constant(tmp_path):
    rows = [
        {"text": "a", "emotions": "joy", "bentham_scores": {"purity": 0.3, "extent": None}},
        {"text": "b", "bentham_scores": [None] * 10, "regret_factor": None, "surd_metrics": None},
        {"text": "c", "regret_factor": -1.5, "surd_metrics": [0.1, 0.2, 0.3, 0.4]},
    ]
    read = targets(table_of(rows, tmp_path))
    is_real = ~np.isnan(read)
    assert is_real.sum(axis=1).tolist() == [8, 0, 5]
    assert read[0, 7 + BENTHAM.index("purity")] == np.float32(0.3)
    assert read[2, 17] == -1.5
    assert read[2, 18:].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_parts_that_do_not_sum_to_one_are_shares_of_their_sum_and_counted(tmp_path):
    rows = [
        {"text": "a", "surd_metrics": {"synergy": 40, "unique": 20, "redundant": 20, "deterministic": 20}},
        {"text": "b", "surd_metrics": [0.4, 0.2, 0.2, 0.2]},
    ]
    table = table_of(rows, tmp_path)
    assert targets(table)[0, 18:] == pytest.approx(targets(table)[1, 18:])
    assert uneven_sums(table.dataset["surd_metrics"][:]) == 1


UNUSABLE = [
    ("emotions", [0.1, 0.9], "holds a list of 2", "7 numbers from 0"),
    ("emotions", [0] * 7, "holds nothing but zeros", "not all 0"),
    ("emotions", {"joy": -0.5, "fear": 1}, "holds -0.5 for joy", "from 0"),
    ("emotions", {"joyy": 1}, "unknown name 'joyy' (is joy meant?)", "joy, sadness"),
    ("emotions", "happy", "unknown name 'happy'", "one of these names"),
    ("emotions", {"joy": "high"}, 'holds "high"', "7 numbers"),
    ("emotions", 3, "holds 3", "7 numbers"),
    ("emotions", {"joy": 1, "JOY": 2}, "names a value twice", "7 numbers"),
    ("bentham_scores", [0.5] * 7, "holds a list of 7", "10 numbers from 0 to 1"),
    ("bentham_scores", {"purity": 1.2}, "holds 1.2 for purity", "from 0 to 1"),
    ("bentham_scores", [True] * 10, "holds true", "10 numbers"),
    ("regret_factor", "much", "holds 'much'", "a number"),
    ("regret_factor", [0.5], "holds [0.5]", "a number"),
    ("surd_metrics", {"synergy": 1}, "holds nothing for unique", "4 numbers"),
    ("surd_metrics", "synergy", "holds 'synergy'", "4 numbers"),
    ("label", "AUTHORS", "holds 'AUTHORS'", "AUTHOR, EVERYBODY"),
]


@pytest.mark.parametrize(("column", "value", "problem", "expected"), UNUSABLE)
def test_an_unusable_value_is_told_with_its_line_and_what_was_expected(
    column, value, problem, expected, tmp_path
):
    rows = [{"text": "good", "emotions": "joy"}, {"text": "bad", column: value}]
    with pytest.raises(UserError) as caught:
        table_of(rows, tmp_path)
    assert f"column '{column}'" in caught.value.problem
    assert problem in caught.value.problem
    assert expected in caught.value.expected
    assert "row 2 (line 2)" in caught.value.where


def test_rows_with_unusable_values_can_be_skipped_and_are_counted(tmp_path):
    rows = [{"text": "good", "emotions": "joy"}, {"text": "bad", "emotions": "happy"}]
    table = table_of(rows, tmp_path, on_bad_row="skip")
    assert table.num_rows == 1
    assert "1 row skipped: column 'emotions' holds what cannot be used (row 2)" in table.messages()[-1]


def test_parquet_says_the_same_as_json_lines(tmp_path):
    rows = [
        {
            "text": "a",
            "emotions": {"joy": 0.25, "fear": 0.75},
            "bentham_scores": [0.125] * 10,
            "regret_factor": 0.5,
        },
        {"text": "b", "emotions": {"joy": 1.0, "fear": None}, "bentham_scores": None, "regret_factor": None},
    ]
    lines, parquet = (targets(table_of(rows, tmp_path, name)) for name in ("a.jsonl", "a.parquet"))
    np.testing.assert_array_equal(lines, parquet)


def test_other_columns_of_the_emotions_are_found_by_one_option(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "feel": "joy"}\n', encoding="utf-8")
    table = read_table(path, ROLES, {"emotions": "feel"}, cache_folder=tmp_path / "cache")
    assert table.dataset["leading_emotion"][:] == ["joy"]
    with pytest.raises(UserError, match="no role 'leading_emotion'"):
        read_table(path, ROLES, {"leading_emotion": "feel"}, cache_folder=tmp_path / "cache")
