"""Conversations to token ids: the chat template, the tokens that are learned, and what is cut when one is too long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from dure.errors import UserError
from dure.events import Notify
from trainables.causal.turns import Learned, Turn, Turns

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
)
"""The template of a model that knows none: everything that is said one after another, each answer ended."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ASKED, _ANSWERED = "무엇?", "무엇!"
"""What templates are tried with."""
_UNSTABLE = (
    "the chat template renders an answer otherwise as soon as another turn follows, so that it cannot be found; "
    "task.loss=last learns the last one only"
)


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids.

    Attributes:
        ids: All of them, up to the end of the last answer; without an answer up to where it is to begin.
        prompt_length: How many of them stand before the last answer.
        learned: First id and the one behind the last of every part that is learned.
        is_cut: Whether something of the conversation was left out.
        is_answer_cut: Whether that is the end of the last answer, which is then learned without its end token.
    """

    ids: list[int]
    prompt_length: int
    learned: list[list[int]]
    is_cut: bool = False
    is_answer_cut: bool = False


def set_template(tokenizer: PreTrainedTokenizerBase, source: str, *, stands_in: bool, notify: Notify) -> None:
    """Give a tokenizer the chat template that conversations are rendered by, and that is saved with it.

    A template that does not begin with the token by which the tokenizer begins every text gets it: then the two have
    it once, wherever the model is used.

    Args:
        tokenizer: The tokenizer; is changed.
        source: ``tokenizer`` for its own template, ``plain`` for :data:`PLAIN`, or a file.
        stands_in: Whether :data:`PLAIN` stands in for a template of its own that it lacks, as in a rehearsal.
        notify: Gets a line on what is not done as said.

    Raises:
        UserError: It has none, or the file cannot be read or is no template.
    """
    if source == "tokenizer" and tokenizer.chat_template is None and stands_in:
        notify("the rehearsal's tokenizer has no chat template: texts stand one after another")
        source = "plain"
    if source == "plain":
        tokenizer.chat_template = PLAIN
    elif source != "tokenizer":
        tokenizer.chat_template = template_in(Path(source))
    elif tokenizer.chat_template is None:
        raise UserError(
            "the tokenizer has no chat template, as that of a model that was trained on no conversations",
            where="task.chat_template",
            expected="a file with one, or plain",
            hint="task.chat_template=plain puts what is said one after another",
        )
    template = tokenizer.get_chat_template()
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    try:
        text, _ = _rendered(template, _messages((Turn("user", _ASKED),)), tokenizer.special_tokens_map, {})
    except ValueError as error:
        raise UserError(str(error), where="task.chat_template") from None
    if begins and not text.startswith(tokenizer.bos_token):
        notify(f"the chat template gets the tokenizer's {tokenizer.bos_token} at its beginning")
        tokenizer.chat_template = "{{ bos_token }}" + template


def template_in(file: Path) -> str:
    """Return the template that a file holds.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UserError(
            f"'{file}' cannot be read: {reason}",
            where="task.chat_template",
            expected="tokenizer, plain, or a file with a Jinja template",
        ) from None


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was saved with a model, as it was.

    transformers takes that of some model types, such as qwen2, for the one of their first checkpoints, and reads the
    vocabulary alone.
    """
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(folder, local_files_only=True)
    return tokenizer


class Chat:
    """Turns conversations into token ids by the chat template of a tokenizer.

    Args:
        tokenizer: The tokenizer, with its template (:func:`set_template`).
        learned: Whether every answer is learned, the last one, or all text.
        max_prompt: Most ids before the last answer.
        max_answer: Most ids of the last answer, its end token counted.
        options: What the template takes beside the conversation, such as ``enable_thinking``.

    Attributes:
        end_id: The token that ends an answer.
        end_ids: All tokens that end a generated text.

    Raises:
        UserError: The template is none, or there is no token to end an answer with.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        learned: Learned = "answers",
        max_prompt: int,
        max_answer: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.learned = learned
        self.max_prompt, self.max_answer = max_prompt, max_answer
        self._options = dict(options or {})
        self._template = str(tokenizer.get_chat_template())
        self._has_marks = bool(_MARKS.search(self._template))
        self._takes_system = self._renders((Turn("system", "", _ASKED), Turn("user", _ASKED)))
        end = self._end_of_answers()
        if end is None and tokenizer.eos_token is None:
            raise UserError(
                "neither the chat template nor the tokenizer has a token that ends an answer",
                where="task.chat_template",
                hint="a template that ends each answer in a token of the vocabulary",
            )
        self._adds_end = end is None
        self._end = str(tokenizer.eos_token) if end is None else end
        self.end_id = int(tokenizer.convert_tokens_to_ids(self._end.strip()))
        own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.end_ids = sorted({self.end_id, *own})

    def encode(self, asked: Sequence[Turns], answers: Sequence[str] | None) -> list[Encoded]:
        """Return conversations as ids.

        Ids of a prompt are those that it has alone, so that training and generation go on from the same ones.

        Args:
            asked: What stands before the last answer of each, which the user's turn ends.
            answers: The last answer of each; None where they are to be generated.

        Raises:
            ValueError: A conversation cannot be rendered, is too long even when all that may be cut is, or an answer
                holds the token that ends it.
        """
        if answers is None:
            texts = [self._prompt(turns) for turns in asked]
            return [
                Encoded(ids, len(ids), []) if len(ids) <= self.max_prompt else self._shortened(turns, None)
                for turns, ids in zip(asked, self._ids(texts), strict=True)
            ]
        parts = [self._parts(turns, answer) for turns, answer in zip(asked, answers, strict=True)]
        ids = iter(self._ids([text[:end] for text, cuts in parts for end in cuts]))
        found = []
        for turns, answer, (text, cuts) in zip(asked, answers, parts, strict=True):
            encoded = self._joined(text, cuts, [next(ids) for _ in cuts])
            too_long = encoded.prompt_length > self.max_prompt
            found.append(self._shortened(turns, answer) if too_long else encoded)
        return found

    def _joined(self, text: str, cuts: Sequence[int], prefixes: Sequence[list[int]]) -> Encoded:
        """Return a conversation of which every answer is between the two of a pair of cuts.

        Args:
            text: The conversation.
            cuts: Where an answer begins or is over, in turn; the last is the end.
            prefixes: Ids of the text up to every cut.
        """
        whole = prefixes[-1]
        ends = [len(prefix) for prefix in prefixes]
        if any(whole[:end] != prefix for end, prefix in zip(ends, prefixes, strict=True)):
            # A token reaches over a cut: every part is taken apart, and the first as it is when it stands alone.
            pieces = [prefixes[0], *self._ids([text[one:other] for one, other in pairwise(cuts)])]
            whole = [token for piece in pieces for token in piece]
            ends = [sum(map(len, pieces[: place + 1])) for place in range(len(pieces))]
        answers = [list(pair) for pair in zip(ends[::2], ends[1::2], strict=True)]
        begin, end = answers[-1]
        is_cut = end - begin > self.max_answer
        if is_cut:
            end = answers[-1][1] = begin + self.max_answer
        for first, last in answers:
            count = whole[first:last].count(self.end_id)
            if count != (0 if is_cut and last == end else 1):
                raise ValueError(
                    f"an answer holds the token {self._end!r}, which ends answers, {count} times"
                )
        learned = {"answers": answers, "last": answers[-1:], "all": [[1, end]]}[self.learned]
        return Encoded(whole[:end], begin, learned, is_cut, is_cut)

    def _shortened(self, turns: Turns, answer: str | None) -> Encoded:
        """Return a conversation without its oldest turns, and if that is not enough without the beginning of a text.

        System text, instructions and the frame of the template stay. The last turn of the user stays too, and as much
        of the end of its text as there is room for.
        """
        system, said = (turns[:1], turns[1:]) if turns[0].speaker == "system" else ((), turns)
        while len(said) > 1:
            # What is left begins with the user, as templates want it.
            said = said[next(place for place in range(1, len(said)) if said[place].speaker == "user") :]
            if self._fits((*system, *said)):
                break
        last = said[-1]

        def with_end(characters: int) -> Turns:
            return (
                *system,
                *said[:-1],
                replace(last, text=last.text[len(last.text) - characters :].lstrip()),
            )

        fitting, too_many = 0, len(last.text) + 1
        if not self._fits(with_end(0)):
            raise ValueError(
                f"the prompt without its text has more than tokenizer.encoder_max_len={self.max_prompt} tokens"
            )
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            if self._fits(with_end(middle)):
                fitting = middle
            else:
                too_many = middle
        if not fitting and last.text:
            raise ValueError(
                f"tokenizer.encoder_max_len={self.max_prompt} leaves no room for any of the text"
            )
        kept = with_end(fitting)
        ((encoded),) = self.encode([kept], None if answer is None else [answer])
        return replace(encoded, is_cut=True)

    def _fits(self, turns: Turns) -> bool:
        (ids,) = self._ids([self._prompt(turns)])
        return len(ids) <= self.max_prompt

    def _parts(self, turns: Turns, answer: str) -> tuple[str, list[int]]:
        """Return the text of a conversation, and where each answer begins and is over."""
        whole = (*turns, Turn("assistant", answer))
        if any(self._end.strip() in turn.content for turn in whole if turn.speaker == "assistant"):
            raise ValueError(f"an answer holds {self._end.strip()!r}, the token that ends answers")
        text, marks = self._render(whole)
        prompt = self._prompt(turns)
        if not text.startswith(prompt):
            # Such as a template that asks for an answer with an empty thought, and renders answers without one.
            text, marks = f"{prompt}{answer.strip()}{self._end}", []
            if self.learned == "answers" and any(turn.speaker == "assistant" for turn in turns):
                raise ValueError(_UNSTABLE)
        answered = [place for place, turn in enumerate(whole) if turn.speaker == "assistant"]
        if self.learned != "answers":
            answered = answered[-1:]
        if len(marks) >= len(answered):
            begins = [begin for begin, _ in marks[-len(answered) : -1]]
        else:
            before = [self._prompt(whole[:place]) for place in answered[:-1]]
            if not all(text.startswith(each) for each in before):
                raise ValueError(_UNSTABLE)
            begins = [len(each) for each in before]
        return self._ended(text, [*begins, len(prompt)])

    def _ended(self, text: str, begins: Sequence[int]) -> tuple[str, list[int]]:
        """Return a text up to the end of its last answer, and where each answer begins and is over."""
        cuts: list[int] = []
        for begin in begins:
            end = text.find(self._end, begin)
            if end < 0:
                raise ValueError(f"an answer is rendered without {self._end!r} behind it")
            cuts += [begin, end + len(self._end)]
        return text[: cuts[-1]], cuts

    def _prompt(self, turns: Turns) -> str:
        text, _ = self._render(turns, asks=True)
        return text

    def _render(self, turns: Turns, *, asks: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of turns, and where the template marks answers; one that asks ends where one begins."""
        if not self._takes_system and turns[0].speaker == "system":
            first = turns[1]
            turns = (replace(first, before=f"{turns[0].content}\n\n{first.before}"), *turns[2:])
        messages = _messages(turns, self._end if self._adds_end else "")
        names = self.tokenizer.special_tokens_map
        return _rendered(
            self._template, messages, names, self._options, asks=asks, marks=self._has_marks and not asks
        )

    def _renders(self, turns: Turns) -> bool:
        try:
            _rendered(self._template, _messages(turns), self.tokenizer.special_tokens_map, self._options)
        except ValueError:
            return False
        return True

    def _end_of_answers(self) -> str | None:
        """Return what the template puts behind an answer, up to the token that ends it; None without such a token."""
        messages = _messages((Turn("user", _ASKED), Turn("assistant", _ANSWERED)))
        try:
            text, _ = _rendered(self._template, messages, self.tokenizer.special_tokens_map, self._options)
        except ValueError as error:
            raise UserError(str(error), where="task.chat_template") from None
        behind = text.rpartition(_ANSWERED)[2]
        spaces = behind[: len(behind) - len(behind.lstrip())]
        tokens = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        fitting = [token for token in tokens if behind.startswith(f"{spaces}{token}")]
        return f"{spaces}{max(fitting, key=len)}" if fitting else None

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ids of rendered texts, which hold their control tokens themselves."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return found


def _messages(turns: Turns, end: str = "") -> list[dict[str, str]]:
    return [
        {"role": turn.speaker, "content": turn.content + (end if turn.speaker == "assistant" else "")}
        for turn in turns
    ]


def _rendered(
    template: str,
    messages: list[dict[str, str]],
    names: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    asks: bool = False,
    marks: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """Render messages, and return with their text where the template marks answers.

    Raises:
        ValueError: The template is none, or does not take them.
    """
    try:
        (text,), found = render_jinja_template(
            [messages],
            chat_template=template,
            add_generation_prompt=asks,
            return_assistant_tokens_mask=marks,
            **(dict(names) | dict(options)),
        )
    except TemplateError as error:
        raise ValueError(f"the chat template does not take the conversation: {error}") from None
    return text, [(int(begin), int(end)) for begin, end in found[0]] if marks else []
