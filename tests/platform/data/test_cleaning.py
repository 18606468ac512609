"""Cleaning of text from the web: each rule does its own and no more."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.data.cleaning import (
    CleaningConfig,
    cleaned,
    with_mentions_as,
    with_short_repeats,
    with_single_spaces,
    with_urls_as,
    without_html,
)

NOTHING = CleaningConfig(html=False, urls=None, mentions=None, repeats=None)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("첫 줄<br/>둘째 줄<BR>셋째", "첫 줄 둘째 줄 셋째"),
        ('정말 <b class="x">좋아</b>요', "정말 좋아요"),
        ("&quot;네&quot; &amp; 아니오&nbsp;", '"네" & 아니오\xa0'),
        ("앞<!-- 숨은\n말 -->뒤<script>alert('x')</script>", "앞 뒤 "),
        ("a < b 이고 c > d 이다 <3 <한글>", "a < b 이고 c > d 이다 <3 <한글>"),
        ("&lt;b&gt;라고 쓴다", "<b>라고 쓴다"),
    ],
)
def test_tags_vanish_and_entities_become_characters(text, clean) -> None:
    assert without_html(text) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://example.com/a?b=c에서 봤다", "*에서 봤다"),
        ("여기 (http://example.com/길).", "여기 (*길)."),
        ("www.example.com, 그리고 WWW.EXAMPLE.ORG!", "*, 그리고 *!"),
        ("주소는 없다. http 만 있다", "주소는 없다. http 만 있다"),
    ],
)
def test_an_address_ends_before_hangul_and_closing_signs(text, clean) -> None:
    assert with_urls_as(text, "*") == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("@user_1님 안녕", "*님 안녕"),
        ("@민수 안녕 @a.b.", "* 안녕 *."),
        ("me@example.com 으로", "me@example.com 으로"),
        ("골뱅이 @ 하나", "골뱅이 @ 하나"),
    ],
)
def test_names_after_an_at_sign_are_replaced_and_mail_addresses_stay(text, clean) -> None:
    assert with_mentions_as(text, "*") == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ㅋㅋㅋㅋㅋ 웃겨ㅠㅠㅠ ㅎㅎ", "ㅋㅋ 웃겨ㅠㅠ ㅎㅎ"),
        ("와!!!!! ♥♥♥ ....", "와!! ♥♥ .."),
        ("10000원 하하하하 zzzz", "10000원 하하하하 zzzz"),
        ("ㅋ", "ㅋ"),
    ],
)
def test_runs_are_shortened_and_never_dropped(text, clean) -> None:
    assert with_short_repeats(text, 2) == clean


@given(st.text(alphabet="ㅋㅠㅎ!?가 a1", max_size=60), st.integers(1, 4))
def test_shortening_keeps_the_order_of_what_is_said(text, longest) -> None:
    def without_runs(text: str) -> str:
        return "".join(letter for place, letter in enumerate(text) if text[place - 1 : place] != letter)

    short = with_short_repeats(text, longest)
    assert without_runs(short) == without_runs(text)
    assert with_short_repeats(short, longest) == short


def test_every_rule_can_be_left_out() -> None:
    text = "<b>@a</b> https://a.kr ㅋㅋㅋ &amp;"
    assert cleaned(text, NOTHING) == text
    assert cleaned(text, CleaningConfig()) == "ㅋㅋ &"
    assert cleaned(text, CleaningConfig(urls="[URL]", mentions="[이름]")) == "[이름] [URL] ㅋㅋ &"


def test_white_space_becomes_single_spaces() -> None:
    assert with_single_spaces("\t가\u3000 나\n\n다 ") == "가 나 다"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a&#" + "9" * 5000 + ";b", "a\ufffdb"),
        ("a&#" + "9" * 5000 + "b", "a\ufffdb"),
        ("a&#x" + "f" * 5000 + ";b", "a\ufffdb"),
        ("&#" + "0" * 5000 + "65;", "A"),
        ("&#x" + "0" * 5000 + "41;", "A"),
        ("&#65;&#x41;&#0;&#1114112;", "AA\ufffd\ufffd"),
        ("<!-- 열린 채", "<!-- 열린 채"),
        ("<!-- a --><!-- b", " <!-- b"),
        ("<!-- <script> --> c </script>", "  c "),
        ("<SCRIPT x='1'>a</Script >b<style>c</style>", " b "),
        ("<scripted>a</scripted>", "a"),
    ],
)
def test_html_of_any_kind_is_cleaned_and_nothing_in_it_raises(text, clean) -> None:
    assert without_html(text) == clean


PATTERNS = ["<!--", "<script>", "<style ", "<script", "</script", "&#9", "&#", "<a ", "</", "<br ", "www.", "http://a.", "@a.", "@", "ㅋ!", "!", "<!---->", "<script></script>", "--><!--"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_cleaning_takes_time_in_proportion_to_the_text(pattern) -> None:
    def seconds(times: int) -> float:
        began = time.process_time()
        cleaned(pattern * times, CleaningConfig(repeats=1000))
        return time.process_time() - began

    seconds(100)
    assert seconds(25_000) < 2.0  # quadratic time took 20 seconds and more
