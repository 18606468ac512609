"""Chat templates with habits of their own: what is learned is each answer as it stands, with its end, or it is refused."""

from __future__ import annotations

import pytest

from dure.errors import UserError
from tests.trainables.causal.toy_tokenizers import CHATML, CHATML_TOKENS, tokenizer_of
from trainables.causal.chat import Chat
from trainables.causal.template import set_template
from trainables.causal.turns import Turn

TALK = (
    Turn("system", "", "짧게."),
    Turn("user", "사과를 주세요."),
    Turn("assistant", "네, 여기."),
    Turn("user", "배는?"),
)
ANSWER = "배를 산다."
END = "<|im_end|>"
HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

MARKED_HEADERS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n{{ m.content }}"
    "<|im_end|>\n{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}" + ASKS
)
MARKED_IN_PARTS = (
    HEAD
    + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% generation %}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}" + ASKS
)
MARKED_AND_UNSTABLE = (
    HEAD + "{% if m.role == 'assistant' %}{% generation %}<think></think>{% endgeneration %}{% generation %}"
    "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think></think>' if messages | length < 4 else '' }}"
    "{{ 'go: ' if messages | length < 4 else '' }}{% endif %}"
)
"""Its prompts are no prefixes of what it renders later, so that marks alone tell of earlier answers."""
TWO_ENDS = (
    HEAD
    + "{{ m.content }}{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    + ASKS
)
ENDS_ONCE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '<|im_end|>' if loop.last and m.role == 'assistant' }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
DROPS_EARLIER_THOUGHTS = (
    HEAD + "{{ m.content if loop.last else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + ASKS
)
DROPS_ALL_THOUGHTS = HEAD + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + ASKS
OPENS_THOUGHTS = (
    HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
OPENS_ANSWERS = (
    HEAD
    + "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    + ASKS
)
IGNORES_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + ASKS
)
WANTS_PARTS = HEAD + "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}" + ASKS
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}" + ASKS
)
THOUGHT = "<think>\n음\n</think>\n\n" + ANSWER


def chat(template, *, options=None, told=None, **more):
    tokenizer = tokenizer_of(
        template, begins=True, control=(*CHATML_TOKENS, "<|return|>", "<think>", "</think>")
    )
    set_template(tokenizer, "tokenizer", stands_in=False, notify=(told if told is not None else []).append)
    return Chat(tokenizer, max_prompt=400, max_answer=60, options=options, **more)


def learned(made, turns=TALK, answer=ANSWER):
    (row,) = made.encode([turns], [answer])
    return [made.tokenizer.decode(row.ids[begin:end]) for begin, end in row.learned]


@pytest.mark.parametrize("template", [MARKED_HEADERS, MARKED_IN_PARTS])
def test_marks_around_headers_or_in_several_parts_change_nothing(template):
    assert learned(chat(template)) == [f"네, 여기.{END}", f"{ANSWER}{END}"]


def test_marks_find_the_answers_that_prompts_do_not():
    found = learned(chat(MARKED_AND_UNSTABLE))
    assert found == [f"<think></think>네, 여기.{END}", f"<think></think>{ANSWER}{END}"]


def test_an_answer_in_the_middle_ends_in_a_token_of_its_own():
    made = chat(TWO_ENDS)
    assert learned(made) == [f"네, 여기.{END}", f"{ANSWER}<|return|>"]
    ends = made.tokenizer.convert_tokens_to_ids([END, "<|return|>", "</s>"])
    assert made.end_ids == sorted(ends)  # generation stops at each of them


def test_an_earlier_answer_without_an_end_is_no_answer_that_can_be_learned():
    with pytest.raises(UserError, match=r"its end\n  try: task\.loss=last"):
        learned(chat(ENDS_ONCE))
    assert learned(chat(ENDS_ONCE, learned="last")) == [f"{ANSWER}{END}"]
    assert learned(chat(ENDS_ONCE), TALK[1:2]) == [f"{ANSWER}{END}"]


def test_a_thought_that_the_template_drops_is_never_lost_without_a_word():
    turns = (*TALK[:2], Turn("assistant", "<think>흠</think>네."), TALK[3])
    with pytest.raises(UserError, match=r"(?s)without its thought.*task\.loss=last"):
        learned(chat(DROPS_EARLIER_THOUGHTS), turns)
    assert learned(chat(DROPS_EARLIER_THOUGHTS, learned="last"), turns, THOUGHT) == [f"{THOUGHT}{END}"]
    # Of the last answer the thought stays, as a model must write it.
    assert learned(chat(DROPS_ALL_THOUGHTS), TALK, THOUGHT)[-1] == f"{THOUGHT}{END}"


def test_a_thought_that_the_prompt_opens_is_not_opened_twice():
    made = chat(OPENS_THOUGHTS, learned="last")
    (row,) = made.encode([TALK], [THOUGHT])
    text = made.tokenizer.decode(row.ids)
    assert text.count("<think>") == 1
    assert text.endswith(f"assistant\n{THOUGHT}{END}")
    assert learned(made, TALK, THOUGHT) == [f"{THOUGHT.removeprefix('<think>').lstrip()}{END}"]


def test_what_the_template_begins_answers_with_is_learned_and_no_part_of_a_text():
    made = chat(OPENS_ANSWERS)
    assert made.opening == "<think>\n\n</think>\n\n"
    (row,) = made.encode([TALK], [ANSWER])
    answer = row.ids[row.prompt_length :]
    assert made.tokenizer.decode(answer) == f"{made.opening}{ANSWER}{END}"
    assert made.tokenizer.decode(made.written([*answer, 0, 0], made.end_ids)) == ANSWER
    assert made.tokenizer.decode(made.written(answer[1:], made.end_ids)) == f"\n\n</think>\n\n{ANSWER}"
    assert chat(CHATML).opening == ""


def test_a_system_text_that_the_template_leaves_out_goes_into_the_first_turn():
    made = chat(IGNORES_SYSTEM)
    (row,) = made.encode([TALK], [ANSWER])
    assert made.tokenizer.decode(row.ids).startswith("<s><|im_start|>user\n짧게.\n\n사과를")


def test_a_system_text_is_never_put_into_an_answer():
    made = chat(ALTERNATES)
    greeted = (TALK[0], *TALK[2:])
    assert learned(made, greeted) == [f"네, 여기.{END}", f"{ANSWER}{END}"]
    (row,) = made.encode([greeted], [ANSWER])
    assert made.tokenizer.decode(row.ids).startswith(
        f"<s><|im_start|>user\n짧게.{END}\n<|im_start|>assistant\n네"
    )
    with pytest.raises(ValueError, match="roles must alternate"):
        made.encode([(TALK[1], TALK[1])], [ANSWER])


def test_a_template_that_wants_parts_in_place_of_texts_is_refused():
    with pytest.raises(UserError, match="leaves out the text of the turns"):
        chat(WANTS_PARTS)


def test_a_template_that_writes_the_date_is_told():
    told: list[str] = []
    dated = "{% set date_string = date_string or strftime_now('%d %b %Y') %}{{ date_string }}\n" + CHATML
    chat(dated, told=told)
    assert any("today's date" in line and "task.template_options" in line for line in told)
    told.clear()
    chat(CHATML, told=told)
    assert not any("date" in line for line in told)
