import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from dure.data.encoding import Encoded, code_fingerprint, encode_table, tokenizer_fingerprint
from dure.data.tables import Role, Table, table_from_rows
from dure.errors import UserError

ROLES = (Role("id", "id", is_id=True), Role("text", "dialogue", is_input=True), Role("target", "summary"))
WORDS = ("점심", "저녁", "은", "김치찌개", "로", "하자", "먹었어")


def make_tokenizer(words=WORDS, unknown="<unk>") -> PreTrainedTokenizerFast:
    names = dict.fromkeys(["<pad>", "</s>", unknown, *words])
    backend = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(names)}, unk_token=unknown)
    )
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token=unknown
    )


class Family:
    """A family of the smallest kind, which counts how often it encodes."""

    max_length = 6

    def __init__(self) -> None:
        self.num_calls = 0

    def encode(self, rows, tokenizer):
        self.num_calls += 1
        whole = tokenizer(rows["text"])["input_ids"]
        ids = tokenizer(rows["text"], truncation=True, max_length=self.max_length - 1)["input_ids"]
        ids = [[*row, tokenizer.eos_token_id] for row in ids]
        return {
            "input_ids": ids,
            "length": [len(row) for row in ids],
            "truncated": [len(row) >= self.max_length for row in whole],
        }


def table_of(texts, folder, source="train.csv") -> Table:
    rows = [{"id": f"r{place}", "text": text, "target": "점심"} for place, text in enumerate(texts)]
    return table_from_rows(rows, source, ROLES, folder)


@pytest.fixture
def encode(tmp_path):
    def encode_texts(texts, tokenizer=None, family=None, **options) -> Encoded:
        table = table_of(texts, tmp_path)
        tokenizer = tokenizer or make_tokenizer()
        family = family or Family()
        settings = {"key": {"max_length": 6}, "max_unknown_rate": 0.2, "source": "train.csv", **options}
        return encode_table(
            table.dataset,
            table.fingerprint,
            functools.partial(family.encode, tokenizer=tokenizer),
            tokenizer=tokenizer,
            cache_folder=tmp_path,
            **settings,
        )

    return encode_texts


TEXTS = ["점심 은 김치찌개 로 하자", "저녁 먹었어", "저녁 은 김치찌개 로 하자 점심"]


def test_rows_are_encoded_in_order_and_kept_memory_mapped(encode):
    encoded = encode(TEXTS)
    assert encoded.dataset["input_ids"][:] == [[3, 5, 6, 7, 8, 1], [4, 9, 1], [4, 5, 6, 7, 8, 1]]
    assert encoded.dataset["length"][:] == [6, 3, 6]
    assert encoded.dataset.cache_files[0]["filename"].endswith(".arrow")
    assert str(encoded.dataset.features["input_ids"].feature.dtype) == "int32"


def test_truncation_and_unknown_tokens_are_counted_and_told(encode):
    encoded = encode(["점심 은 김치찌개 로 하자", "저녁 낙지 은 로", "저녁 은 김치찌개 로 하자 점심"])
    assert encoded.num_truncated == 1
    assert encoded.unknown_rate == 1 / 14  # End tokens are no text.
    assert encoded.messages() == [
        "train.csv: 3 rows, 1 truncated (33.3%), 7.14% unknown tokens",
        "train.csv: 1 row has more than 20.0% unknown tokens (tokenizer.max_unknown_rate), of which the model "
        "learns little: row 2",
    ]


def test_one_row_is_one_row_in_what_is_told():
    encoded = Encoded(["the row"], "a.csv", 1, 0.0, from_cache=False)  # type: ignore[arg-type]
    assert encoded.messages() == ["a.csv: 1 row, 1 truncated (100.0%), 0.00% unknown tokens"]


def test_the_second_time_nothing_is_encoded(encode):
    family = Family()
    first = encode(TEXTS, family=family)
    assert family.num_calls == 1
    again = encode(TEXTS, family=family, tokenizer=make_tokenizer())
    assert family.num_calls == 1
    assert (first.from_cache, again.from_cache) == (False, True)
    assert again.dataset.to_list() == first.dataset.to_list()
    assert again.num_truncated == first.num_truncated
    assert again.messages()[0].endswith("from the cache")


@pytest.mark.parametrize(
    "change",
    [
        {"texts": [*TEXTS, "점심"]},
        {"tokenizer": make_tokenizer(words=WORDS[::-1])},
        {"key": {"max_length": 7}},
    ],
    ids=["rows", "tokenizer", "settings"],
)
def test_what_changes_the_features_is_encoded_anew(encode, change):
    encode(TEXTS)
    assert not encode(**{"texts": TEXTS, **change}).from_cache


