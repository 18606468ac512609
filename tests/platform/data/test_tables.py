import codecs
import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from threading import Event, Thread

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from dure.config.data import ReadingConfig
from dure.data.tables import Role, Table, draw_rows, read_table, table_from_rows
from dure.errors import UserError
from dure.family import Role as FamilyRole

ROLES = (
    Role("id", "fname", is_id=True),
    Role("text", "dialogue", is_input=True),
    Role("target", "summary"),
    Role("topic", "topic", required=False),
)
HEADER = "fname,dialogue,summary\n"
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"

korean = st.text(
    st.one_of(
        st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
        st.sampled_from(' ,"\n\t#:1.가나e?!😀\u1112\u1161'),
    ),
    min_size=1,
    max_size=40,
).filter(lambda text: text.strip())


@pytest.fixture
def read(tmp_path):
    def read_content(content, name="train.csv", roles=ROLES, columns=None, **options) -> Table:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return read_table(path, roles, columns or {}, cache_folder=tmp_path / "cache", **reading(options))

    return read_content


def reading(options) -> dict:
    """Put the settings of how a table is read together."""
    prediction = {key: options.pop(key) for key in ("for_prediction",) if key in options}
    return {**prediction, "reading": ReadingConfig.model_construct(**options)}


def failure(read, content, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(content, *args, **options)
    return str(caught.value)


def rows_of(table: Table) -> list[dict[str, str]]:
    return table.dataset.to_list()


def test_the_role_of_the_family_contract_is_this_one():
    assert FamilyRole is Role


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "train.ndjson", "train.PARQUET"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(korean, min_size=1, max_size=6))
def test_every_format_gives_the_text_back_that_was_written(tmp_path, name, texts):
    rows = [{"fname": f"r{i}", "dialogue": text, "summary": text[::-1]} for i, text in enumerate(texts)]
    path = tmp_path / name
    if name.endswith("sv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if name.endswith("csv") else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith("PARQUET"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8", newline=""
        )
    table = read_table(path, ROLES, {}, cache_folder=tmp_path / "cache")
    assert rows_of(table) == [
        {
            "id": row["fname"],
            # Turned around, a text may hold a syllable in parts, which is read as the syllable.
            "text": unicodedata.normalize("NFC", row["dialogue"]),
            "target": unicodedata.normalize("NFC", row["summary"]),
        }
        for row in rows
    ]
    # Of a table with tabs it is told what quotes in it were taken for.
    assert [each for each in table.messages() if "data.quoting" not in each] == []


def test_rows_are_memory_mapped(read):
    table = read(HEADER + "a,b,c\n")
    assert table.dataset.cache_files[0]["filename"].endswith(".arrow")


def test_a_second_read_does_not_parse(read, monkeypatch):
    first = read(HEADER + "a,b,c\n")
    monkeypatch.setattr(csv, "reader", None)
    again = read(HEADER + "a,b,c\n", name="copy.csv")
    assert again.fingerprint == first.fingerprint
    assert rows_of(again) == rows_of(first)
    assert again.source.endswith("copy.csv")


def test_the_fingerprint_follows_content_and_settings(read):
    content = HEADER + "a,b,c\n"
    prints = {
        read(content).fingerprint,
        read(content + "d,e,f\n").fingerprint,
        read(content, columns={"text": "summary", "target": "dialogue"}).fingerprint,
        read(content, for_prediction=True).fingerprint,
        read(content, on_bad_row="skip").fingerprint,
        read(content, encoding="cp949").fingerprint,
    }
    assert len(prints) == 6


@pytest.mark.parametrize("damage", ["cut", "garbage", "no facts", "torn facts", "other facts"])
def test_a_broken_cache_file_is_built_again(read, tmp_path, damage):
    content = HEADER + "a,b,c\n"
    first = rows_of(read(content))
    (arrow,) = (tmp_path / "cache" / "tables").glob("*.arrow")
    (facts,) = (tmp_path / "cache" / "tables").glob("*.json")
    match damage:
        case "cut":
            arrow.write_bytes(arrow.read_bytes()[:-20])
        case "garbage":
            arrow.write_bytes(b"x" * arrow.stat().st_size)
        case "no facts":
            facts.unlink()
        case "torn facts":
            facts.write_text(facts.read_text()[:10])
        case "other facts":
            facts.write_text("[]")
    assert rows_of(read(content)) == first


