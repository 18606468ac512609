"""Korean morphology for generated text: particles, verb endings and speech levels.

A template is ordinary ``str.format`` text whose format specs are Korean. A :class:`Noun` takes a particle
(``{thing:을}`` gives 우산을, 모자를) and a :class:`Verb` takes an ending (``{reason:아서}`` gives 바빠서, 회의가 생겨서).
Square brackets hold one alternative per speech level, ``[반말|해요체|합쇼체]``; with two alternatives
the second one serves both polite levels. :func:`in_register` picks, then ``format`` inflects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache


class Register(IntEnum):
    """How a speaker talks to the hearer; the value is the place of the level in a bracket."""

    CASUAL = 0
    """반말: among friends, or from a teacher to a pupil."""
    POLITE = 1
    """해요체: among colleagues and neighbours."""
    FORMAL = 2
    """합쇼체: at a counter, in an interview, to a superior."""


_BRACKET = re.compile(r"\[([^\[\]]*)\]")


@lru_cache(maxsize=8192)
def in_register(template: str, register: Register) -> str:
    """Keep of every ``[a|b]`` or ``[a|b|c]`` in the template the alternative of this speech level."""

    def pick(bracket: re.Match[str]) -> str:
        alternatives = bracket.group(1).split("|")
        return alternatives[min(register, len(alternatives) - 1)]

    return _BRACKET.sub(pick, template)


# --- syllables -----------------------------------------------------------------------------------------
# A Hangul syllable is 0xAC00 + (onset * 21 + vowel) * 28 + coda (Unicode Standard, section 3.12).

_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_CODAS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"


def _split(syllable: str) -> tuple[int, str, str]:
    """Return onset index, vowel and coda of a syllable; the coda is a space where there is none."""
    code = ord(syllable) - 0xAC00
    return code // 588, _VOWELS[code % 588 // 28], _CODAS[code % 28]


def _join(onset: int, vowel: str, coda: str = " ") -> str:
    return chr(0xAC00 + (onset * 21 + _VOWELS.index(vowel)) * 28 + _CODAS.index(coda))


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣"


# --- nouns ---------------------------------------------------------------------------------------------

# The last syllable a reader says for the masked tokens: 일, 이, 삼; otherwise the English word in Korean.
_READ_AS = {
    "#Person1#": "일", "#Person2#": "이", "#Person3#": "삼", "#PhoneNumber#": "버", "#Address#": "스",
    "#PassportNumber#": "버", "#DateOfBirth#": "스", "#SSN#": "엔", "#CardNumber#": "버",
    "#CarNumber#": "버", "#Email#": "일",
}  # fmt: skip

_PARTICLES = {
    "은": ("은", "는"), "이": ("이", "가"), "을": ("을", "를"), "과": ("과", "와"), "아": ("아", "야"),
    "이야": ("이야", "야"), "이에요": ("이에요", "예요"), "이라고": ("이라고", "라고"), "이라고요": ("이라고요", "라고요"),
}  # fmt: skip


def final_consonant(word: str) -> str:
    """Return the coda of the word's last syllable as it is read aloud, ``" "`` when it ends in a vowel.

    Raises:
        ValueError: The word ends in neither Hangul nor a known masked token, so its reading is unknown.
    """
    last = _READ_AS.get(word.rsplit(" ", 1)[-1], word[-1:])
    if not last or not _is_hangul(last):
        raise ValueError(f"no Korean reading is known for the end of {word!r}")
    return _split(last)[2]


def with_particle(word: str, particle: str) -> str:
    """Attach a particle in the form that the word's final consonant asks for.

    Args:
        word: A noun in Hangul or a masked token such as ``#Person1#``.
        particle: The form after a consonant (은 이 을 과 아 이야 이에요 이라고 이라고요) or 로; any other
            particle (에, 까지, 보다 …) has one form and is attached as it is.
    """
    if particle == "로":  # 으로 after every consonant but ㄹ
        return word + ("로" if final_consonant(word) in " ㄹ" else "으로")
    if particle not in _PARTICLES:
        return word + particle
    return word + _PARTICLES[particle][final_consonant(word) == " "]


class Noun(str):
    """A noun that takes its particle as format spec: ``f"{Noun('우산'):을}"`` is 우산을."""

    __slots__ = ()

    def __format__(self, particle: str) -> str:
        return with_particle(str(self), particle)


# --- verbs ---------------------------------------------------------------------------------------------

_BRIGHT = "ㅏㅑㅗ"  # stems with these vowels take 아, all others 어
# Stems whose last consonant changes before a vowel, by that consonant; other stems are regular.
_SOFTENED = {
    "ㄷ": ("듣", "걷", "싣", "깨닫"),
    "ㅂ": (
        "덥",
        "춥",
        "맵",
        "돕",
        "눕",
        "럽",
        "렵",
        "롭",
        "볍",
        "겁",
        "깝",
        "둡",
        "쉽",
        "무섭",
        "고맙",
        "반갑",
        "차갑",
    ),
    "ㅅ": ("낫", "붓", "짓", "잇"),
}
_NOT_REU_IRREGULAR = ("들르", "따르", "치르")
_CONTRACTED = {("ㅗ", "ㅏ"): "ㅘ", ("ㅜ", "ㅓ"): "ㅝ", ("ㅣ", "ㅓ"): "ㅕ", ("ㅚ", "ㅓ"): "ㅙ"}
_ABSORBING = "ㅏㅐㅓㅔㅕ"  # a stem that ends in one of these swallows 아 and 어


def _changes(stem: str, consonant: str) -> bool:
    return _split(stem[-1])[2] == consonant and stem.endswith(_SOFTENED.get(consonant, ()))


def _before_a(stem: str, coda: str = " ") -> str:
    """Return the stem joined with 아/어 whose syllable closes with ``coda`` (ㅆ for the past)."""
    head, (onset, vowel, final) = stem[:-1], _split(stem[-1])
    bright = "ㅏ" if vowel in _BRIGHT else "ㅓ"
    ieung = _split("아")[0]
    if stem.endswith("하"):
        return head + _join(onset, "ㅐ", coda)
    if final == " ":
        if vowel == "ㅡ":  # 쓰다 → 써, 바쁘다 → 바빠, and 모르다 → 몰라
            if head and _is_hangul(head[-1]):
                before = _split(head[-1])
                bright = "ㅏ" if before[1] in _BRIGHT else "ㅓ"
                if stem[-1] == "르" and not stem.endswith(_NOT_REU_IRREGULAR):
                    return head[:-1] + _join(before[0], before[1], "ㄹ") + _join(onset, bright, coda)
            else:
                bright = "ㅓ"
            return head + _join(onset, bright, coda)
        if vowel in _ABSORBING:
            return head + _join(onset, vowel, coda)
        if (vowel, bright) in _CONTRACTED:
            return head + _join(onset, _CONTRACTED[vowel, bright], coda)
        return stem + _join(ieung, bright, coda)
    if _changes(stem, "ㅂ"):  # 덥다 → 더워, only 돕다 → 도와
        return head + _join(onset, vowel) + _join(ieung, "ㅘ" if stem.endswith("돕") else "ㅝ", coda)
    if _changes(stem, "ㄷ"):
        return head + _join(onset, vowel, "ㄹ") + _join(ieung, bright, coda)
    if _changes(stem, "ㅅ"):
        return head + _join(onset, vowel) + _join(ieung, bright, coda)
    return stem + _join(ieung, bright, coda)


def _before_eu(stem: str, ending: str) -> str:
    """Return the stem joined with an ending in 으 or in 을, 은: after a vowel or ㄹ the 으 goes."""
    head, (onset, vowel, final) = stem[:-1], _split(stem[-1])
    coda, rest = _split(ending[0])[2], ending[1:]
    if _changes(stem, "ㅂ"):
        return head + _join(onset, vowel) + _join(_split("우")[0], "ㅜ", coda) + rest
    if _changes(stem, "ㄷ"):
        return head + _join(onset, vowel, "ㄹ") + ending
    if _changes(stem, "ㅅ"):
        return head + _join(onset, vowel) + ending
    if final == " ":
        return head + _join(onset, vowel, coda) + rest
    if final == "ㄹ":
        return (head + _join(onset, vowel, coda) if coda != " " else stem) + rest
    return stem + ending


def conjugate(stem: str, ending: str) -> str:
    """Attach an ending to a stem (the dictionary form without 다).

    Args:
        stem: The stem, possibly at the end of a phrase: ``회의가 생기``. The verbs 이다 and 푸다 and the stems
            with ㅎ that change (그렇다) are not covered.
        ending: The form after a bright vowel or a consonant: 아, 아서, 았다, 으면, 을게, 은, 습니다, 고, 기로 …
    """
    if ending[0] in "아았":
        return _before_a(stem, _split(ending[0])[2]) + ending[1:]
    if ending[0] in "으을은":
        return _before_eu(stem, ending)
    head, (onset, vowel, final) = stem[:-1], _split(stem[-1])
    if ending.startswith("습") and final in " ㄹ":
        return head + _join(onset, vowel, "ㅂ") + ending[1:]
    if final == "ㄹ" and _split(ending[0])[0] in (_split("나")[0], _split("사")[0]):  # 멀다 → 머네요
        return head + _join(onset, vowel) + ending
    return stem + ending


@dataclass(frozen=True)
class Verb:
    """A clause without subject change that takes its ending as format spec: ``f"{Verb('늦다'):아서}"`` is 늦어서."""

    phrase: str
    """The clause in the dictionary form; it may hold ``{slots}`` until :meth:`filled`."""
    past: bool = False
    """Told in the past. The ending 아서 stays without tense, as Korean wants it (늦어서, never 늦었어서)."""

    def filled(self, facts: Mapping[str, object]) -> Verb:
        """Return the verb with its slots filled."""
        return replace(self, phrase=self.phrase.format_map(facts)) if "{" in self.phrase else self

    def __format__(self, ending: str) -> str:
        stem = self.phrase.removesuffix("다")
        if self.past and ending != "아서":
            stem = _before_a(stem, "ㅆ")
            if ending[0] in "아았":  # after 았 and 었 the vowel is always 어: 봤어
                return stem + ("어" if ending[0] == "아" else "었") + ending[1:]
        return conjugate(stem, ending)


def did(phrase: str) -> Verb:
    """Return a verb that is told in the past."""
    return Verb(phrase, past=True)
