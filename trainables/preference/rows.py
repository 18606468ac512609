"""Rows of preference pairs: two answers to a prompt, as texts or in conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from dure.config.data import DataConfig
from dure.data.fields import CellReader
from dure.data.tables import Role, first_cells
from dure.errors import UserError
from trainables.causal.turns import ConversationReader, parsed

PROMPT, CHOSEN, REJECTED = "prompt", "chosen", "rejected"
PROMPTS = ("conversations", "messages", PROMPT)
"""Columns that may hold what both answers are to."""
_EXPECTED = 'a text, or JSON such as [{"role": "assistant", "content": "…"}]'


@dataclass(frozen=True)
class AnswerReader(CellReader):
    """Reads an answer: a text, one turn of the assistant as JSON, or the last turn of a conversation as JSON."""

    keeps_spaces: ClassVar[bool] = True

    def read(self, text: str) -> str:
        """Return the text of the answer."""
        turns = _conversation(text)
        if turns is None:
            return text
        speaker, answer = parsed(json.dumps(turns))[-1]
        if speaker != "assistant":
            raise UserError(f"ends with a turn of the {speaker}", expected=_EXPECTED)
        return answer


@dataclass(frozen=True)
class PairLayout:
    """How a table holds pairs."""

    prompt: str = PROMPT
    """Column of the prompt."""
    is_text: bool = True
    """Whether the prompt is a text, and no conversation."""
    is_whole: bool = False
    """Whether each answer stands in a conversation with the prompt, which is read from the chosen one."""

    def roles(self) -> tuple[Role, ...]:
        """Return the columns of such a table; ``words`` and the like are texts of which a rehearsal's tokenizer learns."""
        number = Role("id", "id", required=False, is_id=True)
        chosen, rejected = Role("chosen", CHOSEN), Role("rejected", REJECTED)
        if self.is_text:
            return (number, Role("text", self.prompt, is_input=True), chosen, rejected)
        roles = (
            number,
            Role("text", self.prompt, is_input=True, reader=ConversationReader("prompt")),
            Role("words", self.prompt, required=False, of="text"),
            Role("chosen", CHOSEN, reader=AnswerReader(), of="text" if self.is_whole else None),
            Role("rejected", REJECTED, reader=AnswerReader()),
            Role("rejected_words", REJECTED, required=False, of="rejected"),
        )
        if not self.is_whole:
            return (*roles, Role("chosen_words", CHOSEN, required=False, of="chosen"))
        return (*roles, Role("other_text", REJECTED, reader=ConversationReader("prompt"), of="rejected"))


def recognised_pairs(data: DataConfig) -> PairLayout:
    """Return how the training table holds pairs, by what stands in its first row.

    Raises:
        UserError: There is no such table, or it is damaged.
    """
    chosen = data.columns.get("chosen", CHOSEN)
    named = data.columns.get("text")
    if not isinstance(chosen, str) or not isinstance(named, str | None):
        return PairLayout()  # Texts of several columns.
    prompts = PROMPTS if named is None else (named,)
    cells = first_cells(data.train, data, (*prompts, chosen))
    turns = _conversation(cells.get(chosen, ""))
    if named is None and turns is not None and len(turns) > 1:  # With what the answer was given to.
        return PairLayout(chosen, is_text=False, is_whole=True)
    for column in prompts:
        if _conversation(cells.get(column, "")) is not None:
            return PairLayout(column, is_text=False)
    return PairLayout()


def said(text: str) -> Iterator[str]:
    """Give what is said in a text, or in all turns of a conversation as JSON."""
    turns = _conversation(text)
    if turns is None:
        yield text
    else:
        yield from (content for _, content in parsed(json.dumps(turns)))


def _conversation(text: str) -> list[Any] | None:
    """Return the turns in a JSON text, be it one or a list of them; None where there are none."""
    try:
        found = json.loads(text) if text.lstrip().startswith(("[", "{")) else None
    except (ValueError, RecursionError):
        return None
    turns = [found] if isinstance(found, dict) else found
    is_one = isinstance(turns, list) and all(
        isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns
    )
    return turns if is_one and turns else None
