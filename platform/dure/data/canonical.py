"""The one form in which labels, ids, texts and file names are compared; what a user sees keeps its spelling."""

from __future__ import annotations

import re
import unicodedata

_JOINING = "\u0600-\u109f"
"""Scripts whose letters a joiner shapes: from Arabic over those of India to Burmese."""
_EMOJI = "\u00a9\u00ae\u200d\u203c-\u3299\ufe0f\U0001f000-\U0001faff"
"""Signs that a joiner makes one of; with the selector that may stand between sign and joiner."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u2800\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"
    "|\u115f\u1160"
    # A joiner stays inside one emoji, and inside a word of a script that is shaped by it.
    f"|(?<![{_EMOJI}{_JOINING}])[\u200c\u200d]|[\u200c\u200d](?![{_EMOJI}{_JOINING}])"
)
_NOTHING_ALONE = re.compile(f"(?:{_INVISIBLE.pattern}|[\\s\u200c\u200d\ufe00-\ufe0f])*")
"""What leaves nothing to see; a selector of a sign's variant is nothing without the sign."""


_WIDE = {place: place - 0xFEE0 for place in range(0xFF01, 0xFF5F)}
"""Letters, digits and signs as wide as a syllable, which East Asian keyboards write, and what they stand for."""


def composed(text: str) -> str:
    """Return a text in Unicode NFC, as a tokenizer knows its letters; macOS writes names in NFD."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def visible(text: str) -> str:
    """Return a text in NFC without what cannot be seen: zero-width space, BOM, soft hyphen and their like.

    The joiner inside an emoji, selectors of a sign's variant, and white space stay.
    """
    return text if text.isascii() and text.isprintable() else composed(_INVISIBLE.sub("", text))


def canonical(text: str) -> str:
    """Return the form in which labels, ids and names are compared.

    It is :func:`visible`, with every run of white space one space and full-width signs as the plain ones.
    """
    plain = " ".join(visible(text).split())
    return plain if plain.isascii() else plain.translate(_WIDE)


def folded(text: str) -> str:
    """Return the form in which texts are compared: :func:`canonical`, without the case of letters."""
    # Folding may take a letter apart again, such as ǰ into j and its hook.
    return canonical(canonical(text).casefold())


def is_blank(text: str) -> bool:
    """Return whether there is nothing to see in a text."""
    # Nearly every text begins with a sign of ASCII or a syllable of Hangul, which can be seen.
    if "!" <= text[:1] <= "~" or "가" <= text[:1] <= "힣":
        return False
    return _NOTHING_ALONE.fullmatch(text) is not None
