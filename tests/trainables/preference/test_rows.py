"""Pairs in every usual layout say the same, and what is wrong with them is told."""

from __future__ import annotations

import json

import pytest

from dure.config.loading import dump_yaml
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.loading import family_of_run
from dure.runs.folder import RunFolder
from trainables.causal.turns import ConversationReader

SAID = [
    ("사과를 주세요.", "네, 여기.", "싫어요."),
    ("배를 주세요.", "없습니다.", "[모름]"),
    ("감은요?", "내일 옵니다.", "몰라요."),
    ("귤은?", "다 팔렸어요.", "가세요."),
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


LAYOUTS = {
    "texts": lambda asked, one, two: {"prompt": asked, "chosen": one, "rejected": two},
    "prompt in turns": lambda asked, one, two: {
        "prompt": [user(asked)],
        "chosen": [assistant(one)],
        "rejected": [assistant(two)],
    },
    "whole": lambda asked, one, two: {
        "chosen": [user(asked), assistant(one)],
        "rejected": [user(asked), assistant(two)],
    },
    "whole beside the prompt": lambda asked, one, two: {
        "prompt": "another text",
        "chosen": [user(asked), assistant(one)],
        "rejected": [user(asked), assistant(two)],
        "score_chosen": 1.5,
    },
    "one turn each": lambda asked, one, two: {
        "conversations": [{"from": "human", "value": asked}],
        "chosen": {"from": "gpt", "value": one},
        "rejected": {"from": "gpt", "value": two},
    },
    "texts to turns": lambda asked, one, two: {"messages": [user(asked)], "chosen": one, "rejected": two},
}


def corpus_of(tiny, folder, rows, notify=lambda line: None):
    for name, some in (("train", rows[:3]), ("dev", rows[3:])):
        lines = (f"{json.dumps(row, ensure_ascii=False)}\n" for row in some)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    experiment = tiny(
        "llama", "full", family="trainables.preference", task={"method": "simpo"}, best_metric="eval_loss"
    ).with_({"data.train": str(folder / "train.jsonl"), "data.dev": str(folder / "dev.jsonl")})
    return load_corpus(load_family(experiment, notify), notify=lambda line: None)


def texts_of(corpus, split):
    """Return of every answer the whole text and what of it is learned; a rehearsal's tokenizers may differ."""
    return [
        (
            corpus.tokenizer.decode(row[ids]),
            [corpus.tokenizer.decode(row[ids][slice(*span)]) for span in row[spans]],
        )
        for row in getattr(corpus, split)
        for ids, spans in (("input_ids", "learned"), ("rejected_ids", "rejected_learned"))
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same_as_texts(layout, tiny, tmp_path):
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    told = []
    expected = corpus_of(tiny, plain, [LAYOUTS["texts"](*row) for row in SAID])
    corpus = corpus_of(tiny, other, [LAYOUTS[layout](*row) for row in SAID], told.append)
    for split in ("train", "dev"):
        assert texts_of(corpus, split) == texts_of(expected, split)
    assert any("read as conversations" in line for line in told) == (layout != "texts")


def test_answers_to_different_prompts_name_the_row(tiny, tmp_path):
    rows = [LAYOUTS["whole"](*row) for row in SAID]
    rows[1]["rejected"][0] = user("감을 주세요.")
    with pytest.raises(UserError, match="answers to different prompts, the first of them row 2"):
        corpus_of(tiny, tmp_path, rows)


def test_an_answer_of_the_user_names_the_row(tiny, tmp_path):
    rows = [LAYOUTS["prompt in turns"](*row) for row in SAID]
    rows[2]["rejected"] = [user("몰라요.")]
    with pytest.raises(UserError, match="ends with a turn of the user") as caught:
        corpus_of(tiny, tmp_path, rows)
    assert "train.jsonl, row 3" in str(caught.value.where)


@pytest.mark.parametrize(("layout", "prompt"), [("prompt in turns", "prompt"), ("whole", "chosen")])
def test_a_run_reads_prompts_as_it_was_trained_when_its_training_table_is_gone(
    layout, prompt, tiny, tmp_path
):
    row = json.dumps(LAYOUTS[layout](*SAID[0]))
    (tmp_path / "train.jsonl").write_text(row, encoding="utf-8")
    experiment = tiny("llama", "full", family="trainables.preference", task={}, best_metric="eval_loss")
    family = load_family(experiment.with_({"data.train": str(tmp_path / "train.jsonl")}))
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.experiment.write_text(dump_yaml(family.experiment), encoding="utf-8")
    run.environment.write_text(json.dumps({"recognised": family.recognised()}), encoding="utf-8")
    (tmp_path / "train.jsonl").unlink()
    later = family_of_run(run)
    assert later.layout == "messages"
    asked = next(role for role in later.roles if role.name == "text")
    assert (later.experiment.data.columns["text"], asked.reader) == (prompt, ConversationReader("prompt"))
