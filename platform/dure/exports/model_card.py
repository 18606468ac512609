"""The model card of an export: what the model is, what it was measured at, and what nobody measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dure.config.loading import dump_yaml
from dure.exports.agreement import Agreement
from dure.family import Family
from dure.family.exported import RUNS_ON, ExportRecord
from dure.family.run_weights import RunWeights
from dure.files import in_bytes
from dure.metrics.metric import BASELINE, TEST, under
from dure.modeling.hub import is_on_hub
from dure.runs.folder import RunFolder
from dure.secrets import redacted, without_passwords

_USE = {
    "transformers": "Loads with `from_pretrained` of transformers; dure is not needed.",
    "adapter": "Loads with `PeftModel.from_pretrained` of peft on the base model, whose vocabulary must first be "
    "resized to `vocab_size` of `config.json`, and packed as its `quantization_config` says where it has one.",
    "onnx": "ONNX graphs (opset 18) for onnxruntime; a decoder's has no cache.",
    "ctranslate2": "`ctranslate2/` loads with `ctranslate2.Translator` or `Generator`; texts go in as tokens.",
}


def model_card(
    weights: RunWeights,
    family: Family,
    record: ExportRecord,
    agreement: Agreement,
    licence: str,
    differs: str,
    device: str,
) -> str:
    """Return the card as Markdown with the head that the model hub reads; ``device`` is the one of the original."""
    experiment = family.experiment
    head = {"license": licence, "base_model": experiment.model.checkpoint, "tags": ["dure"]}
    if experiment.rehearsal.enabled or not is_on_hub(experiment.model):
        del head["base_model"]  # which the hub would lead to
    parts = [
        f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---",
        f"# {experiment.name}",
        experiment.experiment.description or "",
        "This is a rehearsal: a miniature with random weights, good for nothing but trying out."
        if experiment.rehearsal.enabled
        else f"Trained from `{experiment.model.checkpoint}`.",
        f"Made of {record.source}, by dure {record.dure_version}, as {record.format}"
        f"{f' in {record.quantization}' if record.quantization else ''} ({in_bytes(record.size_bytes)}). "
        f"{_USE[record.format]}",
        "## Agreement with the original",
        f"{agreement.sentence}. It predicted {speeds(record, device)}.{f' {differs}.' if differs else ''}",
        "## Data",
        _data(weights),
        "## Scores",
        _scores(weights, family),
        *_generation(family),
        "## Settings",
        f"```yaml\n{dump_yaml(experiment)}```",
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(weights, family)),
    ]
    return redacted(without_passwords("\n\n".join(part for part in parts if part) + "\n"))


def speeds(record: ExportRecord, device: str) -> str:
    """Return how fast an export and its original predicted, and each on what: the original on a device."""
    own = "cpu" if record.format in RUNS_ON else device
    where = "there too" if device == own else f"on {device}"
    return (
        f"{record.rows_per_second:g} rows a second on {'the CPU' if own == 'cpu' else own} (the original "
        f"{record.original_rows_per_second:g}, {where})"
    )


def _data(weights: RunWeights) -> str:
    hashes = RunFolder(weights.run).read_environment().get("data")
    if hashes is None:
        return "The run left no record of its tables."
    lines = "\n".join(f"| {split} | `{content}` |" for split, content in hashes.items())
    return f"| rows | hash of their content |\n|---|---|\n{lines}"


def _scores(weights: RunWeights, family: Family) -> str:
    """Return what the run measured, and of which weights."""
    result = RunFolder(weights.run).read_result()
    if result is None:
        return "The run left no result."
    metrics = result.metrics
    declared = [metric.name for metric in family.metrics if "[" not in metric.name and metric.direction]
    wanted = [name for each in (*declared, "eval_loss") for name in (each, under(each, TEST))]
    names = [name for name in wanted if name in metrics]
    notes = ", ".join(f"{name} {metrics[name]}" for name in family.metric_notes() if name in metrics)
    rows = "\n".join(f"| {name} | {_shown(metrics[name])} | {_baseline(name, metrics)} |" for name in names)
    of = "these weights" if weights.file is None else "the run's best checkpoint, not of these weights"
    table = f"| score | value | trivial baseline |\n|---|---|---|\n{rows}"
    signature = f"Computed with {notes}." if notes else ""
    return "\n\n".join(part for part in (f"Of {of}.", table, signature) if part)


def _baseline(name: str, metrics: Mapping[str, Any]) -> str:
    if not name.startswith("eval_"):
        return ""
    value = metrics.get(under(name, BASELINE))
    return "" if value is None else _shown(value)


def _shown(value: float | int | str) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _generation(family: Family) -> list[str]:
    if family.predicts != "text":
        return []
    said = family.experiment.generation.model_dump(mode="json")
    lines = ", ".join(f"{name} {value}" for name, value in said.items())
    return ["## Generation", f"As measured, and as `generation_config.json` says: {lines}."]


def _limits(weights: RunWeights, family: Family) -> list[str]:
    experiment = family.experiment
    result = RunFolder(weights.run).read_result()
    metrics: Mapping[str, Any] = {} if result is None else result.metrics
    lines = [f"Texts are cut after {experiment.tokenizer.encoder_max_len} tokens."]
    if experiment.tokenizer.input_prefix:
        lines.append(f"Every text was read with '{experiment.tokenizer.input_prefix}' before it.")
    if experiment.data.normalize:
        lines.append(f"Texts were normalised as {experiment.data.normalize}.")
    lines.append("Scores named eval_ are of the rows that chose the checkpoint, which flatters them.")
    if not any(name.startswith("test_") for name in metrics):
        lines.append("No other rows were scored.")
    best = experiment.training.best_metric
    baseline = metrics.get(under(best, BASELINE))
    if best in metrics and baseline is not None and not family.best_metric.better(metrics[best], baseline):
        lines.append(f"By {best} it is no better than a predictor that learned nothing.")
    lines.append(
        "Other kinds of text, other languages and what the model may do harm with were not measured."
    )
    return lines
