"""Conversations to token ids: the tokens that are learned, and what is cut when one is too long."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from dure.errors import UserError, counted
from trainables.causal.template import Template
from trainables.causal.turns import Learned, Turn, Turns

_TAG = re.compile(r"(<[^<>\s]+>)\s*$")


def _unstable() -> UserError:
    return UserError(
        "the chat template renders an answer otherwise as soon as another turn follows, such as without its thought or "
        "its end",
        hint="task.loss=last, which learns the last one only",
    )


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids."""

    ids: list[int]
    """All of them, up to the end of the last answer; without an answer up to where it is to begin."""
    prompt_length: int
    """How many of them stand before the last answer."""
    learned: list[list[int]]
    """First id and the one behind the last of every part that is learned."""
    is_cut: bool = False
    """Whether something of the conversation was left out."""
    is_answer_cut: bool = False
    """Whether that is the end of the last answer, which is then learned without its end token."""


class Chat:
    """Turns conversations into token ids by the chat template of a tokenizer.

    Args:
        tokenizer: The tokenizer, with its template (:func:`set_template`).
        learned: Whether every answer is learned, the last one, or all text.
        max_prompt: Most ids before the last answer.
        limit: The setting that says so.
        max_answer: Most ids of the last answer, its end token counted.
        options: What the template takes beside the conversation, such as ``enable_thinking``.

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
        limit: str = "tokenizer.encoder_max_len",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.learned = learned
        self.max_prompt, self.max_answer, self.limit = max_prompt, max_answer, limit
        self._template = template = Template(tokenizer, options)
        self.end_id, self._inner_id = (
            int(tokenizer.convert_tokens_to_ids(end.strip()))
            for end in (template.end, template.inner_end or template.end)
        )
        """The token that ends an answer, and what ends one that another turn follows."""
        (self._opening,) = self._ids([template.opening])
        own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.end_ids = sorted({self.end_id, self._inner_id, *own})
        """All tokens that end a generated text."""

    @property
    def opening(self) -> str:
        """What the template itself puts at the beginning of an answer; it is learned, and no part of a text."""
        return self._template.opening

    def written(self, ids: Iterable[int], ends: Sequence[int]) -> list[int]:
        """Return generated ids before the first that ends a text; what follows is padding. :attr:`opening` is left out."""
        row = list(takewhile(lambda token: token >= 0 and token not in ends, map(int, ids)))
        number = len(self._opening)
        return row[number:] if row[:number] == self._opening else row

    def control_tokens(self, own: Collection[str]) -> frozenset[str]:
        """Return the special tokens of the tokenizer, which steer a model, without those that texts are known to hold."""
        tokens = self.tokenizer.added_tokens_decoder.values()
        return frozenset(token.content for token in tokens if token.special) - {*own}

    def encode(self, asked: Sequence[Turns], answers: Sequence[str] | None) -> list[Encoded]:
        """Return conversations as ids.

        Ids of a prompt are those that it has alone, so that training and generation go on from the same ones.

        Args:
            asked: What stands before the last answer of each, which the user's turn ends.
            answers: The last answer of each; None where they are to be generated.

        Raises:
            ValueError: A conversation cannot be rendered, or an answer holds the token that ends it.
            UserError: It is too long even when all that may be cut is, or the template renders earlier answers in
                another way; of a row, whose place it does not name.
        """
        if answers is None:
            texts = [self._template.prompt(turns) for turns in asked]
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
        """Return a conversation of which every answer is between the two of a pair of cuts; the last is the end.

        ``prefixes`` are the ids of the text up to every cut.
        """
        *_, prompt, whole = prefixes
        if whole[: len(prompt)] != prompt:
            # A token reaches over the beginning of the last answer, and a prompt has the ids that it has alone.
            (answer,) = self._ids([text[cuts[-2] : cuts[-1]]])
            whole = prompt + answer
        # A token that reaches over the beginning of an earlier answer is its first.
        ends = [_num_shared(prefix, whole) for prefix in prefixes[:-1]] + [len(whole)]
        answers = [list(pair) for pair in zip(ends[::2], ends[1::2], strict=True)]
        begin, end = answers[-1]
        is_cut = end - begin > self.max_answer
        if is_cut:
            end = answers[-1][1] = begin + self.max_answer
        for answer in answers:
            token = self.end_id if answer is answers[-1] else self._inner_id
            count = whole[slice(*answer)].count(token)
            if count != (0 if is_cut and answer is answers[-1] else 1):
                name = self.tokenizer.convert_ids_to_tokens(token)
                raise ValueError(f"an answer holds the token {name!r}, which ends answers, {count} times")
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
        least = self._num_ids(with_end(0))
        if least > self.max_prompt:
            raise self._too_long(least)
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            if self._fits(with_end(middle)):
                fitting = middle
            else:
                too_many = middle
        if not fitting and last.text:
            raise self._too_long(least)
        kept = with_end(fitting)
        ((encoded),) = self.encode([kept], None if answer is None else [answer])
        return replace(encoded, is_cut=True)

    def _too_long(self, least: int) -> UserError:
        return UserError(
            f"the prompt has {counted(least, 'token')} without its text, and no more than {self.max_prompt} are allowed",
            hint=f"{self.limit}={2 * least}, or a shorter prompt",
        )

    def _fits(self, turns: Turns) -> bool:
        return self._num_ids(turns) <= self.max_prompt

    def _num_ids(self, turns: Turns) -> int:
        (ids,) = self._ids([self._template.prompt(turns)])
        return len(ids)

    def _parts(self, turns: Turns, answer: str) -> tuple[str, list[int]]:
        """Return the text of a conversation up to the end of its last answer, and where each answer begins and is over."""
        template = self._template
        tokens = {end.strip() for end in (template.end, template.inner_end) if end}
        said = [turn.content for turn in turns if turn.speaker == "assistant"]
        held = [token for token in tokens if any(token in each for each in (*said, answer))]
        if held:
            raise ValueError(f"an answer holds {held[0]!r}, the token that ends answers")
        text, marks = template.render((*turns, Turn("assistant", answer)))
        prompt = template.prompt(turns)
        if not text.startswith(prompt) or not _shows(text, answer, len(prompt)):
            # Such as a template that asks for an answer with an empty thought and renders answers without one, or one
            # that leaves thoughts out.
            text, marks = f"{prompt}{_going_on(prompt, answer.strip())}{template.end}", []
        begins: list[int] = []
        if self.learned == "answers" and said:
            begins = self._earlier(text, marks, turns)
        cuts: list[int] = []
        ends = [*[template.inner_end] * len(begins), template.end]
        for each, begin, end in zip((*said, answer)[-len(ends) :], (*begins, len(prompt)), ends, strict=True):
            stop = text.find(end or "", begin)
            if not end or stop < 0 or (each is not answer and not _shows(text[:stop], each, begin)):
                raise _unstable()
            cuts += [begin, stop + len(end)]
        return text[: cuts[-1]], cuts

    def _earlier(self, text: str, marks: Sequence[tuple[int, int]], turns: Turns) -> list[int]:
        """Return where the answers before the last begin: behind the prompt of each, else by the template's marks."""
        prompts = [
            self._template.prompt(turns[:place])
            for place, turn in enumerate(turns)
            if turn.speaker == "assistant"
        ]
        if all(text.startswith(prompt) for prompt in prompts):
            return [len(prompt) for prompt in prompts]
        begins, over = [], 0
        for begin, _ in marks:  # An answer may have several.
            if begin >= over:
                begins.append(begin)
                over = text.find(self._template.inner_end or self._template.end, begin) % (len(text) + 1)
        if len(begins) != len(prompts) + 1:
            raise _unstable()
        return begins[:-1]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ids of rendered texts, which hold their control tokens themselves."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return found


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids both begin with."""
    apart = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(apart, min(len(one), len(other)))


def _shows(text: str, answer: str, begin: int) -> bool:
    """Return whether an answer stands in a text, of which it may be that a prompt holds its first tag already."""
    place = text.rfind(answer.strip())
    return place >= 0 and place + len(answer.strip()) > begin


def _going_on(prompt: str, answer: str) -> str:
    """Return an answer without the tag that opens it when the prompt ends in that, as those that ask for a thought do."""
    tag = _TAG.search(prompt)
    return answer.removeprefix(tag[1]).lstrip() if tag and answer.startswith(tag[1]) else answer
