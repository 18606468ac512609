"""Whatever stands in a configuration: it is an object or an error that names the file, and an object loads again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dure.config import load_experiment, load_profile
from dure.config.loading import dump_yaml, load_space
from dure.errors import UserError
from dure.studies.study import load_study

REPOSITORY = Path(__file__).parents[3]
LOADERS: dict[str, tuple[Callable[[str], BaseModel], list[str]]] = {
    kind: (load, [file.read_text(encoding="utf-8") for file in sorted((REPOSITORY / folder).glob("*.yaml"))])
    for kind, load, folder in (
        ("experiment", load_experiment, "search_spaces/experiments"),
        ("study", load_study, "search_spaces/studies"),
        ("space", load_space, "search_spaces/spaces"),
        ("profile", load_profile, "cluster/profiles"),
    )
}
ODD = (
    *("", "null", "~", "true", "yes", "0", "-1", "1e999", "-1e308", "1e30", "0x10", "1_000", "010", ".nan", ".inf"),
    *("1/3", "110%", "2020-99-99", "12:30:45", "[]", "{}", "[[[]]]", "{a: {b: [1, 2]}}", "&a [*a]", "*a", "<<", "!!int 3"),
    *("'", '"', "|", ">", "- a", "? a", "%TAG", "---", "...", "\t", "\0", "\x85", "\u2028", "\ufeff", "\U0001f600", "가", "각"),
    *("\ud800", "\\ud800", '"\\ud800"', '"\\0"', "9" * 400, "x" * 5000, "a: b", "#", "sample", "../..", "-0.0", "1e-400"),
)  # fmt: skip


@st.composite
def mutated(draw, texts: list[str]) -> str:
    """One of our own files with some lines deleted, doubled, swapped, indented, or with another value."""
    lines = draw(st.sampled_from(texts)).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        match draw(
            st.sampled_from(("delete", "double", "swap", "indent", "value", "value", "key", "insert"))
        ):
            case "delete" if lines:
                del lines[place]
            case "double" if lines:
                lines.insert(place, lines[place])
            case "swap" if lines:
                other = draw(st.integers(0, len(lines) - 1))
                lines[place], lines[other] = lines[other], lines[place]
            case "indent" if lines:
                lines[place] = draw(st.sampled_from((" ", "  ", "\t"))) + lines[place]
            case "value" if lines:
                lines[place] = f"{lines[place].partition(':')[0]}: {draw(st.sampled_from(ODD))}"
            case "key" if lines:
                lines[place] = f"{draw(st.sampled_from(ODD))}: {lines[place].partition(':')[2]}"
            case _:
                lines.insert(place, draw(st.sampled_from(ODD) | st.text(max_size=20)))
    return "\n".join(lines)


def content_of(kind: str) -> st.SearchStrategy[bytes]:
    texts = mutated(LOADERS[kind][1]) | st.text(max_size=200)
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=100)


def loaded_or_problem(load: Callable[[], BaseModel]) -> tuple[BaseModel | None, str]:
    try:
        return load(), ""
    except UserError as error:
        return None, str(error)


def check(kind: str, content: bytes) -> None:
    """Load a content; what loads must dump and load again as the same object."""
    load = LOADERS[kind][0]
    Path("fuzzed.yaml").write_bytes(content)
    loaded, problem = loaded_or_problem(lambda: load("fuzzed.yaml"))
    if loaded is None:
        assert "fuzzed.yaml" in problem
        return
    Path("again.yaml").write_text(dump_yaml(loaded), encoding="utf-8")
    assert load("again.yaml") == loaded


def check_overrides(overrides: list[str]) -> None:
    loaded, problem = loaded_or_problem(lambda: load_experiment("transfer_bert", overrides))
    if loaded is None:
        assert "command line" in problem
        return
    Path("again.yaml").write_text(dump_yaml(loaded), encoding="utf-8")
    assert load_experiment("again.yaml") == loaded


KEYS = (
    *("family", "experiment.name", "experiment.tags", "model", "model.revision", "data.columns", "data.columns.text"),
    *("training.epochs", "training.learning_rate", "training.eval_every", "lora", "lora.targets", "task", "task.x"),
    *("data.train_ratio", "data.fold", "data.encoding", "wandb.enabled", "tokenizer.input_prefix", "rehearsal", "a..b"),
    *("", ".", "extends", "training.scheduler_options.num_cycles", "model.quantization"),
)  # fmt: skip
override = st.builds(
    lambda key, equals, value: f"{key}{equals}{value}",
    st.sampled_from(KEYS) | st.text(max_size=10),
    st.sampled_from(("=", "=", "=", "==", "")),
    st.sampled_from(ODD) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
)
quick = settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(derandomize=False, max_examples=4000, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", LOADERS)
@quick
@given(data=st.data())
def test_any_file_loads_or_is_named(kind, data):
    check(kind, data.draw(content_of(kind)))


def test_a_study_without_a_name_is_written_without_one():
    Path("fuzzed.yaml").write_text("kind: unified\nexperiment: red_heart_320m\n", encoding="utf-8")
    check("study", Path("fuzzed.yaml").read_bytes())
    assert "name" not in Path("again.yaml").read_text(encoding="utf-8")


@quick
@given(overrides=st.lists(override, min_size=1, max_size=3))
def test_any_override_loads_or_is_named(overrides):
    check_overrides(overrides)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOADERS)
@thorough
@given(data=st.data())
def test_many_files_load_or_are_named(kind, data):
    check(kind, data.draw(content_of(kind)))


@pytest.mark.slow
@thorough
@given(overrides=st.lists(override, min_size=1, max_size=3))
def test_many_overrides_load_or_are_named(overrides):
    check_overrides(overrides)