def test_a_failed_read_leaves_nothing_in_the_cache(read, tmp_path):
    failure(read, HEADER + "a,b,c\nd,,f\n")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_columns_are_named_by_the_configuration(read):
    table = read("번호,대화,요약\n1,안녕,인사\n", columns={"id": "번호", "text": "대화", "target": "요약"})
    assert rows_of(table) == [{"id": "1", "text": "안녕", "target": "인사"}]


def test_an_unknown_role_is_an_error_with_the_nearest(read):
    message = failure(read, HEADER + "a,b,c\n", columns={"targt": "summary"})
    assert message.startswith("data.columns.targt: there is no role 'targt'")
    assert "data.columns.target=" in message


def test_a_missing_column_names_the_nearest_one_and_the_key_to_set(read):
    message = failure(read, "fname,dialog,summary\na,b,c\n")
    assert "train.csv: there is no column 'dialogue' (role 'text')" in message
    assert "fname, dialog, summary" in message
    assert "data.columns.text=dialog " in message


def test_all_missing_columns_are_named_at_once_with_settings_that_a_shell_takes(read):
    message = failure(read, "fname,대화 내용,요약\na,b,c\n")
    assert "there is no column 'dialogue' (role 'text') and no 'summary' (role 'target')" in message
    assert (
        "try: data.columns.text=COLUMN data.columns.target=COLUMN names the columns to read instead"
        in message
    )
    message = failure(read, "fname,the dialogue,a summary\na,b,c\n")
    assert "'data.columns.text=the dialogue' 'data.columns.target=a summary' names" in message


def test_a_missing_column_of_several_leaves_the_others_named(read):
    message = failure(
        read, "fname,dialogue,remarks,summary\na,b,c,d\n", columns={"text": ["dialogue", "remark"]}
    )
    assert "there is no column 'remark' (role 'text')" in message
    assert "'data.columns.text=[dialogue, remarks]' names the column to read instead" in message


@pytest.mark.parametrize("content", [HEADER + "a,b,c\n", "fname,dialogue,summary,subject\na,b,c,\n"])
def test_an_optional_column_that_was_asked_for_but_is_not_there_is_told(read, content):
    for _ in range(2):
        table = read(content, columns={"topic": "subject"})
        assert table.dataset.column_names == ["id", "text", "target"]
        told = f"{table.source}: no row has a value in column 'subject' (data.columns.topic); it is left out"
        assert table.messages() == [told]
    assert read(HEADER + "a,b,c\n").messages() == []


def test_optional_cells_may_be_empty_and_an_optional_role_without_any_is_left_out(read):
    some = read("fname,dialogue,summary,topic\na,b,c,\nd,e,f,shop\n")
    assert some.dataset["topic"][:] == ["", "shop"]
    none = read("fname,dialogue,summary,topic\na,b,c,\nd,e,f,nan\n")
    assert none.dataset.column_names == ["id", "text", "target"]


def test_prediction_reads_and_needs_inputs_and_ids_only(read):
    assert rows_of(read("fname,dialogue\na,b\n", for_prediction=True)) == [{"id": "a", "text": "b"}]
    with_target = read(HEADER + "a,b,\n", for_prediction=True)
    assert with_target.dataset.column_names == ["id", "text"]
    assert "no column 'summary'" in failure(read, "fname,dialogue\na,b\n")


def test_a_doubled_column_name_is_an_error_when_the_column_is_read(read):
    assert "2 columns are called 'summary'" in failure(read, "fname,dialogue,summary,summary\na,b,c,d\n")
    assert read("fname,dialogue,summary,x,x\na,b,c,d,e\n").num_rows == 1


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ("", "train.csv", "the file is empty"),
        ("\ufeff", "train.csv", "the file is empty"),
        ("\n\n", "train.csv", "the file is empty"),
        ("", "train.jsonl", "the file is empty"),
        ("", "train.parquet", "the file is empty"),
        (HEADER, "train.csv", "there are no rows"),
        (HEADER, "train.xls", "tables with the suffix '.xls' cannot be read"),
        ("PAR1 but not really PAR1", "train.parquet", "the Parquet file cannot be read"),
        ('[\n{"fname": "a"}\n]', "train.jsonl", "row 1 (line 1): the line is no JSON"),
        ("[1, 2]", "train.jsonl", "row 1 (line 1): the line is no JSON object but a list"),
    ],
)
def test_a_file_that_is_no_table_is_an_error_that_names_it(read, content, name, problem):
    message = failure(read, content, name)
    assert name in message
    assert problem in message


