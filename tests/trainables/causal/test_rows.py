"""Tables in every layout reach the model, and what is wrong with them is told."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from dure.config.loading import dump_yaml
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import encode_split, load_corpus, read_split
from dure.family.loading import family_of_run
from dure.runs.folder import RunFolder
from trainables.causal.template import PLAIN, saved_tokenizer
from trainables.samples.chats import chat_rows, write_chats

SAID = [
    ("사과를 주세요.", "네, 여기."),
    ("배를 주세요.", "없습니다."),
    ("감은요?", "내일 옵니다."),
    ("귤은?", "다 팔렸어요."),
]


def tables_of(layout):
    """Give rows of a layout, which all say the same."""
    usual = [[{"role": "user", "content": one}, {"role": "assistant", "content": two}] for one, two in SAID]
    older = [[{"from": "human", "value": one}, {"from": "gpt", "value": two}] for one, two in SAID]
    return {
        "messages": [{"messages": each} for each in usual],
        "conversations": [{"conversations": each} for each in older],
        "instruction": [{"instruction": one, "output": two} for one, two in SAID],
        "pairs": [{"text": one, "target": two} for one, two in SAID],
        "dialogues": [
            {"fname": str(n), "dialogue": one, "summary": two} for n, (one, two) in enumerate(SAID)
        ],
    }[layout]


def written(path, rows):
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return str(path)


def family_of(tiny, folder, rows, notify=lambda line: None, **task):
    train, dev = written(folder / "train.jsonl", rows[:3]), written(folder / "dev.jsonl", rows[3:])
    experiment = tiny("llama", "full", task={"rouge_tokenizer": "character", **task})
    return load_family(experiment.with_({"data.train": train, "data.dev": dev}), notify)


@pytest.mark.parametrize("layout", ["messages", "conversations", "instruction", "pairs", "dialogues"])
def test_every_layout_is_recognised_told_and_says_the_same(layout, tiny, tmp_path):
    told = []
    family = family_of(tiny, tmp_path, tables_of(layout), told.append)
    corpus = load_corpus(family, notify=lambda line: None)
    assert family.layout == layout
    assert any(f"read as {layout}" in line for line in told)
    assert corpus.train["reference"][:] == [answer for _, answer in SAID[:3]]
    decoded = corpus.tokenizer.decode(corpus.train[0]["input_ids"])
    assert decoded.startswith("<s>")
    assert decoded.endswith("</s>")


def test_a_conversation_without_an_answer_is_an_error_that_names_the_row(tiny, tmp_path):
    rows = tables_of("messages")
    rows[1]["messages"].pop()
    with pytest.raises(UserError, match=r"row 2 ends without an answer(?s:.*)leave the rows out"):
        load_corpus(family_of(tiny, tmp_path, rows), notify=lambda line: None)


def test_a_turn_of_nobody_is_an_error_that_names_the_row(tiny, tmp_path):
    rows = tables_of("messages")
    rows[2]["messages"][0]["role"] = "tool"
    with pytest.raises(UserError, match="turn 1 the unknown role 'tool'") as caught:
        load_corpus(family_of(tiny, tmp_path, rows), notify=lambda line: None)
    assert "train.jsonl, row 3" in str(caught.value.where)


def test_spaces_of_a_conversation_stay(tiny, tmp_path):
    rows = tables_of("messages")
    rows[0]["messages"][0]["content"] = "if a:\n    b  = 1"
    family = family_of(tiny, tmp_path, rows)
    told = load_corpus(family, notify=lambda line: None)
    assert told.train["lead"][0] == "if a:"
    assert json.loads(read_split(family, "train", family.experiment.data.train).dataset["text"][0])[0][1] == (
        "if a:\n    b  = 1"
    )


def test_nothing_is_put_around_whole_conversations_and_that_is_told(tiny, tmp_path):
    told = []
    rows = tables_of("messages")
    framed = load_corpus(
        family_of(tiny, tmp_path, rows, told.append, prompt="요약: {text}"), notify=lambda line: None
    )
    plain = load_corpus(family_of(tiny, tmp_path, rows), notify=lambda line: None)
    assert framed.train["input_ids"][:] == plain.train["input_ids"][:]
    assert any(line.startswith("task.prompt is not used") for line in told)


def test_a_prompt_without_the_text_is_refused(tiny):
    with pytest.raises((UserError, ValidationError), match="text"):
        load_family(tiny("llama", "full", task={"prompt": "요약"}))


def test_answers_that_are_cut_are_told(tiny):
    told = []
    experiment = tiny("llama", "full").with_({"tokenizer.decoder_max_len": 5})
    family = load_family(experiment, told.append)
    corpus = load_corpus(family, notify=lambda line: None)
    family.training_rows(corpus.train)
    assert any("40 of 40 answers are longer than tokenizer.decoder_max_len=5" in line for line in told)


@pytest.mark.parametrize("layout", ["messages", "pairs"])
def test_a_control_token_that_a_user_typed_is_told(layout, tiny, tmp_path):
    told, rows = [], tables_of(layout)
    if layout == "pairs":
        rows[1]["text"] += " </s>#Person1#: 사과"
    else:
        rows[1]["messages"][0]["content"] += " </s>#Person1#: 사과"
    family = family_of(tiny, tmp_path, rows, told.append)
    family.training_rows(load_corpus(family, notify=lambda line: None).train)
    (line,) = (line for line in told if "control token" in line)
    assert line.startswith("1 of 3 prompts hold a control token in their text, such as '</s>'")


def test_a_control_token_of_the_experiment_is_no_typed_one(tiny, tmp_path):
    told, rows = [], tables_of("pairs")
    family = family_of(tiny, tmp_path, rows, told.append, prompt="</s>{text}")
    family.training_rows(load_corpus(family, notify=lambda line: None).train)
    assert not any("control token" in line for line in told)


def test_the_sample_of_chats_ends_in_the_summary_of_its_dialogue(tmp_path):
    rows = [json.loads(row.messages) for row in chat_rows("dev")]
    assert len(rows) == 200
    assert all(row[-1]["role"] == "assistant" for row in rows)
    assert {len([m for m in row if m["role"] == "assistant"]) for row in rows} == {1, 2}
    paths = write_chats(tmp_path)
    test = [json.loads(line) for line in paths["test"].read_text("utf-8").splitlines()]
    truth = [json.loads(line) for line in paths["test_reference"].read_text("utf-8").splitlines()]
    assert [row["id"] for row in test] == [row["id"] for row in truth]
    assert all(row["messages"][-1]["role"] == "user" for row in test)


def test_a_text_ends_in_every_token_that_the_checkpoint_ends_texts_with(tiny, cpu, tmp_path):
    family = load_family(tiny("llama", "full"))
    tokenizer = load_corpus(family, notify=lambda line: None).tokenizer
    model = family.load_model(tokenizer, cpu)
    one, other = tokenizer.convert_tokens_to_ids(["#Person2#", "#Person3#"])
    model.config.eos_token_id = [tokenizer.eos_token_id, one]
    model.generation_config.eos_token_id = [
        tokenizer.eos_token_id,
        other,
    ]  # as many checkpoints, it names more
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "checkpoint")
    changes = {"rehearsal.enabled": False, "model.checkpoint": str(tmp_path / "checkpoint")}
    trained = load_family(tiny("llama", "full").with_(changes))
    loaded = trained.load_model(tokenizer, cpu)
    ends = sorted({tokenizer.eos_token_id, one, other})
    assert loaded.generation_config.eos_token_id == ends
    trained.export(loaded, tokenizer, tmp_path / "final")
    later = load_family(tiny("llama", "full").with_(changes))
    exported, _ = later.load_exported(tmp_path / "final")
    assert exported.generation_config.eos_token_id == ends
    # What is predicted is over there too, as what validation scores.
    said = tokenizer.convert_tokens_to_ids("#Person1#")
    for end in ends:
        answers = torch.tensor([[said, end, tokenizer.pad_token_id, said]])
        for each in (trained, later):
            assert each.predictions(answers, {}, tokenizer) == [{"summary": "#Person1#"}]


def test_a_template_from_a_file_is_saved_and_the_file_no_more_needed(tiny, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text(PLAIN, encoding="utf-8")
    experiment = tiny("llama", "full", task={"chat_template": str(template)})
    corpus = load_corpus(load_family(experiment), notify=lambda line: None)
    corpus.tokenizer.save_pretrained(tmp_path / "final")
    template.unlink()
    later = load_family(experiment)
    table = read_split(later, "dev", experiment.data.dev)
    encoded = encode_split(later, saved_tokenizer(tmp_path / "final"), table, notify=lambda line: None)
    assert corpus.dev["input_ids"][0] in encoded["input_ids"][:]


def test_r_drop_is_refused_with_the_reason_before_anything_is_read(tiny):
    with pytest.raises(UserError, match="whole distributions") as caught:
        load_family(tiny("llama", "full", objective={"r_drop": 1.0}))
    assert caught.value.where == "objective.r_drop"
    assert caught.value.hint == "objective.r_drop=0"


def test_a_run_reads_tables_as_it_was_trained_when_its_training_table_is_gone(tiny, tmp_path):
    family = family_of(tiny, tmp_path, tables_of("messages"))
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.experiment.write_text(dump_yaml(family.experiment), encoding="utf-8")
    run.environment.write_text(json.dumps({"recognised": family.recognised()}), encoding="utf-8")
    (tmp_path / "train.jsonl").unlink()
    assert family_of_run(run).layout == "messages"
    assert family_of_run(run, overrides=["task.rows=pairs"]).layout == "pairs"


def test_a_text_by_itself_is_what_a_user_says(tiny, tmp_path):
    family = family_of(tiny, tmp_path, tables_of("messages"))
    role = next(role for role in family.roles if role.is_input)
    asked = json.dumps([{"role": "user", "content": "감은요?"}], ensure_ascii=False)
    assert role.given("감은요?") == asked
    assert role.given(asked) == asked
    assert json.loads(role.reader.read(asked)) == [["user", "감은요?"]]
