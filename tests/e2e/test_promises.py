"""Every test and every fault that the page of promises names exists."""

from __future__ import annotations

import re
from functools import cache

from tests.faults.suite import FAULTS

from .conftest import REPOSITORY

TESTS = REPOSITORY / "tests"
PAGE = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8")


@cache
def named_in(file):
    return {*re.findall(r"^def (test_\w+)", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)}


def test_every_test_that_holds_a_promise_exists():
    rows = re.findall(r"^\| (?!point |---)(.+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 40
    for point, held_by in rows:
        named = re.findall(r"`((?:[a-z0-9_]+/)+test_[a-z0-9_]+\.py)(?:::(\w+))?`", held_by)
        faults = re.findall(r"fault `([^`]+)`", held_by)
        assert len(named) + len(faults) == held_by.count("`") / 2 > 0, point
        for file, name in named:
            assert name in named_in(file) if name else named_in(file), (point, file, name)
        assert {*faults} <= {f"{fault.study}: {fault.name}" for fault in FAULTS}, point
