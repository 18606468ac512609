"""The documentation is true: it builds strictly, says the same in both languages, and every command in it runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache

import pytest

from dure.cli.json_schema import json_schema

from .conftest import REPOSITORY, call, environment

DOCS = REPOSITORY / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if not page.relative_to(DOCS).parts[0].startswith(("_", "reference")) and page.name != "log.md"
)
LANGUAGES = {page.relative_to(DOCS / "en") for page in PAGES if page.is_relative_to(DOCS / "en")}
RUNNABLE = [
    page
    for page in PAGES
    if "```bash" in page.read_text(encoding="utf-8") and page.name != "write_a_family.md"
]
"""Pages of commands; those of a family of one's own need the files that are written there, as tests/docs does."""
QUICK = ("numbers",)
"""Pages whose commands take seconds."""
FILES = (".log", ".safetensors")
PLACEHOLDERS = re.compile(r"[A-Z]{2,}|[가-힣…<>]")


def blocks(page, language):
    """Return the lines of a page's blocks of one language, with their continuations joined."""
    found = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(found).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].rstrip() for line in lines if line and not line.startswith("#")]


def mentioned(page):
    """Return every command of dure that a page names, in blocks and within sentences."""
    text = page.read_text(encoding="utf-8")
    in_blocks = [line for line in blocks(page, "(?:bash|text)") if line.startswith("dure ")]
    return in_blocks + re.findall(r"`(dure [^`|]+)`", text)


@cache
def help_of(verb):
    return call(verb, "--help").out


@cache
def keys():
    """Return the dotted keys of an experiment."""
    schema = json_schema("experiment")
    found = set()

    def walk(section, prefix):
        for name, field in section["properties"].items():
            found.add(prefix + name)
            for option in field.get("anyOf", [field]):
                if "$ref" in option:
                    walk(schema["$defs"][option["$ref"].rpartition("/")[2]], f"{prefix}{name}.")

    walk(schema, "")
    return found


def test_it_builds_without_a_warning(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-d", tmp_path / "trees", DOCS, tmp_path / "html"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "html" / "ko" / "guides" / "unified.html").is_file()
    assert "training.learning_rate" not in (tmp_path / "html" / "reference" / "profile.html").read_text(
        "utf-8"
    )
    assert "learning_rate" in (tmp_path / "html" / "reference" / "experiment.html").read_text("utf-8")


@pytest.mark.parametrize("page", sorted(LANGUAGES), ids=str)
def test_both_languages_have_the_same_commands(page):
    english, korean = DOCS / "en" / page, DOCS / "ko" / page
    assert korean.is_file()
    for language in ("bash", "text", "python", "yaml"):
        ours, theirs = blocks(english, language), blocks(korean, language)
        if language == "text":  # within them, a command may name its placeholder in its own language
            ours, theirs = ([each for each in some if each.startswith("dure ")] for some in (ours, theirs))
        assert ours == theirs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_command_and_option_that_is_named_exists(page):
    for command in mentioned(page):
        words = shlex.split(command.replace("…", " "))[1:]
        options = [word for word in words if word.startswith("-")]
        verbs = [word for word in words if not word.startswith("-")]
        if not verbs or PLACEHOLDERS.search(verbs[0]):
            continue
        if verbs[0] == "submit":
            continue  # what comes after it is a command of its own
        shown = help_of(verbs[0]) + call("--help").out
        for option in options:
            assert option.partition("=")[0] in shown, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_key_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    sections = "training|tokenizer|generation|lora|objective|model|data|wandb"
    named = set(re.findall(rf"`(?:dure [^`]*? )?((?:{sections})\.[a-z_0-9.]+)[=:`]", text))
    unknown = {key for key in named if key not in keys() and not key.endswith(FILES)}
    assert {key for key in unknown if not key.startswith("data.columns.")} == set()


def script(page, folder):
    """Run the commands of a page in their order, as somebody does who follows it."""
    for line in blocks(page, "bash"):
        words = shlex.split(line)
        assert words[0] == "dure"
        done = subprocess.run(
            [sys.executable, "-m", "dure", *words[1:]],
            cwd=folder,
            env=environment(COLUMNS="100"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=() if page.stem in QUICK and page.parent.name == "en" else pytest.mark.slow,
            id=page.relative_to(DOCS).as_posix(),
        )
        for page in RUNNABLE
    ],
)
def test_every_command_runs_as_it_stands(page, tmp_path):
    if page.parent.name == "ko" and blocks(page, "bash") == blocks(DOCS / "en" / page.name, "bash"):
        pytest.skip("the English page has the same commands")
    script(page, tmp_path)