def test_many_rows_go_through_in_batches_and_keep_their_order(encode):
    family = Family()
    encoded = encode(["점심 은", "저녁 먹었어 점심 은"] * 1250, family=family)
    assert family.num_calls == 3
    assert encoded.dataset["length"][:] == [3, 5] * 1250


def test_the_wrong_tokenizer_is_an_error_with_an_example_also_from_the_cache(encode):
    for _ in range(2):
        with pytest.raises(UserError, match=r"train\.csv: the tokenizer does not know 50\.0%") as caught:
            encode(["점심 낙지", "저녁 문어"])
        assert "such as '낙지'" in str(caught.value)
        assert "likely the wrong tokenizer" in str(caught.value)
    allowed = encode(["점심 낙지", "저녁 문어"], max_unknown_rate=0.5)
    assert (allowed.unknown_rate, allowed.from_cache) == (0.5, True)


def test_an_end_token_that_is_also_the_unknown_one_is_not_taken_for_unknown_text(encode):
    assert encode(TEXTS, tokenizer=make_tokenizer(unknown="</s>")).unknown_rate == 0.0


def test_a_broken_cache_entry_is_built_again(encode, tmp_path):
    first = encode(TEXTS).dataset.to_list()
    (arrow,) = (tmp_path / "encoded").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-9])
    again = encode(TEXTS)
    assert not again.from_cache
    assert again.dataset.to_list() == first


def test_a_failing_encode_leaves_no_cache_entry(encode, tmp_path):
    class Failing(Family):
        def encode(self, rows, tokenizer):
            if self.num_calls:
                raise RuntimeError("broken")
            return super().encode(rows, tokenizer)

    with pytest.raises(RuntimeError, match="broken"):
        encode(["점심"] * 1500, family=Failing())
    assert not [path for path in (tmp_path / "encoded").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ({"input_ids": [[1]]}, "no 'truncated'"),
        ({"input_ids": [[1]], "truncated": [False, False]}, "2 values of 'truncated' for 1 rows"),
    ],
)
def test_a_family_that_breaks_the_contract_is_told_how(encode, features, problem):
    class Wrong(Family):
        def encode(self, rows, tokenizer):
            return features

    with pytest.raises(ValueError, match=problem):
        encode(["점심"], family=Wrong())


def test_lists_of_lists_empty_lists_and_decimals_are_kept(encode):
    class Rich(Family):
        def encode(self, rows, tokenizer):
            features = super().encode(rows, tokenizer)
            num_rows = len(rows["text"])
            return {
                **features,
                "spans": [[[0, 1], [2]]] * num_rows,
                "none": [[]] * num_rows,
                "score": [0.5] * num_rows,
            }

    row = encode(["점심"], family=Rich()).dataset[0]
    assert (row["spans"], row["none"], row["score"]) == ([[0, 1], [2]], [], 0.5)


def test_the_tokenizer_counts_by_content_and_not_by_its_last_call():
    tokenizer = make_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["점심 은", "저녁"], truncation=True, max_length=1, padding="max_length")
    assert tokenizer_fingerprint(tokenizer) == before == tokenizer_fingerprint(make_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["#Person1#"]})
    assert tokenizer_fingerprint(tokenizer) != before


def test_the_fingerprint_changes_with_the_chat_template():
    # A checkpoint's folder may get another one, under the same name.
    tokenizer = make_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert tokenizer_fingerprint(tokenizer) != before


def test_tokenizers_in_pure_python_count_by_content_too():
    assert not ByT5Tokenizer().is_fast
    assert tokenizer_fingerprint(ByT5Tokenizer()) == tokenizer_fingerprint(ByT5Tokenizer())
    assert tokenizer_fingerprint(ByT5Tokenizer()) != tokenizer_fingerprint(ByT5Tokenizer(extra_ids=3))


def test_an_edited_family_file_encodes_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "edited_family.py"
    file.write_text("class Edited:\n    def encode(self, rows, tokenizer):\n        return 1\n")
    import edited_family

    encode = functools.partial(edited_family.Edited().encode, tokenizer=None)
    before = code_fingerprint(encode)
    assert code_fingerprint(encode) == before
    file.write_text(file.read_text().replace("1", "2"))
    assert code_fingerprint(encode) != before
    assert code_fingerprint(len) == code_fingerprint(len)


def test_an_edited_helper_of_a_family_in_several_files_encodes_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    package = tmp_path / "family_of_two"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from family_of_two.cleaning import cleaned\n\n\ndef encode(rows):\n    return cleaned(rows)\n"
    )
    (package / "cleaning.py").write_text("def cleaned(rows):\n    return rows\n")
    import family_of_two

    before = code_fingerprint(family_of_two.encode)
    assert code_fingerprint(family_of_two.encode) == before
    (package / "cleaning.py").write_text("def cleaned(rows):\n    return rows[:1]\n")
    assert code_fingerprint(family_of_two.encode) != before