def test_a_missing_file_names_the_one_that_may_be_meant(read, tmp_path):
    read(HEADER + "a,b,c\n")
    with pytest.raises(UserError, match=r"(?s)trian\.csv: there is no such file.*train\.csv meant"):
        read_table(tmp_path / "trian.csv", ROLES, {}, cache_folder=tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "nowhere" / "train.csv", ROLES, {}, cache_folder=tmp_path)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="this is a folder"):
        read_table(tmp_path, ROLES, {}, cache_folder=tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_that_names_it(read, tmp_path):
    (tmp_path / "train.csv").touch(mode=0)
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "train.csv", ROLES, {}, cache_folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ("a,b,c\nd,e\n", "row 2 (line 3)", "the row has 2 cells, but the table has 3 columns"),
        ("a,b,c\nd,e,f,g\n", "row 2 (line 3)", "the row has 4 cells"),
        ('a,"b\nb\nb",c\nd,e,f,g\n', "row 2 (line 5)", "the row has 4 cells"),
        ("a,b,c\n\nd,,f\n", "row 2 (line 4)", "column 'dialogue' is empty"),
        ("a,b,c\nd, \u3000,f\n", "row 2 (line 3)", "column 'dialogue' is empty"),
        ("a,b,c\nd,e,NaN\n", "row 2 (line 3)", "column 'summary' holds 'NaN', a missing value as text"),
        ("a,b,c\nb,b,c\na,e,f\n", "row 3 (line 4)", "column 'fname' repeats the id 'a' of row 1"),
        (",b,c\n", "row 1 (line 2)", "column 'fname' is empty"),
        ('a,b,c\nd,"e,f\ng,h,i\n', "row 2 (line 3)", 'the quote (") that opens in line 3 is never closed'),
        ('a,"x\ny",c\nd,"e\nf","g\n', "row 2 (line 4)", 'the quote (") that opens in line 5 is never closed'),
        ('a,"b,c\nd,"e",f\n', "row 1 (line 2)", "opens in line 2 is closed in line 3, but its cell goes on"),
        ('a,"b"x,c\n', "row 1 (line 2)", "opens in line 2 is closed in line 2"),
        ("a,b,c\nd,e\0e,f\n", "line 3", "a NUL byte (0x00) stands in the text"),
    ],
)
def test_a_bad_csv_row_is_an_error_with_its_place(read, content, place, problem):
    message = failure(read, HEADER + content)
    assert f"train.csv, {place}: " in message
    assert problem in message


def test_a_broken_quote_among_the_column_names_is_told_as_such(read):
    assert "the column names (line 1): the quote" in failure(read, 'fname,"dialogue,summary\na,b,c\n')


def test_words_that_only_look_like_missing_values_are_text(read):
    table = read(HEADER + "a,null,none\nb,None,NA\n")
    assert table.dataset["text"][:] == ["null", "None"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(korean, min_size=1, max_size=5), cut=st.integers(0, 200))
