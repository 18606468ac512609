"""Promises of the ROUGE tokenisers."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer as RougeScoreTokenizer

from dure.errors import UserError
from dure.metrics.tokenizers import get_tokenizer

NAMES = ["morpheme", "whitespace", "whitespace_markers", "character", "default"]
MARKER_NAMES = ["morpheme", "whitespace_markers", "character"]
SPECIAL = ("<대화시작>", "<중요>", "<중요>!", "[A B]")
around = st.text(st.sampled_from("가나다은는이 ㅋㅎ걁a1Z.,:#@/<>[]!?\t\n😀́"), max_size=12)
beside = st.text(st.sampled_from("가나다은는이 ㅋㅎ걁a1Z.,:@/?\t\n😀́"), max_size=12)
markers = st.sampled_from(["#Person1#", "#Person23#", "#PhoneNumber#", *SPECIAL])


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_names_itself_and_what_it_stands_on(name):
    assert get_tokenizer(name).name == name


def test_versions_name_library_and_model():
    assert get_tokenizer("morpheme").version.startswith("kiwipiepy 0.")
    assert " / model 0." in get_tokenizer("morpheme").version
    assert get_tokenizer("default").version == "rouge_score 0.1.2"
    assert get_tokenizer("character").version == get_tokenizer("whitespace_markers").version == "dure 1"
    assert get_tokenizer("whitespace").version == "str.split, dure 2"


def test_morphemes_are_the_forms_of_kiwi():
    assert get_tokenizer("morpheme").tokenize("밥을 먹었다.") == ["밥", "을", "먹", "었", "다", "."]


@pytest.mark.parametrize("particle", ["은", "는", "이", "가", "과", "와", "의", "을", "를", "에게", "도"])
def test_the_particle_behind_a_marker_is_read_as_a_particle(particle):
    tokens = get_tokenizer("morpheme").tokenize(f"#Person2#{particle} 여행을 떠났다.")
    assert tokens == ["#Person2#", particle, "여행", "을", "떠나", "었", "다", "."]


@pytest.mark.parametrize("name", MARKER_NAMES)
def test_a_marker_is_one_token_wherever_it_stands(name):
    tokenizer = get_tokenizer(name, SPECIAL)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(beside, markers), max_size=4), beside)
    def check(pieces, last):
        tokens = tokenizer.tokenize("".join(before + marker for before, marker in pieces) + last)
        assert [token for token in tokens if token[0] in "#<["] == [marker for _, marker in pieces]

    check()


@pytest.mark.parametrize("name", MARKER_NAMES)
def test_markers_without_blanks_around_them_are_cut_out(name):
    tokens = get_tokenizer(name, SPECIAL).tokenize("<대화시작>#Person1#:안녕#Person2##Person3#도<중요>!")
    kept = [token for token in tokens if token[0] in "<#"]
    assert kept == ["<대화시작>", "#Person1#", "#Person2#", "#Person3#", "<중요>!"]


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_of_a_text_are_those_of_its_lines(name):
    tokenizer = get_tokenizer(name, SPECIAL)

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.one_of(around, markers), max_size=8).map("".join))
    def check(text):
        assert tokenizer.tokenize(text) == [
            token for line in text.split("\n") for token in tokenizer.tokenize(line)
        ]

    check()


@pytest.mark.parametrize("name", MARKER_NAMES)
def test_decomposed_hangul_gives_the_same_tokens(name):
    text = "#Person1#은 어제 <대화시작> 밥을 먹었다."
    special = [unicodedata.normalize("NFD", "<대화시작>")]
    tokens = get_tokenizer(name, special).tokenize(unicodedata.normalize("NFD", text))
    assert tokens == get_tokenizer(name, ["<대화시작>"]).tokenize(text)
    assert "<대화시작>" in tokens


@settings(max_examples=200)
@given(st.text() | around)
def test_default_is_the_tokenizer_of_rouge_score(text):
    assert get_tokenizer("default").tokenize(text) == RougeScoreTokenizer(use_stemmer=False).tokenize(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n　"])
def test_a_blank_text_has_no_token(name, text):
    assert get_tokenizer(name).tokenize(text) == []


@pytest.mark.parametrize("threads", ["1", "3", "many"])
def test_all_texts_at_once_give_the_tokens_of_one_at_a_time(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    texts = [f"#Person{number % 3}#은 {number}번 버스를 {threads} 타고 갔다." for number in range(150)]
    tokenizer = get_tokenizer("morpheme")
    at_once = tokenizer.tokenize_all(texts)
    assert at_once == [tokenizer.tokenize(text) for text in texts]


def test_a_lone_surrogate_does_not_stop_kiwi():
    assert get_tokenizer("morpheme").tokenize("밥을 \ud83d 먹었다")[-3:] == ["먹", "었", "다"]


def test_a_tokenizer_can_be_sent_to_another_process_and_works_after_a_fork():
    tokenizer = get_tokenizer("morpheme", SPECIAL)
    tokens = tokenizer.tokenize("<중요>한 말")
    assert pickle.loads(pickle.dumps(tokenizer)).tokenize("<중요>한 말") == tokens  # noqa: S301
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(tokenizer.tokenize, ("<중요>한 말은 새로",)).get(timeout=30)[0] == "<중요>"


def test_an_unknown_tokenizer_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="morphem") as caught:
        get_tokenizer("morphemes")
    assert "tokenizer=morpheme" in str(caught.value)


@pytest.mark.parametrize("token", ["", "  ", "<a\nb>"])
def test_a_special_token_that_cannot_be_kept_whole_is_refused(token):
    with pytest.raises(UserError, match="cannot be kept whole"):
        get_tokenizer("character", [token])


def test_scoring_loads_no_heavy_library():
    code = (
        "import sys, dure.metrics.rouge, dure.metrics.scoring; from dure.metrics import classification; "
        "classification.classification_report(['a', 'b'], ['a', 'a']); print(*sys.modules, sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert not {"kiwipiepy", "torch", "datasets", "sklearn", "nltk", "ray"} & set(done.stdout.split())