ENCODE_IN_A_PROCESS = """
import sys, time
from pathlib import Path
sys.path.append(sys.argv[1])
from test_encoding import make_tokenizer
from dure.data.encoding import encode_table
import datasets, pyarrow

folder, together = Path(sys.argv[2]), int(sys.argv[3])
tokenizer, samples, begun = make_tokenizer(), [], False

def encode(rows):
    global begun
    if not begun:  # All processes are in the middle of the same entry before one of them goes on.
        begun = True
        (folder / f"begun-{time.time_ns()}").touch()
        while len(list(folder.glob("begun-*"))) < together:
            time.sleep(0.01)
    samples.append(int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]))
    ids = [list(range(3, 13)) for _ in rows["text"]]
    return {"input_ids": ids, "length": [10] * len(ids), "truncated": [False] * len(ids)}

for num_rows in map(int, sys.argv[4:]):
    samples.clear()
    rows = datasets.Dataset(pyarrow.table({"text": [f"점심 {row}" for row in range(num_rows)]}))
    encoded = encode_table(rows, str(num_rows), encode, key={}, tokenizer=tokenizer, cache_folder=folder,
        max_unknown_rate=1, source="")
    assert not encoded.from_cache
    assert encoded.num_rows == num_rows
    assert encoded.dataset[num_rows - 1]["input_ids"] == list(range(3, 13))
print(max(samples) - samples[0])
"""


def start_encoding(folder: Path, together: int, *num_rows: int) -> "subprocess.Popen[str]":
    here = Path(__file__).resolve()
    arguments = [str(here.parent), str(folder), str(together), *map(str, num_rows)]
    return subprocess.Popen(
        [sys.executable, "-c", ENCODE_IN_A_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parents[3] / "platform"), "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_with_the_number_of_rows(tmp_path):
    process = start_encoding(tmp_path, 1, 20_000, 200_000)
    grown_kib = int(process.communicate(timeout=120)[0])
    assert process.returncode == 0
    assert grown_kib < 12 * 1024  # The ids alone would take over 25 MB as Python lists, and 8 MB in Arrow.


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_may_encode_the_same_rows_at_once(tmp_path):
    both = [start_encoding(tmp_path, 2, 3_000) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert sorted(path.suffix for path in (tmp_path / "encoded").iterdir()) == [".arrow", ".json"]


def test_rows_above_the_limit_of_unknown_tokens_are_counted_and_the_worst_are_named(encode):
    texts = ["점심 로"] * 40 + ["낙지 로", "점심 문어", "낙지 문어 로 로"] + ["점심 로"] * 40 + ["낙지 문어"]
    encoded = encode(texts, max_unknown_rate=0.5)
    assert (encoded.num_unknown_rows, encoded.unknown_rows) == (1, (83,))
    for _ in range(2):  # the second time from the cache, with another limit
        encoded = encode(texts, max_unknown_rate=0.3)
        assert (encoded.num_unknown_rows, encoded.unknown_rows) == (4, (83, 40, 41, 42))
    told = encoded.messages(lambda row: f"line {row + 2}")[1]
    assert "4 rows have more than 30.0% unknown tokens" in told
    assert told.endswith("line 85, line 42, line 43, line 44")


def test_a_row_that_cannot_be_encoded_is_named(encode):
    class Choosy(Family):
        def encode(self, rows, tokenizer):
            if "낙지" in rows["text"]:
                raise ValueError("no octopus")
            return super().encode(rows, tokenizer)

    with pytest.raises(UserError) as caught:
        encode(
            ["점심"] * 1200 + ["낙지", "저녁"], family=Choosy(), place=lambda row: f"row {row + 1} of a.csv"
        )
    assert caught.value.where == "train.csv, row 1201 of a.csv"
    assert caught.value.problem == "the row cannot be encoded (ValueError: no octopus)"


@pytest.mark.parametrize(
    ("where", "named"), [(None, "train.csv, row 2"), ("task.chat_template", "task.chat_template")]
)
def test_a_row_whose_error_says_what_to_do_is_named_with_that(encode, where, named):
    class Choosy(Family):
        def encode(self, rows, tokenizer):
            if "낙지" in rows["text"]:
                raise UserError("no octopus", where=where, hint="task.octopus=true")
            return super().encode(rows, tokenizer)

    with pytest.raises(UserError) as caught:
        encode(["점심", "낙지"], family=Choosy())
    error = caught.value
    assert (error.where, error.problem, error.hint) == (named, "no octopus", "task.octopus=true")
