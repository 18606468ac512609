"""Conversations become ids as the chat template says, and only what is to be learned is learned."""

from __future__ import annotations

import json

import pytest

from dure.errors import UserError
from tests.trainables.causal.toy_tokenizers import (
    CHATML_TOKENS,
    FORGETS_THOUGHTS,
    tokenizer_of,
    tokenizers,
)
from trainables.causal.chat import Chat
from trainables.causal.template import set_template
from trainables.causal.turns import ConversationReader, Framing, Turn, recognised, roles_of

TOKENIZERS = tokenizers()
TALK = (
    Turn("system", "", "짧게."),
    Turn("user", "사과를 주세요."),
    Turn("assistant", "네, 여기 있습니다."),
    Turn("user", "사과 배 감", before="요약: ", after=" 끝"),
)
ANSWER = "사과를 산다."


def chat(name, *, max_prompt=400, max_answer=60, **more):
    tokenizer = TOKENIZERS[name] if isinstance(name, str) else name
    set_template(tokenizer, "tokenizer", stands_in=True, notify=lambda line: None)
    return Chat(tokenizer, max_prompt=max_prompt, max_answer=max_answer, **more)


def learned(made, encoded):
    return [made.tokenizer.decode(encoded.ids[begin:end]) for begin, end in encoded.learned]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_only_answers_are_learned_each_with_its_end_once(name):
    made = chat(name)
    (encoded,) = made.encode([TALK], [ANSWER])
    end = made.tokenizer.decode([made.end_id])
    assert learned(made, encoded) == [f"네, 여기 있습니다.{end}", f"{ANSWER}{end}"]
    assert encoded.ids[-1] == made.end_id
    (last,) = chat(name, learned="last").encode([TALK], [ANSWER])
    assert learned(made, last) == [f"{ANSWER}{end}"]
    ((begin, stop),) = chat(name, learned="all").encode([TALK], [ANSWER])[0].learned
    assert (begin, stop) == (1, len(encoded.ids))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_begins_once_where_the_tokenizer_begins_texts_and_else_never(name):
    made = chat(name)
    (encoded,) = made.encode([TALK], [ANSWER])
    begins = made.tokenizer("a")["input_ids"][0] == made.tokenizer.bos_token_id
    assert encoded.ids.count(made.tokenizer.bos_token_id) == int(begins)
    assert not begins or encoded.ids[0] == made.tokenizer.bos_token_id
    # Whoever uses the saved template gets the same ids.
    messages = [{"role": turn.speaker, "content": turn.content} for turn in TALK[1:2]]
    text = made.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    (alone,) = made.encode([TALK[1:2]], None)
    assert made.tokenizer(text, add_special_tokens=False)["input_ids"] == alone.ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_has_the_ids_that_stand_before_its_answer(name):
    made = chat(name)
    (asked,), (answered,) = made.encode([TALK], None), made.encode([TALK], [ANSWER])
    assert asked.ids == answered.ids[: answered.prompt_length]


def test_a_token_over_the_beginning_of_an_answer_leaves_the_prompt_as_it_is_alone():
    # The prompt ends in a space, which the tokenizer would join to the word behind it.
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    made = chat(tokenizer_of(template, control=CHATML_TOKENS))
    turns = (Turn("user", "사과를 주세요."), Turn("assistant", ANSWER), Turn("user", "요약"))
    (asked,), (row,) = made.encode([turns], None), made.encode([turns], [ANSWER])
    begin, end = row.learned[0]
    assert made.tokenizer.decode(row.ids[:begin]).endswith(
        "assistant:"
    )  # the space is of the token that is learned
    assert made.tokenizer.decode(row.ids[begin:end]) == f" {ANSWER}<|im_end|>"
    assert row.ids[: row.prompt_length] == asked.ids
    assert learned(made, row)[-1] == f"{ANSWER}<|im_end|>"


def test_a_mark_of_the_template_and_the_difference_of_prompts_find_the_same_answers():
    marked, plain = (chat(name).encode([TALK], [ANSWER])[0] for name in ("marked", "chatml"))
    assert [end - begin for begin, end in marked.learned] == [end - begin for begin, end in plain.learned]


def test_history_goes_before_the_prompt_is_cut_and_its_frame_and_instruction_stay():
    made = chat("chatml")
    (whole,) = made.encode([TALK], [ANSWER])
    (short,) = chat("chatml", max_prompt=whole.prompt_length - 1).encode([TALK], [ANSWER])
    text = made.tokenizer.decode(short.ids)
    assert short.is_cut
    assert "주세요" not in text
    assert "요약: 사과 배 감 끝" in text
    assert "짧게." in text
    (shorter,) = chat("chatml", max_prompt=short.prompt_length - 3).encode([TALK], [ANSWER])
    text = made.tokenizer.decode(shorter.ids)
    assert shorter.prompt_length <= short.prompt_length - 3
    assert "요약: " in text
    assert " 감 끝" in text
    assert "사과 배" not in text
    assert "짧게." in text
    assert text.endswith(f"{ANSWER}<|im_end|>")
    assert not shorter.is_answer_cut
    with pytest.raises(UserError, match="no more than 5 are allowed") as told:
        chat("chatml", max_prompt=5).encode([TALK], [ANSWER])
    setting, _, length = told.value.hint.partition(",")[0].partition("=")
    assert setting == "tokenizer.encoder_max_len"
    assert chat("chatml", max_prompt=int(length)).encode([TALK], [ANSWER])[0].is_cut


def test_an_answer_that_is_cut_is_told_and_does_not_teach_to_stop():
    made = chat("chatml", max_answer=4)
    (cut,) = made.encode([TALK[3:]], [ANSWER * 3])
    assert cut.is_cut
    assert cut.is_answer_cut
    assert len(cut.ids) - cut.prompt_length == 4
    assert made.end_id not in cut.ids[cut.prompt_length :]


