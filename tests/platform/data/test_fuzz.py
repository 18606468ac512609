"""Whatever stands in a table: rows, or an error that names the file; and the rows are those that other readers see."""

from __future__ import annotations

import csv
import io
import json
import struct
import time
import tracemalloc
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dure.config.data import ReadingConfig
from dure.data.fields import CellReader
from dure.data.tables import Role, Table, read_table
from dure.errors import UserError


class AsItIs(CellReader):
    """Takes every value, lists and objects as JSON."""

    def read(self, text: str) -> str:
        return text

    def __repr__(self) -> str:
        return "AsItIs()"


ROLES = (
    Role("id", "id", required=False, is_input=True, is_id=True),
    Role("text", "text", is_input=True),
    Role("label", "label", may_be_empty=True),
    Role("nested", "nested", required=False, reader=AsItIs()),
)
ROWS = tuple(
    {
        "id": f"r{number}",
        "text": f'글 {number}, "인용"\n둘째 줄',
        "label": "긍정",
        "nested": [number, {"a": None}],
    }
    for number in range(4)
)
PIECES = (
    *(b"", b"\n", b"\r", b"\r\n", b",", b"\t", b'"', b'""', b"'", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
    *("가".encode(), "가".encode("cp949"), "가".encode("utf-16-le"), "각".encode(), "\u2028\x85\x0b\x0c".encode()),
    *(b"nan", b"NaN", b"null", b"{", b"}", b"[", b"]", b":", b"1e999", b"-0", b'"\\ud800"', b"x" * 5000, b"[" * 3000),
    *(b'{"text": "a", "label": "b"}\n', b'{"text": "a", "text": "b"}', b"id,text,label\n", b"a,b,c,d,e\n", b"PAR1"),
)  # fmt: skip
TEXTS = (
    *("", " ", "\n", "\r", "\r\n", "\n\n", ",", "\t", '"', '""', "'", "\\", "가", "각", "\u2028", "\x85", "\x0b", "\x1c"),
    *("nan", "<NA>", "null", "x" * 300, '"a,b"', '"a\nb"', '"a""b"', "r9", "\xa0", "\ufeff"),
)  # fmt: skip
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ENCODINGS = (
    None,
    None,
    None,
    "utf-8",
    "cp949",
    "utf-16",
    "ascii",
    "latin-1",
    "utf-7",
    "idna",
    "punycode",
    "utf-32",
)


def _delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(ROWS[0])
    writer.writerows(
        [json.dumps(value) if isinstance(value, list) else value for value in row.values()] for row in ROWS
    )
    return text.getvalue().encode()


def _parquet() -> bytes:
    file = io.BytesIO()
    rows = [{**row, "nested": [1.5, None]} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="none")
    return file.getvalue()


WHOLE = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS).encode(),
    ".parquet": _parquet(),
}


@st.composite
def mutated(draw, suffix: str) -> bytes:
    """A good table with some bytes flipped, cut, doubled, inserted or written in another encoding."""
    content = bytearray(WHOLE[suffix])
    if suffix != ".parquet" and draw(st.integers(0, 5)) == 0:
        content = bytearray(
            content.decode().encode(draw(st.sampled_from(("cp949", "utf-16", "utf-32", "utf-8-sig"))))
        )
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        end = min(len(content), place + draw(st.integers(0, 40)))
        match draw(st.sampled_from(("flip", "cut", "delete", "double", "insert", "insert"))):
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[place:]
            case "delete":
                del content[place:end]
            case "double":
                content[place:place] = content[place:end]
            case _:
                content[place:place] = draw(st.sampled_from(PIECES))
    return bytes(content)


@st.composite
def mutated_text(draw, suffix: str) -> bytes:
    """A good table of text with some of it deleted, doubled or inserted, which stays text and often a table."""
    text = WHOLE[suffix].decode()
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        end = min(len(text), place + draw(st.integers(0, 12)))
        match draw(st.sampled_from(("delete", "double", "insert", "insert", "row"))):
            case "delete":
                text = text[:place] + text[end:]
            case "double":
                text = text[:end] + text[place:]
            case "insert":
                text = text[:place] + draw(st.sampled_from(TEXTS)) + text[place:]
            case _:
                separator = "," if suffix == ".csv" else "\t"
                text += separator.join(draw(st.lists(st.sampled_from(TEXTS), min_size=3, max_size=5))) + "\n"
    return text.encode()


def read(folder: Path, content: bytes, suffix: str, **options: object) -> Table:
    path = folder / f"fuzzed{suffix}"
    path.write_bytes(content)
    return read_table(path, ROLES, {}, cache_folder=folder / "cache", reading=ReadingConfig(**options))  # type: ignore[arg-type]


