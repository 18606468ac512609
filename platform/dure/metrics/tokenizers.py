"""The ways ROUGE can cut a text into tokens, each with the name and version a score must carry.

A ROUGE value means nothing without its tokeniser: ``rouge_score``'s own keeps only ``[a-z0-9]`` and
drops every Hangul character. ``default`` and ``whitespace`` are rules that others publish figures by, unchanged;
in all others markers such as ``#Person1#`` stay one token.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, get_args

from dure.errors import UserError, nearest

TokenizerName = Literal["morpheme", "whitespace", "whitespace_markers", "character", "default"]

MARKER = r"#[A-Za-z]+\d*#"
"""Markers that are kept whole without being named: ``#Person1#``, ``#PhoneNumber#``, …"""

_CACHED_LINES = 16_384
"""About 7 MB. A training run scores the same references at every evaluation; measured on 8,000 Korean
lines of 56 characters, one thread: 0.3 ms a line from kiwi, 2 µs from the cache."""

_TEXTS_PER_TASK = 32


class RougeTokenizer(ABC):
    """Cuts texts into ROUGE tokens.

    No token may cross a newline: the tokens of a text are those of its lines, one after another.
    So ROUGE-L and ROUGE-Lsum share one tokenisation.
    """

    name: ClassVar[TokenizerName]

    @property
    @abstractmethod
    def version(self) -> str:
        """What decides the tokens beside the name: the library and model that cut them."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ``text`` in order; none for a blank text."""

    def tokenize_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of every text, as ``tokenize`` gives them."""
        return [self.tokenize(text) for text in texts]


class DefaultTokenizer(RougeTokenizer):
    """``rouge_score``'s own rule without the stemmer, for English: lower case, runs of ``[a-z0-9]``."""

    name = "default"

    @property
    def version(self) -> str:
        """The release of ``rouge_score``."""
        return f"rouge_score {version('rouge_score')}"

    def tokenize(self, text: str) -> list[str]:
        """Return what ``rouge_score`` would, Unicode form and markers untouched."""
        from rouge_score.tokenize import tokenize

        tokens: list[str] = tokenize(text, None)
        return tokens


class _MarkerTokenizer(RougeTokenizer):
    """Base of the tokenisers that compose Unicode (NFC) and keep markers whole."""

    def __init__(self, special_tokens: Sequence[str] = ()) -> None:
        self._markers = _marker_pattern(special_tokens)

    @property
    def version(self) -> str:
        """The revision of this module's rule; to be raised whenever the tokens change."""
        return "dure 1"


class WhitespaceTokenizer(RougeTokenizer):
    """Words between blanks as ``str.split`` cuts them, of the composed text (NFC): ``#Person1#은`` is one word."""

    name = "whitespace"

    @property
    def version(self) -> str:
        """The rule; in ``dure 1`` markers were cut from the particles behind them."""
        return "str.split, dure 2"

    def tokenize(self, text: str) -> list[str]:
        """Return the words of ``text``."""
        return unicodedata.normalize("NFC", text).split()


class MarkedWhitespaceTokenizer(_MarkerTokenizer):
    """Words between blanks, punctuation included; a marker is cut from the particle behind it."""

    name = "whitespace_markers"

    def tokenize(self, text: str) -> list[str]:
        """Return the words and markers of ``text``."""
        return _cut_between(self._markers, text, str.split)


class CharacterTokenizer(_MarkerTokenizer):
    """Single characters without the blanks: one Hangul syllable is one token."""

    name = "character"

    def tokenize(self, text: str) -> list[str]:
        """Return the characters and markers of ``text``."""
        return _cut_between(self._markers, text, lambda piece: list("".join(piece.split())))