def test_a_system_text_that_the_template_refuses_goes_into_the_first_turn():
    made = chat("no_system")
    (encoded,) = made.encode([TALK], [ANSWER])
    assert made.tokenizer.decode(encoded.ids).startswith("<s><start_of_turn>user\n짧게.\n\n사과를")


def test_an_answer_with_the_end_token_inside_is_refused():
    with pytest.raises(ValueError, match="ends answers"):
        chat("chatml").encode([TALK], ["사과<|im_end|>를 산다."])


def test_a_template_that_forgets_earlier_thoughts_is_not_searched_for_earlier_answers():
    tokenizer = tokenizer_of(FORGETS_THOUGHTS, control=CHATML_TOKENS)
    with pytest.raises(UserError, match=r"task\.loss=last"):
        chat(tokenizer).encode([TALK], [ANSWER])
    made = chat(tokenizer, learned="last")
    assert learned(made, made.encode([TALK], [ANSWER])[0]) == [f"{ANSWER}<|im_end|>"]


def test_a_real_tokenizer_without_a_template_must_be_given_one(tmp_path):
    tokenizer = tokenizer_of(None)
    with pytest.raises(UserError, match="no chat template") as caught:
        set_template(tokenizer, "tokenizer", stands_in=False, notify=lambda line: None)
    assert "task.chat_template=plain" in str(caught.value.hint)
    with pytest.raises(UserError, match="cannot be read"):
        set_template(tokenizer, str(tmp_path / "none.jinja"), stands_in=False, notify=lambda line: None)
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}{{ m.content }}|{% endfor %}", "utf-8")
    set_template(tokenizer, str(tmp_path / "mine.jinja"), stands_in=False, notify=lambda line: None)
    made = Chat(tokenizer, max_prompt=50, max_answer=50)
    assert made.tokenizer.decode(made.encode([TALK[1:2]], [ANSWER])[0].ids) == f"사과를 주세요.|{ANSWER}</s>"
    (tmp_path / "mine.jinja").write_text("{% for m in", "utf-8")
    with pytest.raises(UserError, match="chat template"):
        set_template(tokenizer, str(tmp_path / "mine.jinja"), stands_in=False, notify=lambda line: None)


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        (["id", "messages", "text"], "messages"),
        (["conversations"], "conversations"),
        (["output", "instruction", "input"], "instruction"),
        (["fname", "dialogue", "summary"], "dialogues"),
        (["text", "target"], "pairs"),
        (["document"], None),
    ],
)
def test_a_layout_is_recognised_by_its_columns(columns, layout):
    assert recognised(columns) == layout


def test_all_layouts_say_the_same():
    said = [("system", "짧게."), ("user", "안녕"), ("assistant", "네"), ("user", "가나  다\n라")]
    usual = json.dumps([{"role": who, "content": text} for who, text in [*said, ("assistant", "응")]])
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    older = json.dumps([{"from": names[who], "value": text} for who, text in said])
    asked, answer = ConversationReader("prompt"), ConversationReader("answer")
    parts = [{"role": "user", "content": [{"type": "text", "text": "가"}, {"type": "text", "text": "나"}]}]
    assert json.loads(asked.read(json.dumps(parts))) == [["user", "가나"]]
    empty = [{"role": "user", "content": "가", "tool_calls": None, "weight": 1, "name": "a"}]
    assert json.loads(asked.read(json.dumps(empty))) == [["user", "가"]]
    assert asked.read(usual) == asked.read(older)
    assert json.loads(asked.read(usual)) == [*map(list, said)]
    assert (answer.read(usual), answer.read(older)) == ("응", "")
    turns = Framing(system="다른").turns("messages", {"text": asked.read(usual)})
    assert [(turn.speaker, turn.content) for turn in turns] == said
    framing = Framing("요약:\n{text}\n끝", "짧게.")
    (system, user) = framing.turns("instruction", {"text": "옮겨라", "input": "나무", "target": "응"})
    assert (system.content, user.content) == ("짧게.", "요약:\n옮겨라\n\n나무\n끝")
    assert (user.before, user.text) == ("요약:\n옮겨라\n\n", "나무")
    assert framing.turns("pairs", {"text": "나무"})[1].content == "요약:\n나무\n끝"
    assert {role.name for role in roles_of("messages")} == {"id", "text", "target", "words"}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("안녕", "no JSON"),
        ("[]", "no list of turns"),
        ('["a"]', "turn 1 that is no object"),
        ('[{"content": "a"}]', "does not say who speaks in turn 1"),
        ('[{"role": "tool", "content": "a"}]', "turn 1 the unknown role 'tool'"),
        ('[{"role": "user", "content": " "}]', "turn 1 without text"),
        ('[{"role": "assistant", "content": "a"}]', "no turn of the user"),
        ('[{"role": "assistant", "content": "", "tool_calls": [{}]}]', "turn 1 with 'tool_calls'"),
        (
            '[{"role": "assistant", "content": "a", "reasoning_content": "b"}]',
            "turn 1 with 'reasoning_content'",
        ),
        ('[{"role": "assistant", "content": "a", "weight": 0}]', "turn 1 as not to be learned"),
        ('[{"from": "gpt", "value": "a", "train": false}]', "turn 1 as not to be learned"),
        (
            '[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]',
            "turn 1 without text",
        ),
        ('[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]', "as turn 2"),
    ],
)
def test_what_is_no_conversation_is_told(cell, said):
    with pytest.raises(UserError, match=said):
        ConversationReader("prompt").read(cell)
