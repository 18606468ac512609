"""``experiment.yaml`` loads back into an equal experiment, and no input at all breaks the loader."""

import string
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dure.cli.json_schema import json_schema
from dure.config import Experiment, dump_yaml, load_experiment, load_profile
from dure.errors import UserError
from dure.studies.study import load_study

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30) | st.sampled_from(
    [
        "1e5",
        "010",
        "no",
        "null",
        "~",
        "<<",
        "=",
        "- a",
        "a: b",
        "#x",
        "1:30",
        "2024-01-01",
        " x ",
        "요약: ",
        "\ufeff",
        "\x85",
        "\u2028",
        "a\n b",
    ]
)
names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
rates = st.floats(min_value=1e-30, max_value=1, exclude_max=True)
counts = st.integers(min_value=1, max_value=2**40)
flags = st.booleans()
plain = st.recursive(
    st.none() | flags | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def section(required: dict[str, Any], **optional: Any) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


lora = section(
    {"rank": counts, "alpha": counts, "targets": st.lists(texts, min_size=1, max_size=3)}, dropout=rates
)
trees = section(
    {
        "family": texts,
        "experiment": section({"name": names}, description=texts, tags=st.lists(texts, max_size=3)),
        "model": section(
            {"checkpoint": texts},
            architecture=st.none() | texts,
            use_unsloth=flags,
        ),
    },
    tokenizer=section(
        {}, input_prefix=st.just("") | texts, special_tokens=st.lists(texts, max_size=3), max_unknown_rate=rates
    ),
    data=section(
        {}, train=texts, dev=st.none() | texts, columns=st.dictionaries(texts, texts, max_size=2),
        encoding=st.sampled_from([None, "utf-8", "cp949"]), max_train_rows=st.none() | counts,
    ),
    training=section(
        {},
        epochs=counts, learning_rate=rates, weight_decay=st.floats(min_value=0, max_value=1e300),
        warmup_ratio=rates, eval_every=counts | st.just("epoch"), precision=st.sampled_from(["auto", "fp32"]),
        gradient_checkpointing=flags, early_stopping_patience=st.none() | counts,
    ),
    lora=st.none() | lora,
    generation=section({}, num_beams=counts, length_penalty=st.floats(-1e9, 1e9)),
    wandb=section({}, enabled=flags, entity=st.none() | texts),
    task=st.dictionaries(texts, plain, max_size=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "experiment.yaml"


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_an_experiment_written_as_yaml_loads_back_equal(file: Path, tree: dict[str, Any]) -> None:
    experiment = Experiment.model_validate(tree)
    file.write_text(dump_yaml(experiment), encoding="utf-8")
    assert load_experiment(str(file)) == experiment


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_other_yaml_readers_read_the_same_from_it(tree: dict[str, Any]) -> None:
    experiment = Experiment.model_validate(tree)
    assert yaml.safe_load(dump_yaml(experiment)) == experiment.model_dump(mode="json")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_whatever_is_an_experiment_satisfies_the_json_schema(tree: dict[str, Any]) -> None:
    SCHEMA.validate(Experiment.model_validate(tree).model_dump(mode="json"))


SCHEMA = jsonschema.Draft202012Validator(json_schema("experiment"))
LOADERS = [load_experiment, load_study, load_profile]
keys = st.sampled_from(
    ["extends", "family", "experiment", "name", "model", "checkpoint", "training", "epochs", "learning_rate",
     "eval_every", "lora", "targets", "data", "columns", "task", "kind", "experiments", "device", "match"]
)  # fmt: skip
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=5),
    max_leaves=20,
)


def never_breaks(file: Path) -> None:
    for load in LOADERS:
        try:
            load(str(file))
        except UserError as error:
            str(error).encode()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(content=anything)
def test_any_tree_loads_or_is_told(file: Path, content: Any) -> None:
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    never_breaks(file)


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=60))
def test_any_bytes_load_or_are_told(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    never_breaks(file)


@settings(deadline=None, max_examples=250)
@given(
    content=st.lists(
        st.sampled_from(
            [*" \n\t:-?,[]{}#&*!|>'\"%@`\\<=0123456789eExXuUaé한.~+", "\n  ", "a: ", "- ", "<<: "]
        )
    ).map("".join)
)
def test_any_text_of_yaml_signs_loads_or_is_told(file: Path, content: str) -> None:
    file.write_text(content, encoding="utf-8")
    never_breaks(file)


@settings(deadline=None, max_examples=150)
@given(
    key=st.sampled_from(["training.epochs", "lora", "task.x", "tokenizer.input_prefix", "a.b"]) | st.text(),
    value=st.text(),
)
def test_any_override_is_taken_or_told(file: Path, key: str, value: str) -> None:
    file.write_text("family: f\nexperiment: {name: a}\nmodel: {checkpoint: c}\n", encoding="utf-8")
    try:
        load_experiment(str(file), [f"{key}={value}", value])
    except UserError as error:
        str(error)
