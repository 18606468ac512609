"""The chat template of a tokenizer: where it comes from, and what it makes of a conversation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.chat_template_utils import render_jinja_template

from dure.errors import UserError
from dure.events import Notify
from trainables.causal.turns import Turn, Turns

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
)
"""The template of a model that knows none: everything that is said one after another, each answer ended."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_SYSTEM, _ASKED, _ANSWERED, _ASKED_ON = "규칙!", "무엇?", "무엇!", "또?"
"""What templates are tried with."""


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
            "the tokenizer has no chat template, as is usual for base models",
            where="task.chat_template",
            expected="a file with a template, or plain",
            hint="task.chat_template=plain writes the turns one after another",
        )
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    try:
        template = tokenizer.get_chat_template()
        text, _ = _rendered(template, _messages((Turn("user", _ASKED),)), tokenizer.special_tokens_map, {})
    except ValueError as error:
        raise UserError(str(error), where="task.chat_template") from None
    if "strftime_now" in template:
        notify(
            "the chat template writes today's date into prompts, so that tomorrow's prompts differ; if it takes a date, "
            'task.template_options={date_string: "26 Jul 2024"} fixes it'
        )
    if begins and not text.startswith(tokenizer.bos_token):
        notify(f"the tokenizer's {tokenizer.bos_token} is put in front of the chat template, which lacks it")
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


def own_ends(
    model: PreTrainedModel, source: str | Path | None, revision: str | None = None
) -> frozenset[int]:
    """Return the tokens that a checkpoint ends texts with, of which its tokenizer knows one, such as that of documents.

    The configuration of the model names them, and the generation settings of its source may name more.
    """
    named = [model.config.get_text_config().eos_token_id]
    if source is not None:
        # Many a checkpoint has no such settings; all others are the experiment's.
        with suppress(OSError, ValueError):
            settings = GenerationConfig.from_pretrained(source, revision=revision or "main")
            named.append(settings.eos_token_id)
    each = [ids if isinstance(ids, list) else [ids] for ids in named if ids is not None]
    return frozenset(int(token) for ids in each for token in ids)


class Template:
    """Renders conversations by the chat template of a tokenizer, and knows by trying how it treats answers.

    Args:
        tokenizer: The tokenizer, with its template (:func:`set_template`).
        options: What the template takes beside the conversation, such as ``enable_thinking``.

    Raises:
        UserError: It is no template, shows no texts, or there is no token to end an answer with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self._options = dict(options or {})
        self._source = str(tokenizer.get_chat_template())
        self._has_marks = bool(_MARKS.search(self._source))
        self._adds_end, self._takes_system = False, True
        asked, answered, asked_on = (
            Turn("user", _ASKED),
            Turn("assistant", _ANSWERED),
            Turn("user", _ASKED_ON),
        )
        try:
            text, _ = self.render((asked, answered))
        except ValueError as error:
            raise UserError(str(error), where="task.chat_template") from None
        if _ASKED not in text or _ANSWERED not in text:
            raise UserError(
                "the chat template leaves out the text of the turns; it may want lists of parts in place of texts",
                where="task.chat_template",
                expected="a template that takes texts",
                hint="task.chat_template=FILE with such a template",
            )
        self._takes_system = _SYSTEM in self._tried((Turn("system", _SYSTEM), asked))
        end = self._end_behind(_ANSWERED, text)
        if end is None and tokenizer.eos_token is None:
            raise UserError(
                "neither the chat template nor the tokenizer has a token that ends an answer",
                where="task.chat_template",
                hint="a template that ends each answer in a token of the vocabulary",
            )
        self._adds_end = end is None
        self.end = str(tokenizer.eos_token) if end is None else end
        """What stands behind the last answer, up to the token that ends it."""
        going_on = self._tried((asked, answered, asked_on))
        self.inner_end = self.end if self._adds_end else self._end_behind(_ANSWERED, going_on)
        """The same behind an answer that another turn follows; None when no token ends that."""
        prompt = self.prompt((asked,))
        self.opening = text[len(prompt) : text.rindex(_ANSWERED)] if text.startswith(prompt) else ""
        """What the template itself puts at the beginning of an answer, such as an empty thought; often nothing."""

    def prompt(self, turns: Turns) -> str:
        """Return the text that asks for an answer to turns."""
        text, _ = self.render(turns, asks=True)
        return text

    def render(self, turns: Turns, *, asks: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of turns, and where the template marks answers; one that asks ends where one begins.

        A system text that the template does not take stands before the first turn of the user, or in one of its own.

        Raises:
            ValueError: The template does not take them.
        """
        if not self._takes_system and turns and turns[0].speaker == "system":
            said, rest = turns[0].content, turns[1:]
            if rest and rest[0].speaker == "user":
                turns = (replace(rest[0], before=f"{said}\n\n{rest[0].before}"), *rest[1:])
            else:
                turns = (Turn("user", said), *rest)
        messages = _messages(turns, self.end if self._adds_end else "")
        names = self.tokenizer.special_tokens_map
        marks = self._has_marks and not asks
        return _rendered(self._source, messages, names, self._options, asks=asks, marks=marks)

    def _tried(self, turns: Turns) -> str:
        """Return the text of turns; empty when the template does not take them."""
        try:
            return self.render(turns)[0]
        except ValueError:
            return ""

    def _end_behind(self, answer: str, text: str) -> str | None:
        """Return what stands behind an answer, up to the token that ends it; None without such a token."""
        behind = text.rpartition(answer)[2]
        spaces = behind[: len(behind) - len(behind.lstrip())]
        tokens = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        fitting = [token for token in tokens if behind.startswith(f"{spaces}{token}")]
        return f"{spaces}{max(fitting, key=len)}" if fitting else None


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