@example(texts=['1"\u1112'], cut=8)
@example(texts=["\u1112\u1161"], cut=0)
def test_a_csv_cut_off_anywhere_gives_its_whole_rows_or_an_error_but_never_wrong_rows(tmp_path, texts, cut):
    path = tmp_path / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["fname", "dialogue", "summary"], *([f"r{i}", t, t] for i, t in enumerate(texts))])
    whole = path.read_bytes()
    end = max(len(whole) - cut, 0)
    # Between the two quotes that stand for one, a shorter cell ends as it should, which nobody can tell.
    assume(whole[end - 1 : end + 1] != b'""')
    path.write_bytes(whole[:end])
    try:
        table = read_table(path, ROLES, {}, cache_folder=tmp_path / "cache")
    except UserError:
        return
    read = [unicodedata.normalize("NFC", text) for text in texts[: table.num_rows]]
    assert table.dataset["text"][:] == read
    assert table.dataset["target"][:] == read


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"fname": "b", "dialogue": "x", ', "the line is no JSON: "),
        ('["b"]', "the line is no JSON object but a list"),
        ('"b"', "the line is no JSON object but a single value"),
        ('{"fname": "b", "dialogue": ["x"], "summary": "s"}', "column 'dialogue' holds a list, not text"),
        ('{"fname": "b", "dialogue": {"x": 1}, "summary": "s"}', "column 'dialogue' holds an object"),
        ('{"fname": "b", "dialogue": null, "summary": "s"}', "column 'dialogue' is empty"),
        ('{"fname": "b", "dialogue": NaN, "summary": "s"}', "column 'dialogue' is empty"),
        ('{"fname": "b", "summary": "s"}', "the row has no 'dialogue'"),
        ('{"fname": "b", "fname": "c", "dialogue": "x", "summary": "s"}', "the key 'fname' stands twice"),
        ('{"fname": "b", "dialogue": "\\ud83d", "summary": "s"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_json_line_is_an_error_with_its_place(read, line, problem):
    good = '{"fname": "a", "dialogue": "x", "summary": "s"}\n\n'
    message = failure(read, good + line + "\n", "train.jsonl")
    assert "train.jsonl, row 2 (line 3): " in message
    assert problem in message


def test_json_numbers_become_the_text_they_are_written_with(read):
    table = read('{"fname": 7, "dialogue": 1.10, "summary": true}\n', "train.jsonl")
    assert rows_of(table) == [{"id": "7", "text": "1.10", "target": "true"}]


def test_an_optional_key_that_only_later_json_lines_have_is_kept(read):
    lines = [{"fname": "a", "dialogue": "x", "summary": "s"}]
    lines.append({"fname": "b", "dialogue": "x", "summary": "s", "topic": "t"})
    table = read("\n".join(map(json.dumps, lines)), "train.jsonl")
    assert table.dataset["topic"][:] == ["", "t"]


def parquet_bytes(**columns) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def test_parquet_numbers_and_categories_become_text(read):
    category = pyarrow.array(["나", "가"]).dictionary_encode()
    content = parquet_bytes(fname=[1, 2], dialogue=category, summary=[0.5, 2.0])
    assert rows_of(read(content, "train.parquet")) == [
        {"id": "1", "text": "나", "target": "0.5"},
        {"id": "2", "text": "가", "target": "2.0"},
    ]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (["x", None], "column 'dialogue' is empty"),
        ([1.0, float("nan")], "column 'dialogue' is empty"),
    ],
)
def test_a_bad_parquet_cell_is_an_error_with_its_row(read, bad, problem):
    message = failure(read, parquet_bytes(fname=["a", "b"], dialogue=bad, summary=["s", "s"]), "t.parquet")
    assert "t.parquet, row " in message
    assert problem in message


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([None, ["x"]], "holds list<element: string>, not text"),
        ([{"ko": "x"}, {"ko": "y"}], "holds struct<ko: string>, not text"),
        ([b"x", b"y"], "holds binary, not text"),
    ],
)
def test_a_parquet_column_that_holds_no_text_is_an_error_of_the_column_and_no_row_is_skipped(
    read, cells, problem
):
    content = parquet_bytes(fname=["a", "b"], dialogue=cells, summary=["s", "s"])
    message = failure(read, content, "t.parquet", on_bad_row="skip")
    assert f"t.parquet: column 'dialogue' {problem}" in message
    assert "df['dialogue']." in message


def test_a_file_that_somebody_writes_to_is_refused_and_read_when_it_is_whole(read, tmp_path):
    """Else other rows would be read than those whose hash stands beside every number."""
    rows, path, is_whole = "".join(f"a{n},b,c\n" for n in range(20_000)), tmp_path / "growing.csv", Event()

    def grow() -> None:
        number = 0
        while not is_whole.wait(0.001):
            number += 1
            with path.open("a") as file:
                file.write(f"d{number},e,f\n")

    writer = Thread(target=grow)
    writer.start()
    try:
        assert "growing.csv: the file was changed while it was read" in failure(
            read, HEADER + rows, path.name
        )
    finally:
        is_whole.set()
        writer.join()
    assert read(HEADER + rows, path.name).num_rows == 20_000


@pytest.mark.parametrize("part", ["end", "middle"])
def test_a_damaged_parquet_file_is_an_error_that_names_it(read, part):
    texts = [f"{i} 번째 대화" * 20 for i in range(3000)]
    content = bytearray(parquet_bytes(fname=texts, dialogue=texts, summary=texts))
    if part == "end":
        del content[-100:]
    else:
        content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    assert "train.parquet: the Parquet file cannot be read" in failure(read, bytes(content), "train.parquet")


