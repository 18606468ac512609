"""Tables as they are passed around: every layout is read right, or refused with the remedy."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from dure.config.data import ReadingConfig
from dure.data.overlap import conflicting_texts, notes_on_rows, text_groups
from dure.data.sources import files_of
from dure.data.tables import Role, Table, read_table
from dure.data.writing import write_rows
from dure.errors import UserError
from tests.platform.small_disk import fill

ROLES = (
    Role("id", "id", required=False, is_id=True),
    Role("text", "text", is_input=True),
    Role("label", "label", is_class=True),
)
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
NFD = unicodedata.normalize("NFD", "가나다")


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read_content(content=None, name="train.csv", source=None, columns=None, **settings) -> Table:
        if content is not None:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        reading = ReadingConfig.model_validate(settings)
        return read_table(source or name, ROLES, columns or {}, cache_folder=Path("cache"), reading=reading)

    return read_content


def pairs(table: Table) -> list[tuple[str, str]]:
    return list(zip(table.dataset["text"][:], table.dataset["label"][:], strict=True))


def failure(read, *args, **settings) -> str:
    with pytest.raises(UserError) as caught:
        read(*args, **settings)
    return str(caught.value)


RAW = 'id\ttext\tlabel\n1\t"좋다 정말\t1\n2\t별로\t0\n3\t재미"\t1\n'
SOLD = "one long string of cliches\t0\nthis is one of the best films\t1\n"


KOREAN = "문장,분류\n" + "배송이 너무 늦어요… ㅠㅠ,불만\n언제 오나요?,문의\n" * 5
"""A table whose first line has hardly a letter of one byte."""
NAMED = KOREAN.replace("문장,분류", "text,label")


@pytest.mark.parametrize(
    ("name", "content", "settings", "rows", "told"),
    [
        # NSMC as it is passed around: a quote is a letter, and no row vanishes between two of them.
        ("ratings.txt", RAW, {}, [('"좋다 정말', "1"), ("별로", "0"), ('재미"', "1")], "without quoting"),
        ("ratings.tsv", RAW, {}, [('"좋다 정말', "1"), ("별로", "0"), ('재미"', "1")], "data.quoting=minimal"),
        ("plain.tsv", "text\tlabel\na\t0\nb\t1\n", {}, [("a", "0"), ("b", "1")], None),
        # One line of another size does not turn quotes on.
        (
            "ragged.tsv", RAW + "4\tx\n", {"on_bad_row": "skip"},
            [('"좋다 정말', "1"), ("별로", "0"), ('재미"', "1")], "wrong number of cells (row 4)",
        ),
        ("whole.tsv", 'text\tlabel\n"전부 인용"\t0\nb\t1\n', {}, [('"전부 인용"', "0"), ("b", "1")], "without"),
        ("pandas.tsv", 'text\tlabel\n"say ""hi"""\t0\nb\t1\n', {}, [('say "hi"', "0"), ("b", "1")], "out of them"),
        ("lines.tsv", 'text\tlabel\n"a\nb"\t0\nb\t1\n', {}, [("a\nb", "0"), ("b", "1")], "out of them"),
        ("tabs.tsv", 'text\tlabel\n"a\tb"\t0\nb\t1\n', {}, [("a\tb", "0"), ("b", "1")], "out of them"),
        ("all.tsv", '"text"\t"label"\n"a"\t"0"\n"b"\t"1"\n', {}, [("a", "0"), ("b", "1")], "out of them"),
        ("said.tsv", RAW.replace('재미"', "재미"), {"quoting": "none"},
         [('"좋다 정말', "1"), ("별로", "0"), ("재미", "1")], None),
        ("said.csv", 'text,label\n"a "b",0\nc,1\n', {"quoting": "none"}, [('"a "b"', "0"), ("c", "1")], None),
        # SST-2 as it is passed around: no line of column names.
        ("sst2.tsv", SOLD, {"header": False, "columns": {"text": "0", "label": "1"}},
         [("one long string of cliches", "0"), ("this is one of the best films", "1")], None),
        ("excel.csv", "text;label\na, b;0\nc;1\n", {}, [("a, b", "0"), ("c", "1")], "semicolons"),
        ("said_in.csv", "sep=;\ntext;label\na;0\nb;1\n", {}, [("a", "0"), ("b", "1")], None),
        ("tabbed.csv", "text\tlabel\na, b\t0\nc\t1\n", {}, [("a, b", "0"), ("c", "1")], "tabs"),
        ("array.json", '[{"text": "a", "label": 0},\n {"text": "b", "label": 1}]', {}, [("a", "0"), ("b", "1")], None),
        ("lines.json", '{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n', {}, [("a", "0"), ("b", "1")], None),
        ("cat.csv", "text,label\na,0\n\ufefftext,label\nb,1\n", {"on_bad_row": "skip"},
         [("a", "0"), ("b", "1")], "the column names once more (row 2)"),
        ("hidden.csv", "text,label\n\u200b\ufeff,0\nb,\u00ad\nc,1\n", {"on_bad_row": "skip"}, [("c", "1")], "is empty"),
        ("nfd.csv", f"text,label\n{NFD},0\nb,1\n", {}, [("가나다", "0"), ("b", "1")], "1 of 2 rows"),
        ("kept.csv", f"text,label\n{NFD},0\nb,1\n", {"normalize": "none"}, [(NFD, "0"), ("b", "1")], None),
        ("lost.csv", "text,label\n\ufffd\ufffd,0\nb,1\n", {}, [("\ufffd\ufffd", "0"), ("b", "1")], "1 of 2 rows hold U"),
        ("labels.csv", f"text,label\na,{NFD}\nb,1\n", {}, [("a", NFD), ("b", "1")], None),
        # Three sentences of one row, as AIHub has them.
        (
            "aihub.csv", "사람문장1,사람문장2,사람문장3,label\n가,나,,0\n다,nan,라,1\n",
            {"columns": {"text": ["사람문장1", "사람문장2", "사람문장3"]}}, [("가 나", "0"), ("다 라", "1")], None,
        ),
        ("joined.csv", "a,b,label\n가,나,0\n다,라,1\n", {"columns": {"text": ["b", "a"]}, "columns_separator": " / "},
         [("나 / 가", "0"), ("라 / 다", "1")], None),
        # Names of columns are compared in canonical form.
        ("spaced.csv", "text , label\na,0\nb,1\n", {}, [("a", "0"), ("b", "1")], None),
        ("wide.csv", "\u200btext,ｌａｂｅｌ\na,0\nb,1\n", {}, [("a", "0"), ("b", "1")], None),
        # A row may leave out what it has not; the columns are those of the first rows together.
        ("lacking.jsonl", '{"text": "a", "label": 0}\n{"id": "x", "text": "b", "label": 1}\n', {"on_bad_row": "skip"},
         [("b", "1")], "column 'id' is empty (row 1)"),
        ("lacks.jsonl", '{"text": "a"}\n{"text": "b", "label": 1}\n', {"on_bad_row": "skip"}, [("b", "1")], "row 1"),
        ("torn.jsonl", '{"text": "a"\n{"text": "b", "label": 1}\n', {"on_bad_row": "skip"}, [("b", "1")], "malformed"),
        ("lacks.json", '[{"text": "a"}, {"text": "b", "label": 1}]', {"on_bad_row": "skip"}, [("b", "1")], "row 1"),
        ("parts.jsonl", json.dumps({"text": "a", NFD: 0}), {"columns": {"label": "가나다"}}, [("a", "0")], None),
        ("exact.csv", "label, label,text\n0,9,a\n", {}, [("a", "0")], None),
        # What spreadsheets add: empty columns behind the last, line ends inside cells, a line that names the separator.
        ("behind.csv", "text,label,,\na,0,,\nb,1,,\n", {}, [("a", "0"), ("b", "1")], None),
        ("inside.csv", 'text,label\r\n"a\r\nb",0\r\nc,1\r\n', {}, [("a\r\nb", "0"), ("c", "1")], None),
        ("mac.csv", "text,label\ra,0\rb,1\r", {}, [("a", "0"), ("b", "1")], None),
        ("comma.csv", "sep=,\r\ntext,label\r\na,0\r\n", {}, [("a", "0")], None),
        ("above.csv", " \t\n,,\ntext,label\na,0\n   \nb,1\n  \n", {}, [("a", "0"), ("b", "1")], None),
        ("wide16.csv", "text,label\na,0\n".encode("utf-16"), {"encoding": "utf-16"}, [("a", "0")], None),
        ("thousands.csv", 'text,label\na,"1,000"\nb,"2,000"\n', {}, [("a", "1,000"), ("b", "2,000")], None),
        # Words, not missing values.
        ("words.csv", "text,label\nNone,NA\nnull,None\n", {}, [("None", "NA"), ("null", "None")], None),
    ],
)  # fmt: skip
def test_a_layout_is_read_right_and_told(read, name, content, settings, rows, told) -> None:
    for _ in range(2):  # the second time from the cache
        table = read(content, name, **settings)
        assert pairs(table) == rows
        messages = "\n".join(table.messages())
        assert messages == "" if told is None else told in messages


