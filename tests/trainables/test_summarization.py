"""The summarisation family: what is its own beside the contract."""

from __future__ import annotations

import pytest

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.metrics.rouge import rouge


def test_the_baseline_is_the_first_utterance_scored_by_the_rouge_of_the_experiment(tiny):
    experiment = tiny("t5", "full")
    data = experiment.data.model_copy(update={"max_dev_rows": None})
    family = load_family(experiment.model_copy(update={"data": data}))
    corpus = load_corpus(family, notify=lambda message: None)
    rows = family.sample("dev")
    assert len(corpus.dev) == len(rows)
    leads = [row["text"].split("\n")[0] for row in rows]
    assert all(lead.startswith("#Person1#") for lead in leads)
    scores = rouge(
        leads,
        [row["target"] for row in rows],
        tokenizer="character",
        special_tokens=["#Person1#", "#Person2#", "#Person3#"],
    )
    figures = family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    assert figures["eval_rouge_sum"] == scores.rouge_sum
    assert figures["eval_rouge2"] == scores.rouge2.f1
    assert "eval_loss" not in figures


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        ("\n #Person1#: 안녕. 잘 지내?\n#Person2#: 네", "#Person1#: 안녕. 잘 지내?"),
        ("비가 온다. 우산을 챙긴다.", "비가 온다."),
        ("3.5도까지 내려간다고 한다", "3.5도까지 내려간다고 한다"),
    ],
)
def test_the_lead_is_the_first_line_or_the_first_sentence_of_a_single_line(text, lead, tiny):
    family = load_family(tiny("t5", "full"))
    corpus = load_corpus(family, notify=lambda message: None)
    rows = family.encode({"text": [text], "target": ["요약"]}, corpus.tokenizer)
    assert rows["lead"] == [lead]