CP949_ROWS = "fname,dialogue,summary\n1,똠방각하와 펲시콜라를 마셨다,뷁\n" + "2,안녕하세요,인사\n"


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (CP949_ROWS.encode("utf-8"), None, False),
        (codecs.BOM_UTF8 + CP949_ROWS.encode("utf-8"), None, False),
        (codecs.BOM_UTF8 + CP949_ROWS.encode("utf-8"), "UTF8", False),
        (CP949_ROWS.encode("cp949"), None, True),
        (CP949_ROWS.encode("cp949"), "ms949", True),
        (CP949_ROWS.encode("utf-16"), "utf-16", False),
    ],
)
def test_encodings_are_recognised_or_taken_as_told(read, content, encoding, told):
    table = read(content, encoding=encoding)
    assert table.dataset["text"][:] == ["똠방각하와 펲시콜라를 마셨다", "안녕하세요"]
    assert any("CP949" in line for line in table.messages()) == told


hangul_lines = st.lists(
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=3, max_size=30),
    min_size=3,
    max_size=10,
    unique=True,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=hangul_lines)
def test_any_korean_text_in_cp949_is_recognised(tmp_path, lines):
    path = tmp_path / "train.csv"
    path.write_bytes((HEADER + "".join(f"{line},{line},{line}\n" for line in lines)).encode("cp949"))
    assert read_table(path, ROLES, {}, cache_folder=tmp_path / "cache").dataset["text"][:] == lines


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=hangul_lines, data=st.data())
def test_one_broken_byte_in_utf8_is_found_and_never_read_as_cp949(tmp_path, lines, data):
    rows = [f"{line},{line},{line}\n".encode() for line in lines]
    broken = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, len(lines[broken]) - 1)) * 3
    rows[broken] = rows[broken][:place] + rows[broken][place + 1 :]
    path = tmp_path / "train.csv"
    path.write_bytes(HEADER.encode() + b"".join(rows))
    with pytest.raises(
        UserError, match=rf"train\.csv, line {broken + 2}: byte 0x\w\w cannot be read as UTF-8"
    ):
        read_table(path, ROLES, {}, cache_folder=tmp_path / "cache")


def test_a_byte_that_no_encoding_reads_names_its_line(read):
    message = failure(read, (HEADER + "a,안녕,인사\nb,둘").encode("cp949") + b"\xff\xff,c\n")
    assert "train.csv, line 3: byte 0xff cannot be read as CP949" in message
    message = failure(read, (HEADER + "a,안녕,인사\n").encode("cp949"), encoding="utf-8")
    assert "train.csv, line 2: byte 0xbe cannot be read as UTF-8" in message


def test_utf16_is_told_with_the_option_that_reads_it(read):
    assert "data.encoding=utf-16" in failure(read, CP949_ROWS.encode("utf-16"))


@pytest.mark.parametrize("name", ["utf-88", "base64"])
def test_an_unknown_encoding_is_an_error(read, name):
    assert "data.encoding: there is no encoding" in failure(read, HEADER, encoding=name)


def test_bad_rows_can_be_skipped_and_are_counted_and_told(read):
    bad = ["a,,s", "b,x", "c,x,nan"] + [f"d{i}, ,s" for i in range(1500)] + ["good,x,s", "good,y,s"]
    table = read(HEADER + "\n".join(bad) + "\n", on_bad_row="skip")
    assert rows_of(table) == [{"id": "good", "text": "x", "target": "s"}]
    source = table.source
    assert table.messages() == [
        f"{source}: 1,501 rows skipped: column 'dialogue' is empty (rows 1, 4, 5, 6, 7, …)",
        f"{source}: 1 row skipped: wrong number of cells (row 2)",
        f"{source}: 1 row skipped: column 'summary' is empty (row 3)",
        f"{source}: 1 row skipped: column 'fname' repeats an id (row 1505)",
    ]
    again = read(HEADER + "\n".join(bad) + "\n", on_bad_row="skip")
    assert again.messages() == table.messages()


def test_a_table_without_any_good_row_is_an_error_even_when_rows_are_skipped(read):
    message = failure(read, HEADER + "a,,s\nb,,s\n", on_bad_row="skip")
    assert "no row is left, all 2 were skipped (column 'dialogue' is empty: 2)" in message


@pytest.mark.heavy
def test_a_doubled_id_is_found_among_many_rows(read):
    lines = [f"{i},x,s\n" for i in range(150_000)]
    message = failure(read, HEADER + "".join(lines) + "12345,x,s\n")
    assert "row 150001 (line 150002): column 'fname' repeats the id '12345' of row 12346" in message


