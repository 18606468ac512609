"""A step that was traced before is not traced again, and what changes a trace makes it another one."""

from __future__ import annotations

import pytest

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling import known_traces
from dure.modeling.known_traces import known_step
from dure.modeling.tracing import trace_step


@pytest.fixture
def step(tiny, cpu):
    """Make what a step is traced from, anew every time: ``step("bert", "lora", rows=3)``."""

    def make(architecture="bert", kind="full", *, rows=4, changes=None, objective=None):
        experiment = tiny(architecture, kind, objective=objective).with_(changes or {})
        family = load_family(experiment, lambda message: None)
        corpus = load_corpus(family, notify=lambda message: None)
        model = family.load_model(corpus.tokenizer, cpu)
        batches = family.batches(corpus.tokenizer, model)
        batch = batches.collate([corpus.train[row] for row in range(rows)])
        return model, batches, family.objective(model, corpus.train), batch

    return make


@pytest.fixture
def traced(monkeypatch):
    """How often a step was really traced."""
    calls = []

    def counted(*given, **how):
        calls.append(how)
        return trace_step(*given, **how)

    monkeypatch.setattr(known_traces, "trace_step", counted)
    return calls


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_the_same_step_of_another_model_is_not_traced_again(step, tmp_path, traced, architecture):
    first = known_step(tmp_path, *step(architecture, "lora"), precision="fp32")
    other = step(architecture, "lora", changes={"training.learning_rate": 3e-3, "training.epochs": 7})
    assert known_step(tmp_path, *other, precision="fp32") == first
    assert len(traced) == 1
    assert first == trace_step(*other, precision="fp32")


def test_what_a_trace_depends_on_is_traced_anew(step, tmp_path, traced):
    plain, whole = {"precision": "fp32"}, step()
    ways = [
        (whole, plain),
        (step(rows=3), plain),
        (step(kind="lora"), plain),
        (step(changes={"rehearsal.num_layers": 2}), plain),
        (step("bart", objective={"label_smoothing": 0.0}), plain),
        (step("bart", objective={"label_smoothing": 0.1}), plain),
        (whole, {"precision": "bf16"}),
        (whole, plain | {"kernels": "cpu"}),
        (whole, plain | {"r_drop": 0.5}),
    ]
    for given, how in ways:
        known_step(tmp_path, *given, **how)
    assert len(traced) == len(ways)


def test_a_mask_that_hides_something_is_another_step(step, tmp_path, traced):
    model, batches, objective, batch = step()
    batch["attention_mask"][:] = 1
    for hidden in (0, 1):
        batch["attention_mask"][0, -1] = 1 - hidden
        known_step(tmp_path, model, batches, objective, batch, precision="fp32")
    assert len(traced) == 2


@pytest.mark.parametrize("broken", [".json", ".arrow"])
def test_a_broken_entry_is_traced_anew(step, tmp_path, traced, broken):
    given = step()
    first = known_step(tmp_path, *given, precision="fp32")
    (file,) = (tmp_path / "traces").glob(f"*{broken}")
    whole = bytearray(file.read_bytes())
    place = whole.rindex(first.peak.to_bytes(4, "little")) if broken == ".arrow" else len(whole) // 2
    whole[place] ^= 1
    file.write_bytes(whole)
    known_traces.load_entry.__globals__["_verified"].clear()  # Another process looks at it again.
    assert known_step(tmp_path, *given, precision="fp32") == first
    assert len(traced) == 2
    assert known_step(tmp_path, *given, precision="fp32") == first
    assert len(traced) == 2