@pytest.mark.parametrize(
    ("name", "content", "settings", "problem", "remedy"),
    [
        ("cat.csv", "text,label\na,0\ntext,label\nb,1\n", {}, "row 2 (line 3): the row repeats the column names",
         "data.train=[a.csv, b.csv]"),
        ("sst2.tsv", SOLD, {}, "there is no column 'text'", "data.header=false"),
        ("sst2.tsv", SOLD, {}, "one long string of cliches, 0", "data.columns.text=0 data.columns.label=1"),
        ("sst2.tsv", SOLD, {"header": False}, "one of its columns: 0, 1", "data.columns.text=0"),
        ("hidden.csv", "text,label\n\u200b\ufeff,0\n", {}, "holds nothing but what cannot be seen", "correct the row"),
        ("bad.json", '{"data": [\n{"text": "a"}]}', {}, "an array of JSON objects, or one object a line", "orient="),
        ("cut.json", '[{"text": "a", "label": 0},\n{"text": "b"', {}, "cut.json, line 2: row 2 is no JSON", "correct"),
        ("more.json", '[{"text": "a", "label": 0}] x', {}, "goes on behind the end of the array", "correct"),
        ("twice.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": 0, "label": 1}\n', {},
         "row 2 (line 2): the key 'label' stands twice", "skip"),
        ("first.jsonl", '{"text": "a"\n{"text": "b", "label": 1}\n', {}, "row 1 (line 1): the line is no JSON", "skip"),
        ("lack.jsonl", '{"text": "a"}\n{"text": "b", "label": 1}\n', {}, "the row has no 'label'", "skip"),
        ("part.csv.gzip", "x", {}, "'.gzip' cannot be read", "gzip -dk part.csv.gzip unpacks"),
        ("value.json", '[{"text": "a", "label": 0}, 3]', {}, "row 2 (line 1): the row is no JSON object", "skip"),
        ("none.json", "[]", {}, "there are no rows", ""),
        ("array.jsonl", '[\n{"text": "a"}]', {}, "row 1 (line 1)", "called .json"),
        ("lines.jsonl", '{"text": "a", "label": 0}\n', {"header": False}, "names of their own", ""),
        ("quoted.csv", 'text,label\n"a "b",0\n', {}, "its cell goes on after that", "data.quoting=none"),
        ("spark.csv", 'text,label\n"say \\"hi\\", now",0\nb,1\n', {}, "its cell goes on after that",
         "pandas.read_csv(\"spark.csv\", sep=\",\", escapechar=chr(92)).to_parquet(\"spark.parquet\")'"),
        ("open.csv", '"a,0\n', {"header": False}, "open.csv, row 1 (line 1)", "data.quoting=none"),
        ("ids.csv", "id,text,label\n1,a,0\n\u200b1 ,b,0\n", {}, "repeats the id '\u200b1 ' of row 1",
         "data.columns.id=NAME reads another column of ids, and none where no column is called so"),
        ("packed.csv.gz", "x", {}, "'.gz' cannot be read", "gzip -dk packed.csv.gz unpacks"),
        ("t.feather", "x", {}, "'.feather' cannot", "pandas.read_feather(\"t.feather\").to_parquet(\"t.parquet\")'"),
        ("t.arrow", "x", {}, "'.arrow' cannot", "datasets.Dataset.from_file(\"t.arrow\").to_parquet(\"t.parquet\")'"),
        ("t.pkl", "x", {}, "'.pkl' cannot", "write a table of it as .parquet or .csv"),
        ("by_column.json", '{"text": {"0": "a"}, "label": {"0": 1}}', {}, "holds columns, not rows (text, label)",
         "pandas.read_json(\"by_column.json\", dtype=False).to_parquet(\"by_column.parquet\")'"),
        ("inside.json", '{"data": [{"text": "a", "label": 0}]}', {}, "holds lists of rows (data)",
         "jq '.data' inside.json > data.json"),
        ("joined.csv", "text,label\n가나,0\n".encode() + "가나,1\n".encode("cp949"), {}, "line 3: byte",
         "one by one, as in data.train=[a.csv, b.csv]"),
        ("title.csv", f"{'긴 ' * 90},label\na,0\n", {}, f"one of its columns: {('긴 ' * 90)[:40]}…, label", ""),
        ("old.xls", "x", {}, "'.xls' cannot be read", "save it as .xlsx or .csv"),
        ("title.csv", "# reviews of 2026\ntext,label\na,0\n", {}, "no column 'text'", "remove what stands above"),
        ("titled.csv", "영화 리뷰,,\nid,text,label\n1,a,0\n", {}, "no column 'text'", "remove what stands above"),
        ("zstd.csv", b"(\xb5/\xfd\x00", {}, "packed by zstd", "unpack it first"),
        ("lfs.csv", "version https://git-lfs.github.com/spec/v1\noid x\n", {}, "a pointer of Git LFS", "git lfs pull"),
        ("noext", "x", {}, "its name has no suffix", "rename it, such as to noext.csv"),
        ("table.csv ", "x", {}, "the suffix '.csv ' cannot be read", "such as to table.csv,"),
        ("old.csv.bak", "x", {}, "the suffix '.bak' cannot be read", "rename it, such as to old.csv,"),
        ("wide32.csv", "text,label\na,0\n".encode("utf-32"), {}, "the file is UTF-32", "data.encoding=utf-32"),
        ("le.csv", "text,label\n가,0\n".encode("utf-16-le"), {}, "UTF-16-LE", "data.encoding=utf-16-le"),
        ("be.csv", "text,label\n가,0\n".encode("utf-16-be"), {}, "UTF-16-BE", "data.encoding=utf-16-be"),
        ("korean_le.csv", KOREAN.encode("utf-16-le"), {}, "UTF-16-LE", "data.encoding=utf-16-le"),
        ("korean_be.csv", KOREAN.encode("utf-16-be"), {}, "UTF-16-BE", "data.encoding=utf-16-be"),
        ("korean_32.csv", KOREAN.encode("utf-32-le"), {}, "UTF-32-LE", "data.encoding=utf-32-le"),
        ("nul_949.csv", NAMED.encode("cp949") + b"\xb0\xa1\0\xb0\xa1,0\n", {}, "NUL byte", "damaged"),
        ("nul_8.csv", NAMED.encode() + "가\0가,0\n".encode(), {}, "NUL byte", "damaged"),
        ("parquet.csv", b"PAR1xx", {}, "a Parquet table", "name it .parquet"),
        ("old.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", {}, "an old workbook", "save it as .xlsx or .csv"),
        ("page.csv", "<!DOCTYPE html><html>", {}, "a page of the web", "download the file"),
        ("comma.csv", "text,label\na,0,\n", {}, "the row has 3 cells, but the table has 2 columns", "skip"),
        ("twice.csv", " label,label ,text\n0,1,a\n", {}, "no column 'label'", "names the column"),
        ("near.csv", "text1,b\na,0\n", {"columns": {"text": "text1", "label": "text2"}}, "'text2'", "label=COLUMN"),
        ("two.csv", "text,label\na,0\n", {"columns": {"label": ["label", "text"]}}, "one column", ""),
        ("two.csv", "text,label\na,0\n", {"columns": {"text": ["text", "text"]}}, "named twice", ""),
        ("two.csv", "text,label\na,0\n", {"columns": {"text": ["text", "other"]}}, "no column 'other'", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_remedy(
    read, name, content, settings, problem, remedy
) -> None:
    message = failure(read, content, name, **settings)
    assert problem in message
    assert remedy in message


def test_a_header_line_that_looks_like_a_row_is_only_suspected_where_no_name_is_near(read) -> None:
    message = failure(read, "texts,label of every row in it\na,0\n")
    assert "data.columns.text=texts" in message


def test_names_of_files_patterns_folders_and_home_are_found(read, tmp_path, monkeypatch) -> None:
    a, b = Path("a.csv"), Path("b.csv")
    a.write_text("text,label\na,0\n")
    b.write_text("label;text\n1;b\n")
    assert pairs(read(source="*.csv")) == pairs(read(source=["a.csv", "b.csv"])) == [("a", "0"), ("b", "1")]
    assert pairs(read(source=["b.csv", "a.csv"])) == [("b", "1"), ("a", "0")]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pairs(read(source="~/a.csv")) == [("a", "0")]
    named = Path(unicodedata.normalize("NFD", "감정"), unicodedata.normalize("NFD", "분류.csv"))
    named.parent.mkdir()
    named.write_text("text,label\na,0\n")
    assert files_of("감정/분류.csv") == files_of("감*/분*.csv") == files_of("**/분류*") == [named]
    for source, problem in {
        "c*.csv": "no file matches",
        "없다.csv": "no such file",
        "hf://datasets/e9t/nsmc/a.csv": "hf download e9t/nsmc --repo-type dataset",
        "https://example.com/a.csv?x=1": r"curl -LO 'https://example.com/a.csv\?x=1'",
        "s3://bucket/data/a.csv": "name the copy: a.csv",
        f"file://{tmp_path}/a.csv": f"try: {tmp_path}/a.csv",
    }.items():
        with pytest.raises(UserError, match=problem):
            files_of(source)
    Path("led.csv").symlink_to("away.csv")
    with pytest.raises(
        UserError,
        match=r"led.csv: this is a link to 'away.csv', which is not there(?s:.*)name the file itself",
    ):
        files_of("led.csv")
    with pytest.raises(UserError, match="named twice"):
        files_of(["a.csv", "./a.csv"])
    with pytest.raises(UserError, match=r"this is a folder(?s:.*)\*\.csv"):
        files_of(str(tmp_path))


def test_a_bad_row_of_several_files_is_named_with_its_file(read) -> None:
    Path("a.csv").write_text("id,text,label\n1,a,0\n")
    Path("b.csv").write_text("id,text,label\n2,,0\n1,b,1\n3,c,1\n")
    assert "b.csv, row 1 (line 2): column 'text' is empty" in failure(read, source="*.csv")
    table = read(source=["a.csv", "b.csv"], on_bad_row="skip")
    assert [table.place(row) for row in range(2)] == ["row 1 of a.csv", "row 3 of b.csv"]
    assert table.messages() == [
        "a.csv, b.csv (2 files): 1 row skipped: column 'text' is empty (row 1 of b.csv)",
        "a.csv, b.csv (2 files): 1 row skipped: column 'id' repeats an id (row 2 of b.csv)",
    ]
    assert "repeats the id '1' of row 1 of a.csv" in failure(
        read, content="id,text,label\n1,b,1\n", name="c.csv", source=["a.csv", "c.csv"]
    )


def test_folders_of_parquet_and_of_save_to_disk_are_tables(read) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    Path("parts").mkdir()
    for name in "xy":
        rows.to_parquet(f"parts/{name}.parquet")
    assert pairs(read(source="parts")) == [("a", "0"), ("b", "1")] * 2
    Path("parts/more.csv").write_text("text,label\nc,0\n")
    assert "try: parts/**/*.parquet or parts/*.csv" in failure(read, source="parts")
    Path("parts/more.csv").unlink()
    Path("parts/x.parquet").rename("parts/train-0.parquet")
    Path("parts/y.parquet").rename("parts/test-0.parquet")
    assert "parts/**/train*.parquet" in failure(read, source="parts")
    assert pairs(read(source="parts/**/train*.parquet")) == [("a", "0"), ("b", "1")]
    rows.save_to_disk("saved", num_shards=2)
    assert pairs(read(source="saved")) == [("a", "0"), ("b", "1")]
    datasets.DatasetDict({"train": rows, "dev": rows}).save_to_disk("both")
    assert "both/dev or both/train" in failure(read, source="both")
    state = Path("saved/state.json")
    for number, file in enumerate(sorted(Path("saved").glob("*.arrow"))):
        file.rename(f"saved/part-{number}.arrows")
        state.write_text(state.read_text().replace(file.name, f"part-{number}.arrows"))
    assert pairs(read(source="saved")) == [("a", "0"), ("b", "1")], "as its record names its files"
    next(Path("saved").glob("*.arrows")).unlink()
    assert "is not whole" in failure(read, source="saved")


def test_a_partitioned_folder_is_one_split_and_names_the_column_that_its_folders_hold(read) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    for split in ("train", "test"):
        for label in "01":
            folder = Path(f"parts/split={split}/label={label}")
            folder.mkdir(parents=True)
            rows.to_parquet(folder / "0.parquet")
    assert "parts/split=test or parts/split=train" in failure(read, source="parts")
    said = failure(read, source="parts/split=train")
    pandas.read_parquet("parts/split=train").to_parquet("split=train.parquet")
    assert "pandas.read_parquet('parts/split=train').to_parquet('split=train.parquet')" in said
    assert pairs(read(source="split=train.parquet")) == [("a", "0"), ("b", "0"), ("a", "1"), ("b", "1")]


def test_a_workbook_is_read_or_told_how_it_can_be(read, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install openpyxl" in failure(read, b"x", "table.xlsx")


def test_the_first_sheet_of_a_workbook_is_a_table(read) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["a", 1.0], [None, None], [12, 0], ["text", "label"]):
        book.active.append(row)
    book.create_sheet("other")
    book.save("table.xlsx")
    table = read(name="table.xlsx", on_bad_row="skip")
    assert pairs(table) == [("a", "1"), ("12", "0")]
    assert "only its first sheet" in table.messages()[0]
    assert "the column names once more (row 3)" in table.messages()[1]
    assert "cannot be read" in failure(read, b"junk", "junk.xlsx")


def test_a_workbook_that_the_disk_does_not_take_is_told_once_and_leaves_the_old_one(
    small_disk, monkeypatch
) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    old = small_disk(2) / "old.xlsx"
    old.write_text("as it was")
    fill(old.parent, 65_536)
    with pytest.raises(OSError, match=r"old\.xlsx"):
        write_rows(old, ["text"], ([os.urandom(60).hex()] for _ in range(2_000)))
    gc.collect()
    assert dropped == []
    assert old.read_text() == "as it was"
    assert sorted(each.name for each in old.parent.iterdir()) == ["filler", "old.xlsx"]


def test_a_workbook_with_failed_formulas_and_an_empty_first_sheet_is_told(read) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label"], ["a", 0], ["b", "#DIV/0!"], ["c", "#N/A"], ["d", 1]):
        book.active.append(row)
    book.save("failed.xlsx")
    assert pairs(read(name="failed.xlsx", on_bad_row="skip")) == [("a", "0"), ("d", "1")]
    book.create_sheet("first", 0)
    book.save("second.xlsx")
    assert "its first sheet, 'first', is empty" in failure(read, name="second.xlsx")


def test_short_numbers_are_read_as_they_were_written(read) -> None:
    labels = pyarrow.array([0.1, 2.0, None, 0.1], pyarrow.float32())
    rows = pyarrow.table({"text": ["a", "b", "c", "d"], "label": labels})
    pyarrow.parquet.write_table(rows, "short.parquet")
    table = read(name="short.parquet", on_bad_row="skip")
    assert pairs(table) == [("a", "0.1"), ("b", "2"), ("d", "0.1")]


def test_an_array_is_read_piece_by_piece_and_its_lines_are_counted(read) -> None:
    rows = [{"text": f"{row} " + "가" * 300, "label": row % 2} for row in range(900)]
    content = json.dumps(rows, ensure_ascii=False, indent=1)
    assert pairs(read(content, "rows.json")) == [(row["text"], str(row["label"])) for row in rows]
    one_line = json.dumps([*rows, {"text": "", "label": 1}], ensure_ascii=False)
    assert "row 901 (line 1): column 'text' is empty" in failure(read, one_line, "rows.json")
    indented = json.dumps([*rows, {"text": "", "label": 1}], indent=1)
    assert f"row 901 (line {4 * 900 + 2}): " in failure(read, indented, "rows.json")


def test_copies_that_differ_in_what_cannot_be_seen_are_one_text(read) -> None:
    texts = [
        "좋다 정말",
        "좋다\u200b 정말",
        unicodedata.normalize("NFD", "좋다  정말"),
        "\ufeff좋다 정말",
        "나쁘다",
    ]
    table = read("text,label\n" + "".join(f"{text},1\n" for text in texts), normalize="none")
    assert len({*text_groups(table, ["text"])[:4]}) == 1
    assert len({*text_groups(table, ["text"])}) == 2


def test_texts_with_two_labels_and_test_rows_that_chose_the_checkpoint_are_told(read) -> None:
    train = read("text,label\na,0\nb,1\nA ,1.0\nb,1.0\n")
    assert conflicting_texts(train, ["text"], ["label"]).tolist() == [0]
    dev = read("text,label\nx,0\ny,1\n", "dev.csv")
    test = read("text,label\nX,0\ny,1\nz,0\n", "test.csv")
    told = notes_on_rows({"train": train, "dev": dev, "test": test}, ROLES)
    assert told == [
        "train.csv: 1 text stands in rows of different label, which no model can get right; first: row 1",
        "test.csv: 2 of 3 test rows have a text that stands in dev.csv too, which chooses the checkpoint: the score on "
        "them flatters",
    ]
    same = notes_on_rows({"dev": dev, "test": dev}, ROLES)
    assert same[0].startswith("dev.csv: all 2 test rows have a text that stands in dev.csv too")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["Positive", "positive"], "'Positive' and 'positive' are classes of their own"),
        (["매우 좋음", "매우좋음", "나쁨"], "'매우 좋음' and '매우좋음' are"),
        (["“긍정”", "긍정", "부정."], "'“긍정”' and '긍정' are"),
        (["㈜", "(주)"], "'㈜' and '(주)' are"),
        (["1.0", "1", "version 1"], "'1.0' and '1' are"),
        (["A+", "A-", "-1", "1", "C", "C++"], None),
        ([f"kind {row}" for row in range(7)], "7 classes in 12 rows, so most have a single row"),
    ],
)
def test_classes_that_look_like_a_mistake_are_told(read, labels, told) -> None:
    rows = "".join(f"text {row},{labels[row % len(labels)]}\n" for row in range(12))
    notes = notes_on_rows({"train": read(f"text,label\n{rows}")}, ROLES)
    assert len(notes) == (told is not None)
    assert told is None or told in notes[0]


