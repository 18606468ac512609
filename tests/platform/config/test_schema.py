"""What ``dure schema`` prints describes every key and fits the files that are shipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from dure.cli.json_schema import json_schema
from dure.config import Experiment, Profile, rehearsal_of
from dure.config.library import Kind
from dure.studies.batch.plan import BatchStudy
from dure.studies.study import study_kinds

ROOT = Path(__file__).parents[3]
KINDS: list[Kind] = ["experiment", "study", "space", "profile"]
FOLDERS = {
    "experiment": "search_spaces/experiments",
    "study": "search_spaces/studies",
    "space": "search_spaces/spaces",
    "profile": "cluster/profiles",
}
SHIPPED = [(kind, file) for kind in KINDS for file in sorted((ROOT / FOLDERS[kind]).glob("*.yaml"))]
COMPLETE = {"family": "f", "experiment": {"name": "a"}, "model": {"checkpoint": "c"}}


def valid(kind: Kind, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(json_schema(kind)).is_valid(value))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_one(kind: Kind) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_a_sentence(kind: Kind) -> None:
    schema = json_schema(kind)
    for section in (*schema.get("oneOf", [schema]), *schema.get("$defs", {}).values()):
        assert section["description"]
        for name, field in section["properties"].items():
            assert field.get("description"), f"{section['title']}.{name}"


@pytest.mark.parametrize(("kind", "file"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_every_shipped_file_satisfies_the_schema_as_an_editor_reads_it(kind: Kind, file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))  # here `6e-5` is text
    if file.stem.startswith("_"):
        content.setdefault("extends", "the topmost has no parent, and no name")
    jsonschema.validate(content, json_schema(kind))


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"learning_rate": "1e-5", "epochs": "3", "max_steps": "1e3", "eval_every": "50"}},
        {"training": {"eval_every": "epoch", "max_steps": None}},
        {"extends": "x", "lora": None, "training": None},
        {"extends": ["x", "y"], "lora": {"rank": 3}},
        {"data": {"columns": {"text": 0, "label": [1, "2"]}}},
    ],
)
def test_the_schema_accepts(change: dict[str, Any]) -> None:
    assert valid("experiment", COMPLETE | change)


@pytest.mark.parametrize(
    "change",
    [
        {"trainin": {}},
        {"training": {"epoch": 3}},
        {"training": {"learning_rate": "fast"}},
        {"training": {"epochs": 0}},
        {"training": {"scheduler_options": {"lr_end": -1}}},
        {"training": None},
        {"data": {"columns": {"text": 0.5}}},
        {"training": {"max_steps": 0}},
        {"training": {"eval_every": "step"}},
        {"objective": {"r_drop": -0.5}},
        {"training": {"ema": 0}},
        {"training": {"on_oom": "ignore"}},
        {"training": {"layer_lr_decay": 0}},
        {"training": {"layer_lr_decay": 1.1}},
        {"training": {"ema": 1.0}},
        {"training": {"gradient_checkpointing": 1}},
        {"lora": {"rank": 3}},
        {"model": {}},
        {"experiment": {"name": "a/b"}},
        {"extends": 3},
    ],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    assert not valid("experiment", COMPLETE | change)


@pytest.mark.parametrize("left_out", COMPLETE)
def test_only_a_file_that_extends_may_leave_keys_to_others(left_out: str) -> None:
    partial = {key: value for key, value in COMPLETE.items() if key != left_out}
    assert not valid("experiment", partial)
    assert valid("experiment", partial | {"extends": "x"})


def test_a_study_names_its_kind() -> None:
    assert valid("study", {"kind": "batch", "name": "s", "experiments": ["a"]})
    assert not valid("study", {"name": "s", "experiments": ["a"]})
    assert list(study_kinds()) == ["batch", "sweep", "progressive", "crossval", "unified"]


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    for name, field in section.model_fields.items():
        yield prefix + name, section, name
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from fields(inner, f"{prefix}{name}.")


FIELDS = [found for section in (Experiment, Profile, BatchStudy) for found in fields(section)]


@pytest.mark.parametrize(
    ("section", "name"), [(s, n) for _, s, n in FIELDS], ids=[path for path, _, _ in FIELDS]
)
def test_truth_values_numbers_and_text_are_never_taken_for_each_other(
    section: type[BaseModel], name: str
) -> None:
    def accepts(value: Any) -> bool:
        try:
            section.model_validate({name: value})
        except ValidationError as error:
            return all(detail["loc"][:1] != (name,) for detail in error.errors())
        return True

    accepted = {bool: accepts(True), int: accepts(1) or accepts(0.5) or accepts(1000), str: accepts("text")}
    assert sum(accepted.values()) <= 1


@pytest.mark.parametrize("section", [Experiment, Profile, BatchStudy])
def test_sections_never_change_after_loading(section: type[BaseModel]) -> None:
    for _, owner, _ in fields(section):
        assert owner.model_config["frozen"]
        assert owner.model_config["extra"] == "forbid"


def test_a_rehearsal_is_short_and_its_own_rehearsal() -> None:
    experiment = Experiment.model_validate(
        COMPLETE
        | {
            "training": {"warmup_steps": 1000, "learning_rate": 0.03, "max_steps": 5000},
            "generation": {"max_length": 400, "min_length": 300},
            "tokenizer": {"encoder_max_len": 1024},
        }
    )
    rehearsal = rehearsal_of(experiment)
    assert rehearsal.rehearsal.enabled
    assert rehearsal.training.max_steps == 120
    assert rehearsal.training.warmup_steps == 12
    assert rehearsal.training.learning_rate == 1
    assert (rehearsal.generation.min_length, rehearsal.generation.max_length) == (64, 64)
    assert rehearsal.tokenizer.encoder_max_len == 192
    assert rehearsal_of(rehearsal) == rehearsal
    assert Experiment.model_validate(rehearsal.model_dump()) == rehearsal


@pytest.mark.parametrize(("wanted", "made"), [("epoch", 40), (500, 40), (10, 10)])
def test_a_rehearsal_validates_at_least_as_often_as_it_was_asked_to(wanted, made) -> None:
    experiment = Experiment.model_validate(COMPLETE | {"training": {"max_steps": 5000, "eval_every": wanted}})
    assert rehearsal_of(experiment).training.eval_every == made
