"""Rows of conversations: the layouts that tables have them in, and each row as turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from dure.data.fields import CellReader
from dure.data.tables import Role
from dure.errors import UserError

Speaker = Literal["system", "user", "assistant"]
Layout = Literal["dialogues", "pairs", "messages", "conversations", "instruction"]

Learned = Literal["answers", "last", "all"]

CHATS: tuple[Layout, ...] = ("messages", "conversations")
"""Layouts whose rows are whole conversations."""
TEXT = "{text}"
"""Where a prompt has the text of its row."""
_SPEAKERS: Mapping[str, Speaker] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""What the usual data sets call who speaks."""
_UNREAD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
"""What a turn may hold beside its text, and nothing here reads."""
_NEEDED: Mapping[Layout, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "instruction": ("instruction", "output"),
    "dialogues": ("dialogue", "summary"),
    "pairs": ("text", "target"),
}
"""Columns by which a layout is recognised; the first that a table has all columns of is taken."""


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    speaker: Speaker
    """Who."""
    text: str
    """What of it may be cut, from its beginning, when a prompt is too long."""
    before: str = ""
    """What stands before the text and is never cut, such as an instruction."""
    after: str = ""
    """What stands behind it and is never cut."""

    @property
    def content(self) -> str:
        """All of it."""
        return f"{self.before}{self.text}{self.after}"


Turns = tuple[Turn, ...]


@dataclass(frozen=True)
class ConversationReader(CellReader):
    """Reads a conversation as JSON: a list of objects that say who speaks, and what."""

    part: Literal["prompt", "answer"]
    """Whether all before the last answer is wanted (``prompt``) or that answer."""
    keeps_spaces: ClassVar[bool] = True

    def given(self, text: str) -> str:
        """Return a text that is no JSON as the one turn of a user."""
        is_json = text.lstrip().startswith("[")
        return text if is_json else json.dumps([{"role": "user", "content": text}], ensure_ascii=False)

    def read(self, text: str) -> str:
        """Return the turns of the prompt as JSON, or the answer as it is; empty where the last turn is no answer."""
        turns = parsed(text)
        answer = turns.pop()[1] if turns[-1][0] == "assistant" else ""
        if self.part == "answer":
            return answer
        if not turns or turns[-1][0] != "user":
            raise UserError("has no turn of the user before the last answer", expected=_EXPECTED)
        return json.dumps(turns, ensure_ascii=False)


_EXPECTED = 'JSON such as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def parsed(text: str) -> list[tuple[Speaker, str]]:
    """Return who says what in a conversation as JSON, in the usual form (role, content) or the older (from, value).

    Raises:
        UserError: It is no such conversation; ``problem`` goes on from the name of a column.
    """
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("holds no JSON", expected=_EXPECTED) from None
    if not isinstance(messages, list) or not messages:
        raise UserError("holds no list of turns", expected=_EXPECTED)
    return [_turn(place, message) for place, message in enumerate(messages, start=1)]


def _turn(place: int, message: Any) -> tuple[Speaker, str]:
    if not isinstance(message, dict):
        raise UserError(f"holds a turn {place} that is no object", expected=_EXPECTED)
    said = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if held := [key for key in _UNREAD if message.get(key)]:
        raise UserError(
            f"holds a turn {place} with '{held[0]}', which would be left out",
            expected="all that is said in its content, as the chat template writes it",
        )
    if message.get("weight", 1) == 0 or message.get("train", True) is False:
        raise UserError(
            f"marks turn {place} as not to be learned (weight, train), which is not supported for single turns",
            expected="a row without the turns from there on, or task.loss=last",
        )
    speaker = _SPEAKERS.get(said.strip().lower()) if isinstance(said, str) else None
    if speaker is None:
        raise UserError(
            f"does not say who speaks in turn {place}"
            if said is None
            else f"gives turn {place} the unknown role '{said}'",
            expected=f"one of {', '.join(_SPEAKERS)} as its role",
        )
    if speaker == "system" and place > 1:
        raise UserError(f"holds a system text as turn {place}", expected="one at the beginning, or none")
    if isinstance(content, list):  # As models that see pictures have it.
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"holds a turn {place} without text", expected=_EXPECTED)
    return speaker, content


def recognised(columns: Sequence[str]) -> Layout | None:
    """Return the layout of a table by its columns; None when it is none of the known ones."""
    return next((layout for layout, needed in _NEEDED.items() if {*needed} <= {*columns}), None)


def roles_of(layout: Layout) -> tuple[Role, ...]:
    """Return the columns that tables of a layout have.

    In each of them ``text`` is what the model reads, and ``target`` what it is to answer.
    """
    text, target = _NEEDED[layout][0], _NEEDED[layout][-1]
    number = Role("id", "fname" if layout == "dialogues" else "id", required=False, is_id=True)
    if layout in CHATS:
        return (
            number,
            Role("text", text, is_input=True, reader=ConversationReader("prompt")),
            Role("target", text, reader=ConversationReader("answer"), of="text"),
            # The same once more as a text, of which a rehearsal's tokenizer learns.
            Role("words", text, required=False, of="text"),
        )
    more = (Role("input", "input", required=False, is_input=True),) if layout == "instruction" else ()
    return (number, Role("text", text, is_input=True), *more, Role("target", target))


@dataclass(frozen=True)
class Framing:
    """What stands around the text of every row."""

    prompt: str = TEXT
    """The turn of the user, with ``{text}`` where the text of the row stands."""
    system: str | None = None
    """The system text of rows that have none of their own."""

    def turns(self, layout: Layout, row: Mapping[str, str]) -> Turns:
        """Return the turns that a row asks the model with, of which the user's is the last."""
        if layout in CHATS:
            turns = tuple(Turn(speaker, content) for speaker, content in json.loads(row["text"]))
        else:
            before, _, after = self.prompt.partition(TEXT)
            turns = (Turn("user", row["text"], before, after),)
            if row.get("input"):
                turns = (replace(turns[0], text=row["input"], before=f"{before}{row['text']}\n\n"),)
        if self.system is None or turns[0].speaker == "system":
            return turns
        return (Turn("system", "", self.system), *turns)
