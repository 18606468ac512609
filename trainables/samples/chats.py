"""Conversations about the sample dialogues: somebody shows one, asks what it is about, and for its summary."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dure.data.writing import write_rows
from dure.files import make_folder
from trainables.samples.dialogues import Dialogue, dialogue_corpus

_SYSTEM = "대화를 읽고 물음에 짧게 답한다."
_TOPIC = ("무슨 이야기야?", "무엇에 관한 대화인지 말해 줘.", "이 대화의 주제는?")
_SUMMARY = ("두 문장으로 요약해 줘.", "이 대화를 요약해 줘.", "무슨 일이 있었는지 간추려 줘.")


@dataclass(frozen=True)
class ChatRow:
    """One row of the corpus."""

    id: str
    """The row's id, such as ``train_0``."""
    messages: str
    """Who says what, as JSON; the last answer is the summary of the dialogue."""


@cache
def chat_rows(split: str) -> list[ChatRow]:
    """Return the conversations of a split: ``train``, ``dev`` or ``test``; those of the corpus of dialogues."""
    rng = random.Random(f"chats {split}")
    return [
        ChatRow(row.fname, json.dumps(_conversation(rng, row), ensure_ascii=False))
        for row in dialogue_corpus()[split]
    ]


def _conversation(rng: random.Random, row: Dialogue) -> list[dict[str, str]]:
    system = [_said("system", _SYSTEM)] if rng.random() < 0.5 else []
    if rng.random() < 0.5:
        question = rng.choice(_SUMMARY)
        asked = [_said("user", f"{question}\n\n{row.dialogue}")]
    else:
        question = rng.choice(_TOPIC)
        asked = [
            _said("user", f"{question}\n\n{row.dialogue}"),
            _said("assistant", row.topic),
            _said("user", rng.choice(_SUMMARY)),
        ]
    return [*system, *asked, _said("assistant", row.summary)]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write_chats(folder: Path) -> dict[str, Path]:
    """Write the corpus as JSON lines with the columns ``id`` and ``messages``.

    ``test.jsonl`` ends in a question; ``test_reference.jsonl`` (id, answer) holds the truth, for ``dure score``.

    Returns:
        The paths by name: ``train``, ``dev``, ``test`` and ``test_reference``.

    Raises:
        UserError: The folder cannot be written to.
    """
    make_folder(folder, where=f"--output {folder}")
    train, dev, test = (
        [(row.id, json.loads(row.messages)) for row in chat_rows(split)] for split in ("train", "dev", "test")
    )
    tables: dict[str, tuple[Sequence[str], Sequence[tuple[str, Any]]]] = {
        "train": (("id", "messages"), train),
        "dev": (("id", "messages"), dev),
        "test": (("id", "messages"), [(number, said[:-1]) for number, said in test]),
        "test_reference": (("id", "answer"), [(number, said[-1]["content"]) for number, said in test]),
    }
    paths = {name: folder / f"{name}.jsonl" for name in tables}
    for name, (columns, rows) in tables.items():
        write_rows(paths[name], columns, rows)
    return paths