def parquet(path: str, text: pyarrow.Array, **settings) -> None:
    table = pyarrow.table({"text": text, "label": ["0"] * len(text)})
    pyarrow.parquet.write_table(table, path, compression="zstd", **settings)


@pytest.mark.heavy
def test_a_small_file_that_grows_beyond_any_text_is_refused_before_it_is_read(read, tmp_path) -> None:
    parquet("bomb.parquet", pyarrow.array(["a" * 70_000_000]), use_dictionary=False)
    assert Path("bomb.parquet").stat().st_size < 10_000
    message = failure(read, name="bomb.parquet")
    assert "column 'text' grows from" in message
    assert "cells of at most 16,777,216 characters" in message


def test_damaged_metadata_of_a_column_are_an_error_and_not_the_end_of_the_process(read) -> None:
    parquet("damaged.parquet", pyarrow.array(["good", "bad"]))
    content = bytearray(Path("damaged.parquet").read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in (place for place in range(footer, len(content) - 8) if content[place] == 2):
        damaged = bytearray(content)
        damaged[place] ^= 1
        Path("damaged.parquet").write_bytes(damaged)
        with suppress(UserError):
            read(name="damaged.parquet")


@pytest.mark.slow
def test_many_rows_that_pack_more_than_any_text_are_refused_before_they_are_read(read) -> None:
    texts = pyarrow.array(["a" * 10_000_000] * 30)
    parquet("bomb.parquet", texts, use_dictionary=False)
    assert "column 'text' grows from" in failure(read, name="bomb.parquet")


MEASURE = """
import resource, sys
from pathlib import Path
from dure.data.columnar import ParquetSource
import pyarrow.parquet, pyarrow.compute
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
letters = sum(len(record.cells["text"]) for record in ParquetSource(Path(sys.argv[1])).records(["text"]))
print(letters, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="reads its own memory in KiB")
def test_a_long_text_that_many_rows_share_is_in_memory_once(read) -> None:
    indices = pyarrow.array([0] * 1000, pyarrow.int32())
    parquet("shared.parquet", pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["가" * 500_000])))
    assert Path("shared.parquet").stat().st_size < 5000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "shared.parquet"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "platform")},
    )
    letters, grown_mib = map(int, done.stdout.split())
    assert letters == 500_000_000
    assert grown_mib < 64  # unpacked it is 1.5 GB


@pytest.mark.parametrize("name", ["long.jsonl", "long.parquet", "long.json"])
def test_a_cell_that_is_too_long_is_a_bad_row_in_every_format(read, name) -> None:
    rows = [{"text": "a", "label": "0"}, {"text": "b" * ((1 << 24) + 1), "label": "1"}]
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), name)
        content = None
    else:
        content = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    assert "row 2" in (message := failure(read, content, name))
    assert "longer than 16,777,216 characters" in message


def test_nsmc_in_its_own_layout_is_read_from_the_raw_file(read) -> None:
    import csv

    source = SHARED / "nsmc" / "train_small.csv"
    if not source.exists():
        pytest.skip("shared/data is not here")
    with source.open(encoding="utf-8", newline="") as file:
        rows = [(row["id"], row["text"], row["label"]) for row in csv.DictReader(file)]
    raw = "id\tdocument\tlabel\n" + "".join("\t".join(row) + "\n" for row in rows)
    table = read(raw, "ratings_train.txt", columns={"text": "document"})
    assert table.dataset["text"][:] == [text for _, text, _ in rows]
    assert table.num_rows == 8000
    assert sum(text.startswith('"') for text in table.dataset["text"]) == 6


@pytest.mark.parametrize("split", ["train", "dev"])
def test_sst2_without_its_header_is_read_by_position(read, split) -> None:
    source = SHARED / "sst2" / f"{split}.tsv"
    if not source.exists():
        pytest.skip("shared/data is not here")
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    content = "".join(lines[1:])
    assert "data.header=false" in failure(read, content, f"{split}.tsv")
    table = read(content, f"{split}.tsv", columns={"text": "0", "label": "1"}, header=False)
    assert table.num_rows == len(lines) - 1