class MorphemeTokenizer(_MarkerTokenizer):
    """Morphemes in the form kiwipiepy gives them (``먹었다`` → ``먹 었 다``), the measure for Korean.

    Markers are handed to kiwi as ready-made proper nouns and not cut out before it looks: the
    particle behind one is then read with its noun. Cut out, ``#Person2#는`` loses its topic
    particle (``는`` alone is analysed as ``늘 + ᆫ``).
    """

    name = "morpheme"

    @property
    def version(self) -> str:
        """The releases of kiwipiepy and of its language model."""
        return f"kiwipiepy {version('kiwipiepy')} / model {version('kiwipiepy_model')}"

    def tokenize(self, text: str) -> list[str]:
        """Return the morphemes of ``text``, line by line."""
        lines = unicodedata.normalize("NFC", text).split("\n")
        return [token for line in lines for token in _morphemes(line, self._markers)]

    def tokenize_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the morphemes of every text, on ``OMP_NUM_THREADS`` threads (or all cores).

        kiwi's own batch call is not used: with markers it calls back into Python for every text and
        is slower than one thread without it (measured: 2,150 lines/s against 4,600).
        """
        threads = _num_threads()
        if threads == 1 or len(texts) <= _TEXTS_PER_TASK:
            return super().tokenize_all(texts)
        _kiwi()  # loaded here once, and not by every thread at the same time
        tasks = [texts[start : start + _TEXTS_PER_TASK] for start in range(0, len(texts), _TEXTS_PER_TASK)]
        with ThreadPoolExecutor(threads) as pool:
            return [tokens for done in pool.map(super().tokenize_all, tasks) for tokens in done]


def get_tokenizer(name: str, special_tokens: Sequence[str] = ()) -> RougeTokenizer:
    """Return the tokeniser called ``name``.

    Args:
        name: One of :data:`TokenizerName`.
        special_tokens: Further texts to keep whole beside ``#Person1#`` and its like, for example
            ``<대화시작>``. ``default`` and ``whitespace`` keep none.

    Raises:
        UserError: There is no such tokeniser, what it needs is not installed, or a special token is blank or holds a
            newline.
    """
    match name:
        case "morpheme":
            if find_spec("kiwipiepy") is None:
                raise UserError(
                    "kiwipiepy, which cuts Korean into morphemes, is not installed here",
                    expected=", ".join(each for each in get_args(TokenizerName) if each != name),
                    hint="pip install kiwipiepy, to measure by morphemes",
                )
            return MorphemeTokenizer(special_tokens)
        case "whitespace":
            return WhitespaceTokenizer()
        case "whitespace_markers":
            return MarkedWhitespaceTokenizer(special_tokens)
        case "character":
            return CharacterTokenizer(special_tokens)
        case "default":
            return DefaultTokenizer()
    names = get_args(TokenizerName)
    like = nearest(name, names)
    raise UserError(
        f"there is no ROUGE tokeniser {name!r}", expected=", ".join(names), hint=like and f"tokenizer={like}"
    )


def _marker_pattern(special_tokens: Sequence[str]) -> re.Pattern[str]:
    """Return the pattern of everything to keep whole, in one group so that ``split`` returns it."""
    for token in special_tokens:
        if not token.strip() or "\n" in token:
            raise UserError(
                f"the special token {token!r} cannot be kept whole",
                expected="text within one line that is not blank",
            )
    # The longest first: `<대화>끝` must win over `<대화>`.
    named = sorted({unicodedata.normalize("NFC", token) for token in special_tokens}, key=len, reverse=True)
    return re.compile("(" + "|".join([*map(re.escape, named), MARKER]) + ")")


def _cut_between(markers: re.Pattern[str], text: str, cut: Callable[[str], list[str]]) -> list[str]:
    """Return the tokens of ``text``: markers whole, what lies between them as ``cut`` gives it."""
    pieces = markers.split(unicodedata.normalize("NFC", text))
    tokens = cut(pieces[0])
    for marker, between in zip(pieces[1::2], pieces[2::2], strict=True):
        tokens.append(marker)
        tokens += cut(between)
    return tokens


@lru_cache(maxsize=_CACHED_LINES)
def _morphemes(line: str, markers: re.Pattern[str]) -> tuple[str, ...]:
    """Return kiwi's morphemes of one line, interned: the same few thousand forms recur everywhere."""
    # kiwi refuses a lone surrogate, which JSON can bring in; "?" keeps the positions.
    readable = line.encode("utf-8", "replace").decode("utf-8")
    whole = [(*found.span(), "NNP") for found in markers.finditer(readable)]
    return tuple(sys.intern(token.form) for token in _kiwi().tokenize(readable, pretokenized=whole))


@lru_cache(maxsize=1)
def _kiwi() -> Any:
    """Load kiwi once per process, when the first text comes (1.4 s, measured on one core)."""
    from kiwipiepy import Kiwi

    # Its worker threads serve only the batch call; 0 would mean none, but warns of an older meaning.
    return Kiwi(num_workers=1)


def _num_threads() -> int:
    """Return how many threads may tokenise: Ray sets ``OMP_NUM_THREADS`` to the trial's share of cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else os.cpu_count() or 1
