"""The page "write a family": its family is extracted, keeps the contract, learns, and its formula is right."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dure.config import load_experiment, rehearsal_of
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.testing import check_family
from dure.training.run import RunRequest, run

PAGE = Path(__file__).parents[2] / "docs" / "write_a_family.md"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def entities(tmp_path, monkeypatch):
    """The files of the page in a folder of their own, and the module."""
    (tmp_path / "entities.py").write_text(blocks("python")[0], encoding="utf-8")
    (tmp_path / "entities.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "entities", raising=False)
    yield importlib.import_module("entities")
    sys.modules.pop("entities", None)


def small(experiment, **changes):
    sizes = {"rehearsal.max_steps": 6, "rehearsal.max_train_rows": 40, "rehearsal.max_dev_rows": 6}
    return rehearsal_of(experiment.with_(sizes | changes))


def test_the_family_of_the_page_keeps_the_contract(entities, cpu, tmp_path) -> None:
    assert "def test_entities_keep_the_contract" in blocks("python")[1]
    experiment = small(load_experiment("entities.yaml"))
    check_family(experiment, tmp_path / "work", profile=cpu, runs=False)


@pytest.mark.slow
def test_its_runs_keep_the_contract(entities, cpu, tmp_path) -> None:
    check_family(small(load_experiment("entities.yaml")), tmp_path / "work", profile=cpu)


@pytest.mark.slow
def test_with_adapters_too(entities, cpu, tmp_path) -> None:
    lora = {"lora": {"rank": 4, "alpha": 8, "targets": ["query", "value"]}}
    experiment = small(load_experiment("entities.yaml"), **lora)
    check_family(experiment, tmp_path / "work", profile=cpu, runs=False)


def test_it_learns_in_the_steps_of_its_rehearsal(entities, cpu, tmp_path) -> None:
    result = run(RunRequest(rehearsal_of(load_experiment("entities.yaml")), cpu, tmp_path / "run"))
    assert result.metrics["baseline_f1"] == 0
    assert result.metrics["eval_f1"] > 0.9
    assert {"eval_f1[LOC]", "eval_f1[ORG]", "eval_f1[PER]"} <= set(result.metrics)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-LOC I-LOC O I-ORG", [("LOC", 0, 2), ("ORG", 3, 4)]),
        ("B-LOC I-ORG I-ORG", [("LOC", 0, 1), ("ORG", 1, 3)]),
        ("O O", []),
    ],
)
def test_entities_are_cut_as_conlleval_cuts_them(tags, expected, entities) -> None:
    assert entities.entities(tags.split()) == expected


def test_the_figures_are_those_of_whole_entities(entities) -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    given = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "B-ORG"]]
    found = entities.entity_figures(true, given)
    # Two of three real and two of four given: the person ends too early, the firm is none.
    assert (found["recall"], found["precision"]) == (2 / 3, 1 / 2)
    assert found["f1"] == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert {name: found[f"f1[{name}]"] for name in ("LOC", "ORG", "PER")} == {"LOC": 1, "ORG": 0, "PER": 0}
    assert entities.entity_figures([["O"]], [["O"]])["f1"] == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("하나 둘,O", "1 tags do not pair up with 2 words"),
        ("하나 둘,O PER", "the tag 'PER'"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(row, problem, entities, tmp_path) -> None:
    (tmp_path / "train.csv").write_text(f"text,tags\n김민수 왔다,B-PER O\n{row}\n", encoding="utf-8")
    data = {"data.train": str(tmp_path / "train.csv"), "data.dev": None}
    with pytest.raises(UserError, match=problem) as caught:
        load_corpus(load_family(small(load_experiment("entities.yaml"), **data)), notify=lambda message: None)
    assert "row 2" in str(caught.value)


@pytest.mark.slow
def test_its_family_trains_from_the_command_line(entities, tmp_path) -> None:
    path = os.pathsep.join(str(PAGE.parents[1] / part) for part in ("platform", "."))
    done = subprocess.run(
        [sys.executable, "-m", "dure", "train", "entities.yaml", "--rehearse", "rehearsal.max_steps=4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