def check(folder: Path, content: bytes, suffix: str, encoding: str | None, on_bad_row: str) -> None:
    began = time.process_time()
    table, problem = None, ""
    try:
        table = read(folder, content, suffix, encoding=encoding, on_bad_row=on_bad_row)
    except UserError as error:
        problem = str(error)
    if table is None:
        assert f"fuzzed{suffix}" in problem
    else:
        assert table.num_rows > 0
        assert all(text.strip() for text in table.dataset["text"])
    assert time.process_time() - began < 5


def cells(table: Table) -> list[Sequence[str]]:
    return [tuple(row[name] for name in ("text", "label")) for row in table.dataset]


def check_like_csv(folder: Path, content: bytes, suffix: str) -> None:
    """What the csv module of Python reads without a complaint, we read as the same rows."""
    try:
        table = read(folder, content, suffix, encoding="utf-8", on_bad_row="skip", quoting="minimal")
    except UserError:
        return
    lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    rows = [row for row in csv.reader(lines, delimiter="," if suffix == ".csv" else "\t", strict=True) if row]
    # Spaces around a name mean nothing, nor does what cannot be seen in it.
    names = ["".join(sign for sign in name if unicodedata.category(sign) != "Cf").strip() for name in rows[0]]
    places = [names.index(name) for name in ("text", "label")]
    ids = names.index("id") if "id" in names else None
    expected, seen = [], set()
    for row in rows[1:]:
        if len(row) != len(rows[0]) or _is_empty(row[places[0]]):
            continue
        if ids is not None:
            if _is_empty(row[ids]) or row[ids] in seen:
                continue
            seen.add(row[ids])
        expected.append((row[places[0]], "" if _is_empty(row[places[1]]) else row[places[1]]))
    assert cells(table) == expected


def _is_empty(text: str) -> bool:
    seen = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return seen.strip().lower() in ("", "nan", "<na>")


content = st.sampled_from(SUFFIXES).flatmap(
    lambda suffix: st.tuples(
        st.just(suffix),
        mutated(suffix) | mutated(suffix) | st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    )
)  # fmt: skip
quick = settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(derandomize=False, max_examples=2000, suppress_health_check=list(HealthCheck))
arguments = {
    "made": content,
    "encoding": st.sampled_from(ENCODINGS),
    "on_bad_row": st.sampled_from(("error", "skip")),
}
delimited = st.sampled_from((".csv", ".tsv")).flatmap(
    lambda suffix: st.tuples(st.just(suffix), mutated_text(suffix))
)


@quick
@given(**arguments)
def test_any_bytes_are_rows_or_an_error_that_names_the_file(tmp_path, made, encoding, on_bad_row):
    check(tmp_path, made[1], made[0], encoding, on_bad_row)


@quick
@given(made=delimited)
def test_rows_are_those_of_the_csv_module(tmp_path, made):
    check_like_csv(tmp_path, made[1], made[0])


@pytest.mark.slow
@thorough
@given(**arguments)
def test_many_bytes_are_rows_or_an_error_that_names_the_file(tmp_path, made, encoding, on_bad_row):
    check(tmp_path, made[1], made[0], encoding, on_bad_row)


@pytest.mark.slow
@thorough
@given(made=delimited)
def test_many_rows_are_those_of_the_csv_module(tmp_path, made):
    check_like_csv(tmp_path, made[1], made[0])


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("content", "suffix", "said"),
    [
        (b"text,label\n" + b"x" * ((1 << 24) + 1) + b",b\n", ".csv", "row 1 (line 2): a cell is longer than"),
        (b'text,label\n"' + b"x\n" * (1 << 20) + b"x", ".csv", "opens in line 2 is never closed"),
        (b'{"text": "' + b"x" * (1 << 26), ".jsonl", "line 1: the line is longer than"),
        (b'{"text": "a", "label": "b", "nested": ' + b"[" * 700 + b"]" * 700 + b"}\n", ".jsonl", "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_huge_is_told_in_bounded_memory(tmp_path, content, suffix, said):
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, suffix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said in str(caught.value)
    assert peak < 4 * len(content) + (32 << 20)


def test_a_parquet_text_that_is_no_utf8_names_its_row(tmp_path):
    file = io.BytesIO()
    ends = pyarrow.py_buffer(struct.pack("<3i", 0, 2, 4))
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, ends, pyarrow.py_buffer(b"ok\xff\xfe")])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": ["a", "b"]}), file)
    with pytest.raises(UserError, match=r"fuzzed\.parquet, row 2: a cell cannot be read"):
        read(tmp_path, file.getvalue(), ".parquet")