def test_rows_in_memory_become_a_table_and_are_found_again(tmp_path):
    rows = [{"id": "1", "text": "안녕", "target": "인사"}]
    table = table_from_rows(iter(rows), "sample", ROLES, tmp_path)
    assert rows_of(table) == rows
    assert table_from_rows(rows, "sample", ROLES, tmp_path).fingerprint == table.fingerprint
    other = table_from_rows([{**rows[0], "text": "잘 가"}], "sample", ROLES, tmp_path)
    assert other.fingerprint != table.fingerprint


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "sample: there are no rows"),
        ([{"id": "1", "text": "x"}], "sample, row 1: the row has no 'target'"),
        ([{"id": "1", "text": "x", "target": "y"}] * 2, "sample, row 2: column 'id' repeats the id '1'"),
    ],
)
def test_bad_rows_in_memory_are_errors(tmp_path, rows, problem):
    with pytest.raises(UserError, match=problem):
        table_from_rows(rows, "sample", ROLES, tmp_path)


@settings(max_examples=50, deadline=None)
@given(
    num_rows=st.integers(1, 60), small=st.integers(1, 70), more=st.integers(0, 70), seed=st.integers(0, 99)
)
def test_drawn_rows_are_in_order_repeatable_and_nested(num_rows, small, more, seed):
    drawn, larger = draw_rows(num_rows, small, seed), draw_rows(num_rows, small + more, seed)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == min(small, num_rows)
    assert set(drawn) <= set(larger)
    assert (drawn == draw_rows(num_rows, small, seed)).all()


def test_a_selection_is_a_table_with_its_own_fingerprint(read):
    table = read(HEADER + "".join(f"{i},x,s\n" for i in range(10)))
    chosen = table.select([7, 2])
    assert chosen.dataset["id"][:] == ["7", "2"]
    assert len({table.fingerprint, chosen.fingerprint, table.select([2, 7]).fingerprint}) == 3
    assert chosen.fingerprint == table.select([7, 2]).fingerprint


READ_AND_MEASURE = """
import sys, threading
from pathlib import Path
from dure.config.data import ReadingConfig
from dure.data.tables import Role, read_table
import datasets, pyarrow

roles = [Role("id", "fname", is_id=True), Role("text", "dialogue", is_input=True), Role("target", "summary")]
folder = Path(sys.argv[1])
samples, stop = [], threading.Event()

def anonymous_kib():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

def sample():
    while not stop.wait(0.005):
        samples.append(anonymous_kib())

read_table(folder / "small.csv", roles, {}, cache_folder=folder / "cache")
before = anonymous_kib()
sampler = threading.Thread(target=sample)
sampler.start()
table = read_table(folder / "large.csv", roles, {}, cache_folder=folder / "cache")
stop.set()
sampler.join()
print(max(samples) - before, table.num_rows)
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_with_the_number_of_rows(tmp_path):
    for name, num_rows in [("small.csv", 5_000), ("large.csv", 100_000)]:
        rows = (f"{i},{i} 오늘 점심은 김치찌개로 하자 {'가' * 150},점심\n" for i in range(num_rows))
        (tmp_path / name).write_text(HEADER + "".join(rows), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "platform")},
    )
    grown_kib, num_rows = map(int, done.stdout.split())
    assert num_rows == 100_000
    assert grown_kib < 12 * 1024  # The file has 56 MB; its rows as Python text would take over 40 MB.


REAL = {
    "dialogsum/train.csv": (ROLES, {}, 2000),
    "dialogsum/dev.csv": (ROLES, {}, 500),
    "nsmc/train_small.csv": (
        (Role("id", "id", is_id=True), Role("text", "text"), Role("label", "label")),
        {},
        8000,
    ),
    "nsmc/dev.csv": ((Role("id", "id", is_id=True), Role("text", "text"), Role("label", "label")), {}, 4914),
    "kote/val.csv": ((Role("id", "id", is_id=True), Role("text", "text"), Role("label", "labels")), {}, 5000),
    "chatbot/ChatbotData.csv": ((Role("text", "text"), Role("label", "label")), {"text": "Q"}, 11823),
}


@pytest.mark.parametrize("name", REAL)
def test_real_public_data_is_read_whole(tmp_path, name):
    path = SHARED / name
    if not path.exists():
        pytest.skip("shared/data is not here")
    roles, columns, num_rows = REAL[name]
    table = read_table(path, roles, columns, cache_folder=tmp_path)
    assert table.num_rows == num_rows
    assert table.messages() == []
