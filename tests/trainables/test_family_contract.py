"""Every family, every way of training: build → steps → save → load → same logits → resume."""

from __future__ import annotations

import shutil
from math import isfinite

import pytest
import torch

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.reporting.figures import is_speed
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from trainables.red_heart.model import TASKS

EMOTION = {
    "family": "trainables.emotion",
    "task": {"cleaning": {}},
    "objective": {"label_smoothing": 0.1, "class_weights": "balanced"},
    "best_metric": "eval_macro_f1",
}
RED_HEART = {
    "family": "trainables.red_heart",
    "task": {"weighting": "uncertainty"},
    "objective": {"label_smoothing": 0.1, "r_drop": 0.5},
    "best_metric": "eval_emotion_macro_f1",
}
EMOTIONS = EMOTION | {"task": {"multi_label": True, "threshold": 0.3}}
CASES = [
    *(
        (architecture, kind, {})
        for architecture in ("mt5", "t5", "bart")
        for kind in ("full", "lora", "qlora")
    ),
    *((architecture, kind, {}) for architecture in ("bert", "distilbert") for kind in ("full", "lora")),
    ("bert", "qlora", {}),
    pytest.param("bert", "full", EMOTION, id="emotion-full"),
    pytest.param("bert", "lora", EMOTIONS, id="emotions-lora"),
    pytest.param("red_heart", "full", RED_HEART, id="red_heart"),
]
RESUMED = [
    pytest.param(*case, marks=pytest.mark.slow)
    if case[:2]
    in (("mt5", "full"), ("mt5", "lora"), ("mt5", "qlora"), ("t5", "full"), ("distilbert", "lora"))
    else case
    for case in CASES
]
"""The same, those left to the slow suite whose likes are in the default one."""


def _logits(model, tokenizer):
    model.eval()
    ids = tokenizer(["#Person1#: 안녕하세요"], return_tensors="pt").input_ids
    more = {"decoder_input_ids": torch.tensor([[0, 5, 6]])} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


@pytest.mark.parametrize(("architecture", "kind", "more"), CASES)
def test_build_step_save_load_gives_the_same_logits(architecture, kind, more, tiny, cpu, tmp_path):
    family = load_family(tiny(architecture, kind, **more))
    corpus = load_corpus(family, tell=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    batch = family.collator(corpus.tokenizer, model)(
        [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in corpus.train.select(range(4))]
    )
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    model.train()
    losses = []
    for _ in range(3):
        labels = batch["labels"]
        outputs = model(**{key: value for key, value in batch.items() if key != "labels"})
        loss = family.objective(model, corpus.train)(outputs, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    before = _logits(model, corpus.tokenizer)
    family.export(model, corpus.tokenizer, tmp_path / "final")
    loaded, tokenizer = family.load_exported(tmp_path / "final")
    assert tokenizer.tokenize("#Person1#: 안녕") == corpus.tokenizer.tokenize("#Person1#: 안녕")
    torch.testing.assert_close(_logits(loaded, tokenizer), before, atol=2e-4, rtol=1e-4)
    if architecture == "red_heart":
        expected = {"backbone", "weighting"} | {
            f"{part}.{task}" for part in ("analyzers", "heads") for task in TASKS
        }
    else:
        expected = {"encoder", "decoder" if model.config.is_encoder_decoder else "head"}
    assert set(family.modules(model)) == expected
    names = [name for name, _ in model.named_parameters()]
    for prefix in family.modules(model).values():
        assert any(name.startswith(prefix) for name in names)
    assert set(family.module_losses()) <= expected
    losses = [family.metric(name) for name in family.module_losses().values()]
    assert all(loss is not None and loss.direction == "min" for loss in losses)


@pytest.mark.parametrize(
    ("architecture", "more"),
    [("t5", {}), ("bert", {}), ("bert", EMOTION), ("bert", EMOTIONS), ("red_heart", RED_HEART)],
)
def test_the_baseline_gives_metrics_of_the_family_that_need_no_model(architecture, more, tiny, cpu, tmp_path):
    experiment = tiny(architecture, "full", max_steps=1, **more)
    family = load_family(experiment)
    corpus = load_corpus(family, tell=lambda message: None)
    figures = family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    assert experiment.training.best_metric in figures
    assert all(family.metric(name) is not None for name in figures)
    assert all(isfinite(value) for value in figures.values())
    assert figures == family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    result = run(RunRequest(experiment, cpu, tmp_path / "run"))
    told = {name: value for name, value in result.metrics.items() if name.startswith("baseline_")}
    assert told == {name.replace("eval_", "baseline_"): value for name, value in figures.items()}


@pytest.mark.parametrize(("architecture", "kind", "more"), RESUMED)
def test_a_run_cut_after_a_checkpoint_resumes_to_the_same_records(
    architecture, kind, more, tiny, cpu, tmp_path
):
    whole = run(RunRequest(tiny(architecture, kind, **more), cpu, tmp_path / "whole"))
    assert whole.state == "completed"
    # As a kill after the checkpoint of step 4 would have left it.
    cut = RunFolder(shutil.copytree(tmp_path / "whole", tmp_path / "cut"))
    shutil.rmtree(cut.path / "checkpoint-6")
    shutil.rmtree(cut.final_model)
    cut.result.unlink()
    resumed = run(RunRequest(tiny(architecture, kind, **more), cpu, cut.path, resume=True))
    same = [name for name in whole.metrics if name.startswith(("eval_", "test_", "steps"))]
    same = [name for name in same if not is_speed(name)]
    assert {"eval_loss", "test_loss", "steps"} < set(same)
    assert {name: resumed.metrics[name] for name in same} == {name: whole.metrics[name] for name in same}
    wholly, pieced = (read_json_lines(RunFolder(tmp_path / name).metrics) for name in ("whole", "cut"))
    for record in (*wholly, *pieced):
        for timing in [key for key in record if "second" in key or "runtime" in key]:
            del record[timing]
    assert pieced == wholly
