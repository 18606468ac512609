"""The page for those who come from other trainers names keys and verbs that there are, in both languages the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dure.cli.app import VERBS, load_verbs
from dure.config.loading import load_space
from dure.config.schema import Experiment
from dure.config.sections import has_key

ROOT = Path(__file__).parents[2]
PAGES = [(ROOT / "docs" / language / "habits.md").read_text("utf-8") for language in ("en", "ko")]


def keys_of(page: str) -> list[str]:
    sections = "|".join(Experiment.model_fields)
    return re.findall(rf"`((?:{sections})(?:\.\w+)+)", page)


def test_both_languages_name_the_same_keys_and_verbs():
    verbs = [re.findall(r"`dure ([\w-]+)", page) for page in PAGES]
    assert keys_of(PAGES[0]) == keys_of(PAGES[1])
    assert verbs[0] == verbs[1]
    assert len(keys_of(PAGES[0])) > 15
    load_verbs()
    assert set(verbs[0]) <= set(VERBS)


@pytest.mark.parametrize("key", sorted({*keys_of(PAGES[0])} - {"task.multi_label"}))
def test_a_key_of_the_page_is_one_of_an_experiment(key):
    assert has_key(Experiment, key.split("."), whole=True)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_space_that_is_shown_loads(language, tmp_path):
    page = (ROOT / "docs" / language / "studies.md").read_text("utf-8")
    [space] = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        if "parameters" in yaml.safe_load(block)
    ]
    (tmp_path / "space.yaml").write_text(space)
    assert len(load_space(str(tmp_path / "space.yaml")).parameters) == 3
