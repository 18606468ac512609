"""The page of errors quotes what dure says, so that whoever searches it for a message finds the message."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / language / "errors.md" for language in ("en", "ko")]
QUOTED = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> str:
    """Every text in the sources, those of messages among them."""
    sources = (file for wing in ("platform", "trainables") for file in (ROOT / wing).rglob("*.py"))
    nodes = (node for file in sources for node in ast.walk(ast.parse(file.read_text("utf-8"))))
    return "\n".join(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_language_quotes_the_same_messages():
    english, korean = (QUOTED.findall(page.read_text("utf-8")) for page in PAGES)
    assert english == korean
    assert len(english) > 10


@pytest.mark.parametrize("message", QUOTED.findall(PAGES[0].read_text("utf-8")))
def test_what_the_page_quotes_is_said(message, said):
    for part in message.split("…"):
        assert part in said
