"""The canonical form: what looks the same is the same, and what a user sees stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.data.canonical import canonical, composed, folded, is_blank, visible

FAMILY = "👨‍👩‍👧"
HEART = "❤️"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("기쁨", unicodedata.normalize("NFD", "기쁨")),
        ("기쁨", "\ufeff기쁨"),
        ("기쁨", "기\u200b쁨"),
        ("기쁨", "기\u00ad쁨"),
        ("기쁨", "기쁨\u2060"),
        ("기쁨", "\u200e기쁨\u200f"),
        ("기쁨", "기\u200d쁨"),
        ("기쁨", "기쁨\u200c"),
        ("기쁨", "기쁨\u3164"),
        ("2", "2   "),
        ("두 말", "두\u3000\t 말"),
        ("두 말", "두\xa0말\r\n"),
        ("a b", "a\x00 b\x7f"),
        ("1", "１"),
        ("Yes!", "Ｙｅｓ！"),
    ],
)
def test_what_looks_the_same_has_one_form(one, other) -> None:
    assert canonical(other) == canonical(one) == one


@pytest.mark.parametrize(
    "text",
    [FAMILY, HEART, "🏳️‍🌈", "👩🏽‍💻", "ℹ️", "می‌خواهم", "क्‍ष", "1️⃣", "가나다", "ᄒᆞᆫ글"],
)
def test_joiners_of_emoji_and_scripts_and_selectors_stay(text) -> None:
    assert visible(text) == text == canonical(text)


@pytest.mark.parametrize(
    "text", ["", " \t\n", "\u200b", "\ufeff \u00ad", "\u3164", "\u200d", "\ufe0f", "\u2800\u200e", "\x00\x7f"]
)
def test_what_cannot_be_seen_is_nothing(text) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", [".", "0", "ㅋ", HEART, FAMILY, "\u200b가"])
def test_what_can_be_seen_is_something(text) -> None:
    assert not is_blank(text)


def test_texts_are_compared_without_case_and_labels_with_it() -> None:
    assert folded("Straße  ǰ") == folded("STRASSE ǰ".replace("ǰ", "j\u030c"))
    assert canonical("Good") != canonical("good")


@given(st.text(max_size=30))
def test_every_form_is_its_own_form(text) -> None:
    for form in (composed, visible, canonical, folded):
        assert form(form(text)) == form(text)
    assert is_blank(text) == is_blank(canonical(text))
