"""ROUGE is held against ``rouge_score`` with the same tokeniser."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer, lcs_ind

from dure.errors import UserError
from dure.metrics.lcs import lcs_positions, unpack
from dure.metrics.rouge import rouge, rouge_pairs
from dure.metrics.tokenizers import get_tokenizer

METRICS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
SPECIAL = ("<대화시작>",)

word = st.sampled_from(
    [
        "나는",
        "너는",
        "밥을",
        "먹었다",
        "갔다.",
        "#Person1#은",
        "#Person2#:",
        "<대화시작>",
        "the",
        "a",
        "went",
        "home,",
        "Home",
    ]
)
line = st.lists(word, max_size=14).map(" ".join)
lines = st.lists(line, max_size=6).map("\n".join)
loose = st.text(st.sampled_from("가나다라 ab \n\n.#é"), max_size=120)
text = lines | loose | st.just("")
tokens = st.lists(st.integers(0, 3), min_size=1, max_size=140)


def assert_same(ours, theirs):
    for metric in METRICS:
        score = getattr(ours, metric)
        assert abs(score.precision - theirs[metric].precision) < 1e-9, metric
        assert abs(score.recall - theirs[metric].recall) < 1e-9, metric
        assert abs(score.f1 - theirs[metric].fmeasure) < 1e-9, metric


def scorer(tokenizer):
    return RougeScorer(METRICS, use_stemmer=False, tokenizer=get_tokenizer(tokenizer, SPECIAL))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("tokenizer", "examples"),
    [("whitespace_markers", 200), ("character", 200), ("default", 120), ("morpheme", 40)],
)
def test_every_score_is_that_of_rouge_score(tokenizer, examples):
    independent = scorer(tokenizer)

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.tuples(text, text), min_size=1, max_size=4))
    def check(pairs):
        predictions, references = zip(*pairs, strict=True)
        ours = rouge_pairs(predictions, references, tokenizer=tokenizer, special_tokens=SPECIAL)
        for our, prediction, reference in zip(ours, predictions, references, strict=True):
            assert_same(our, independent.score(reference, prediction))

    check()


class _Split:
    """The tokeniser that published Korean figures are computed with."""

    def tokenize(self, text):
        return text.split()


def test_whitespace_is_str_split_in_rouge_score():
    independent = RougeScorer(METRICS, use_stemmer=False, tokenizer=_Split())

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(text, text), min_size=1, max_size=4))
    def check(pairs):
        predictions, references = zip(*pairs, strict=True)
        ours = rouge_pairs(predictions, references, tokenizer="whitespace", special_tokens=SPECIAL)
        for our, prediction, reference in zip(ours, predictions, references, strict=True):
            assert_same(our, independent.score(*map(composed, (reference, prediction))))

    check()


def composed(text):
    return unicodedata.normalize("NFC", text)


def test_the_variant_that_cuts_markers_from_particles_has_a_name_of_its_own():
    prediction, reference = ["#Person1#은 집에 갔다"], ["#Person1#이 집에 갔다"]
    assert rouge(prediction, reference, tokenizer="whitespace").rouge1.f1 == pytest.approx(2 / 3)
    marked = rouge(prediction, reference, tokenizer="whitespace_markers")
    assert marked.rouge1.f1 == pytest.approx(3 / 4)
    assert (marked.tokenizer, marked.tokenizer_version) == ("whitespace_markers", "dure 1")


def test_default_is_rouge_score_without_any_tokenizer_given():
    independent = RougeScorer(METRICS, use_stemmer=False)
    prediction, reference = "The cat’s on THE mat.\nIt sleeps", "a cat is on the mat\nand it sleeps 잔다"
    (ours,) = rouge_pairs([prediction], [reference], tokenizer="default")
    assert_same(ours, independent.score(reference, prediction))


@pytest.mark.parametrize("tokenizer", ["whitespace", "character"])
def test_the_best_of_several_references_is_chosen_per_metric_as_rouge_score_does(tokenizer):
    independent = scorer(tokenizer)

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.tuples(text, st.lists(text, min_size=1, max_size=4)), min_size=1, max_size=4))
    def check(rows):
        predictions, groups = zip(*rows, strict=True)
        ours = rouge_pairs(predictions, groups, tokenizer=tokenizer, special_tokens=SPECIAL)
        for our, prediction, group in zip(ours, predictions, groups, strict=True):
            assert_same(our, independent.score_multi(group, prediction))

    check()


def test_the_mean_over_several_references_is_the_mean_of_their_scores():
    prediction, group = "나는 밥을 먹었다", ["나는 밥을 먹는다", "밥", "너는 안 먹었다 정말"]
    (ours,) = rouge_pairs([prediction], [group], tokenizer="whitespace", multi_reference="mean")
    each = [scorer("whitespace").score(reference, prediction) for reference in group]
    for metric in METRICS:
        assert getattr(ours, metric).f1 == pytest.approx(np.mean([one[metric].fmeasure for one in each]))
        assert getattr(ours, metric).recall == pytest.approx(np.mean([one[metric].recall for one in each]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=8))
def test_the_positions_of_a_subsequence_are_those_rouge_score_walks_back(pairs):
    references, candidates = zip(*pairs, strict=True)
    kept = unpack(lcs_positions(references, candidates))
    for reference, candidate, flags in zip(references, candidates, kept, strict=True):
        assert np.flatnonzero(flags).tolist() == lcs_ind(reference, candidate)


@pytest.mark.parametrize("length", [1, 62, 63, 64, 126, 127, 190])
def test_positions_are_right_at_the_edges_of_a_word(length):
    random = np.random.default_rng(length)
    reference = random.integers(0, 5, length).tolist()
    candidate = random.integers(0, 5, length + 3).tolist()
    for other in (candidate, reference, reference[::-1]):
        (flags,) = unpack(lcs_positions([reference], [other]))
        assert np.flatnonzero(flags).tolist() == lcs_ind(reference, other)


def test_many_pairs_across_batches_and_chunks_are_scored_in_their_order():
    random = np.random.default_rng(0)
    vocabulary = np.array(["가", "나", "다", "라마", "바\n", "사\n", "아"])
    made = [" ".join(random.choice(vocabulary, random.integers(0, 90))) for _ in range(1200)]
    predictions, references = made[:600], made[600:]
    ours = rouge_pairs(predictions, references, tokenizer="whitespace")
    independent = scorer("whitespace")
    for our, prediction, reference in zip(ours, predictions, references, strict=True):
        assert_same(our, independent.score(reference, prediction))


def test_hangul_scores_zero_with_the_english_tokenizer_and_not_with_ours():
    prediction, reference = ["나는 밥을 먹었다"], ["나는 밥을 먹는다"]
    english = rouge(prediction, reference, tokenizer="default")
    assert english.rouge1.f1 == 0
    assert english.num_empty_predictions == 1
    assert rouge(prediction, reference).rouge1.f1 > 0.6


def test_an_empty_prediction_scores_zero_and_is_counted():
    result = rouge(["", " \n", "밥"], ["밥", "밥", "밥"], tokenizer="character")
    assert result.num_empty_predictions == 2
    assert result.num_pairs == 3
    assert result.rouge1.f1 == pytest.approx(1 / 3)


def test_composed_and_decomposed_hangul_are_the_same():
    assert rouge(["각난"], ["각난"], tokenizer="character").rougeL.f1 == 1


def test_the_record_has_stable_keys_plain_numbers_and_names_its_tokenizer():
    result = rouge(["#Person1#은 밥을 먹었다"], ["#Person1#은 밥을 먹는다"])
    record = result.as_dict()
    kinds = [f"{metric}{kind}" for metric in METRICS for kind in ("", "_precision", "_recall")]
    named = ["rouge_sum", "num_pairs", "num_empty_predictions", "tokenizer", "tokenizer_version"]
    assert list(record) == [*kinds, *named]
    assert all(type(record[key]) is float and 0 <= record[key] <= 1 for key in kinds)
    assert record["rouge_sum"] == pytest.approx(record["rouge1"] + record["rouge2"] + record["rougeL"])
    assert record["tokenizer"] == "morpheme"
    assert "kiwipiepy" in record["tokenizer_version"]
    assert json.loads(json.dumps(record)) == record


def test_the_mean_is_over_the_pairs():
    predictions, references = ["가 나", "다", "라"], ["가", "다", "마"]
    each = rouge_pairs(predictions, references, tokenizer="whitespace")
    mean = rouge(predictions, references, tokenizer="whitespace")
    assert mean.rouge1.f1 == pytest.approx(np.mean([one.rouge1.f1 for one in each]))
    assert mean.rouge_sum == pytest.approx(np.mean([one.rouge_sum for one in each]))


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([], [], "no prediction"),
        (["가"], ["가", "나"], "1 predictions do not pair up with 2 references"),
        ("가나", "가나", "one text"),
        (["가", "나"], [["가"], []], "no reference"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, references, words):
    with pytest.raises(UserError, match=words):
        rouge(predictions, references, tokenizer="character")


def test_an_unknown_way_with_references_is_refused():
    with pytest.raises(UserError, match="worst"):
        rouge(["가"], [["가"]], tokenizer="character", multi_reference="worst")
