"""Cleaning of Korean text from the web: one pure function per rule, and the settings that choose among them."""

from __future__ import annotations

import html
import re

from pydantic import Field

from dure.config.scalars import Bool, Int
from dure.config.section import Section

_HIDDEN = re.compile(r"<!--|<(script|style)\b", re.IGNORECASE)
_HIDDEN_ENDS = {
    "": re.compile("-->"),
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
}
"""What ends a comment, a script and a style."""
_ZEROS = re.compile(r"&#(x?)0+(?=[0-9a-f])", re.IGNORECASE)
_HUGE = re.compile(r"&#[0-9]{8,};?")
"""An entity beyond all characters; Python refuses to read a number of thousands of digits."""
_BREAK = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|td|th|table|h[1-6]|hr)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][a-z0-9:-]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
# An address in Korean text ends where Hangul begins (https://a.kr에서), and before a stop that closes the sentence.
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'ㄱ-ㆎ가-힣]*[\w/=&#%+-]", re.IGNORECASE | re.ASCII)
# A name in Latin letters ends where a particle begins; the @ inside a mail address stands after a letter.
_MENTION = re.compile(r"(?<![\w.])@(?:[A-Za-z0-9_](?:[A-Za-z0-9_.]*[A-Za-z0-9_])?|[가-힣]\w*)")

_RUN = re.compile(r"([^\w\s]|[ㄱ-ㆎᄀ-ᇿ])\1+")


class CleaningConfig(Section):
    """How text from the web is cleaned before it is cut into tokens; white space is always made single spaces."""

    html: Bool = True
    """Drop tags, comments and scripts, and write entities such as ``&amp;`` as characters."""
    urls: str | None = ""
    """What stands in place of every web address; null leaves them."""
    mentions: str | None = ""
    """What stands in place of every ``@name``; null leaves them."""
    repeats: Int | None = Field(default=2, ge=1)
    """Longest run of one letter as in ㅋㅋㅋ or ㅠㅠ, or of one sign; longer are cut to it, and null leaves them."""


def cleaned(text: str, settings: CleaningConfig) -> str:
    """Return a text cleaned by the rules that ``settings`` choose."""
    if settings.html:
        text = without_html(text)
    if settings.urls is not None:
        text = with_urls_as(text, settings.urls)
    if settings.mentions is not None:
        text = with_mentions_as(text, settings.mentions)
    if settings.repeats is not None:
        text = with_short_repeats(text, settings.repeats)
    return with_single_spaces(text)


def without_html(text: str) -> str:
    """Drop comments, scripts and tags, and write entities as characters.

    A tag that breaks the line becomes a space; others, as around a stressed word, vanish. What only looks alike
    stays: ``a < b``, ``<3``.
    """
    shown = _TAG.sub("", _BREAK.sub(" ", _without_hidden(text)))
    return html.unescape(_HUGE.sub("\ufffd", _ZEROS.sub(r"&#\1", shown)))


def with_urls_as(text: str, replacement: str) -> str:
    """Put ``replacement`` in place of every address that begins with http://, https:// or www."""
    return _URL.sub(lambda _: replacement, text)


def with_mentions_as(text: str, replacement: str) -> str:
    """Put ``replacement`` in place of every ``@name``; mail addresses stay."""
    return _MENTION.sub(lambda _: replacement, text)


def with_short_repeats(text: str, longest: int) -> str:
    """Cut runs of one single Korean letter (ㅋㅋㅋ, ㅠㅠㅠ) or of one sign (!!!, ♥♥♥) to ``longest``.

    They say how strong a feeling is, so they are never dropped. Syllables, Latin letters and digits stay.
    """
    return _RUN.sub(lambda run: run[0][:longest], text)


def with_single_spaces(text: str) -> str:
    """Write every run of white space as one space, and none at the ends."""
    return " ".join(text.split())


def _without_hidden(text: str) -> str:
    """Put a space in place of comments, scripts and styles; one that is never closed stays.

    The end of each kind is looked for once behind a place where it is not: so time is linear in the text.
    """
    parts, place, closed = [], 0, dict.fromkeys(_HIDDEN_ENDS, True)
    for begin in _HIDDEN.finditer(text):
        kind = (begin[1] or "").lower()
        if begin.start() < place or not closed[kind]:
            continue
        inside = begin.end() if not kind else text.find(">", begin.end()) + 1
        end = _HIDDEN_ENDS[kind].search(text, inside) if inside else None
        if end is None:
            closed[kind] = False
            continue
        parts += [text[place : begin.start()], " "]
        place = end.end()
    return "".join((*parts, text[place:]))
