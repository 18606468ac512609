"""Who only looks, or errs, does not wait for torch: told by the modules that are imported, not by a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "peft",
    "accelerate",
    "pandas",
    "ray",
    "optuna",
    "scipy",
    "matplotlib",
)
"""What takes from a fifth of a second to several to import."""
SAYS_WHAT_IT_IMPORTED = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr))
from dure.cli import main
main()
"""
MISSING = ["data.train=no_such.csv", "data.dev=null"]


def run(code: str, *words: str) -> tuple[int, str, list[str]]:
    """Return the exit code of a program, what it said, and which heavy modules it had imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120
    )
    said, _, imported = done.stderr.rpartition("imported:")
    return done.returncode, said, imported.split()


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["sweep", "--help"],
        ["list"],
        ["train", "kobart_baseline", "--dry-run"],
        ["train", "transfer_bert", "--dry-run"],
        ["train", "kobert_emotion", "--dry-run"],
        ["train", "red_heart_tiny", "--dry-run"],
        ["run", "seven", "--dry-run"],
        ["runs", "."],
        ["clean", "."],
        ["sweep", "kobart_baseline", "--dry-run"],
    ],
    ids=" ".join,
)
def test_looking_imports_nothing_heavy(words: list[str]) -> None:
    code, said, imported = run(SAYS_WHAT_IT_IMPORTED, *words)
    assert (code, imported) == (0, []), said


def test_the_help_does_not_wait_for_the_schema() -> None:
    code, said, imported = run(SAYS_WHAT_IT_IMPORTED.replace("'torch'", "'pydantic'"), "--help")
    assert (code, imported) == (0, []), said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "kobart_baseline", *MISSING], "no_such.csv"),
        (["run", "seven", *MISSING], "no_such.csv"),
        (["sweep", "kobart_baseline", *MISSING], "no_such.csv"),
        (["train", "kobart_baseline", "training.learning_rat=1"], "training.learning_rat"),
        (["train", "kobart_baseline", "task.rouge_tokeniser=default"], "rouge_tokeniser"),
        (["train", "kobart_baseline", "training.best_metric=eval_accuracy"], "training.best_metric"),
        (["train", "kobart_baselin"], "kobart_baselin"),
        (["train", "kobart_baseline", "--profile", "no_such"], "no_such"),
        (["predict", "no_such_run", "rows.csv", "-o", "out.csv"], "no_such_run"),
        (["serve", "no_such_run"], "no_such_run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_before_anything_heavy_is_imported(words: list[str], told: str) -> None:
    code, said, imported = run(SAYS_WHAT_IT_IMPORTED, *words)
    assert (code, imported) == (2, []), said
    assert told in said


@pytest.mark.slow
def test_peft_comes_without_bitsandbytes_and_finds_it_when_asked() -> None:
    code = (
        "from dure.imports import import_fast; import_fast()\n"
        "import sys, peft\n"
        "assert 'bitsandbytes' not in sys.modules\n"
        "from importlib.util import find_spec\n"
        "assert peft.import_utils.is_bnb_available() == (find_spec('bitsandbytes') is not None)\n"
    )
    assert run(code)[:2] == (0, "")
