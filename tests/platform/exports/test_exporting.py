"""What leaves dure predicts there what it predicts here, or does not leave."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging

from dure import api, running
from dure.config import load_profile
from dure.config.loading import load_record
from dure.config.schema import Experiment
from dure.errors import RunError, UserError
from dure.exports.agreement import compare
from dure.exports.ctranslate2_model import CTranslate2Model
from dure.exports.exporting import Asked, export_run
from dure.exports.model_card import speeds
from dure.family import load_family
from dure.family.exported import read_as, read_exported
from dure.family.run_weights import weights_at
from dure.modeling.weights import STATE, write_weights
from dure.preflight.foreseeing import foresee
from dure.runs.checkpoints import WEIGHTS_FILE
from dure.runs.folder import StageFolder
from dure.runs.manifest import write_manifest
from dure.training.run import RunRequest, run
from tests.platform.small_disk import disks, fill


def quiet(*_) -> None:
    """Say nothing."""


def export(path, target, asked=None, **more):
    return export_run(
        path, target, asked or Asked(), profile=load_profile("cpu"), progress=quiet, notify=quiet, **more
    )


def trained(experiment, path, layout=StageFolder):
    """Run one epoch after the other, each kept, and return the folder."""
    training = {
        "epochs": 2,
        "max_steps": None,
        "eval_every": "epoch",
        "keep_epochs": 1,
        "learning_rate": 3e-3,
    }
    changed = experiment.model_copy(
        update={
            "training": experiment.training.model_copy(update=training),
            "data": experiment.data.model_copy(update={"max_train_rows": 12, "max_dev_rows": 6}),
            "generation": experiment.generation.model_copy(update={"num_beams": 1}),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(path.parent / "cache"))
        run(RunRequest(changed, load_profile("cpu"), path, layout=layout))
    return path


TEXTS = ["오늘은 기분이 정말 좋다", "네", "#Person1#: 내일 만나요. #Person2#: 좋아요, 세 시에 봐요."]


def assert_alike(one, other):
    """Check that two folders predict the same texts alike, numbers but for rounding."""
    for ours, theirs in zip(*(api.predict(each, TEXTS, profile="cpu") for each in (one, other)), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.fixture(scope="module")
def bert(tiny, tmp_path_factory):
    return trained(tiny("bert", "full", ema=0.5), tmp_path_factory.mktemp("bert") / "run")


def test_a_copy_is_compared_on_the_device_of_the_original(bert, tmp_path, monkeypatch):
    # As on a GPU, where numbers are not those of a CPU to the fifth digit.
    moved = []

    def read(*arguments):
        copy, tokenizer = read_as(*arguments)
        monkeypatch.setattr(copy, "to", moved.append)
        return copy, tokenizer

    monkeypatch.setattr("dure.exports.exporting.read_as", read)
    export(bert, tmp_path / "out")
    assert moved == [torch.device("cpu")]


@pytest.fixture(scope="module")
def bart(tiny, tmp_path_factory):
    return trained(tiny("bart", "lora"), tmp_path_factory.mktemp("bart") / "run")


def test_no_bar_of_transformers_is_drawn_where_python_predicts(bert, capfd):
    had_bars = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        api.predict(bert, TEXTS, profile="cpu")
    finally:
        if not had_bars:
            logging.disable_progress_bar()
    assert "Loading weights" not in capfd.readouterr().err


def test_a_final_model_loads_without_dure_and_its_card_says_what_was_measured(bert, tmp_path):
    record = export(bert, tmp_path / "out", Asked(licence="apache-2.0"))
    assert record.agreement["num_equal"] == record.agreement["num_rows"] == 6
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    original = AutoModelForSequenceClassification.from_pretrained(bert / "final_model")
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("오늘은 좋다", return_tensors="pt")
    assert torch.equal(loaded(**ids)["logits"], original(**ids)["logits"])
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    metrics = json.loads((bert / "result.json").read_text())["metrics"]
    data = json.loads((bert / "environment.json").read_text())["data"]
    assert f"| eval_accuracy | {metrics['eval_accuracy']:.4f} | {metrics['baseline_accuracy']:.4f} |" in card
    assert data["dev"] in card
    assert "rehearsal" in card


def test_an_export_predicts_as_its_run_does_wherever_it_lies_as_long_as_it_is_whole(bert, tmp_path):
    export(bert, tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    (moved / "README.md").write_text("our own card", encoding="utf-8")
    assert api.predict(moved, TEXTS, profile="cpu") == api.predict(bert, TEXTS, profile="cpu")
    table = tmp_path / "rows.csv"
    table.write_text("text\n좋다\n", encoding="utf-8")
    assert api.predict(moved, table, tmp_path / "out.csv", profile="cpu")["models"] == [str(moved)]
    with pytest.raises(UserError, match="an export already"):
        export(moved, tmp_path / "again")
    with pytest.raises(UserError, match="an export takes dure predict"):
        api.evaluate(moved, table, profile="cpu")
    with (moved / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\xff")
    with pytest.raises(UserError, match=r"model\.safetensors was changed"):
        api.predict(moved, TEXTS, profile="cpu")


def test_the_weights_of_an_epoch_and_an_average_are_exported_as_they_are(bert, tmp_path):
    for file in (bert / "checkpoints/epoch_1.pt", next((bert / "checkpoints").glob("*/ema.pt"))):
        record = export(file, tmp_path / file.stem)
        assert file.name in record.source
        state = torch.load(file, weights_only=True)[STATE]
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / file.stem)
        assert torch.equal(loaded.state_dict()["classifier.weight"], state["classifier.weight"])


def test_an_export_that_predicts_otherwise_is_refused_with_the_rows_that_differ(bert, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(bert, copy)
    file = copy / "experiment.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("trainables.transfer", "tests.platform.exports.lossy"), encoding="utf-8")
    with pytest.raises(RunError, match=r"row \d: .*probability_.* became "):
        export(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(copy, tmp_path / "out", Asked(accept=0.0)).agreement["share"] < 1


def test_what_dure_did_not_write_is_not_replaced(bert, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="dure did not export"):
        export(bert, foreign, Asked(force=True))
    export(bert, tmp_path / "out")
    with pytest.raises(UserError, match="--force replaces it"):
        export(bert, tmp_path / "out")
    export(bert, tmp_path / "out", Asked(force=True))
    with pytest.raises(UserError, match="--force replaces it"):  # another command ended first
        export_run(
            bert, tmp_path / "two", Asked(), profile=load_profile("cpu"), notify=quiet,
            progress=lambda done, total: shutil.copytree(tmp_path / "out", tmp_path / "two", dirs_exist_ok=True),
        )  # fmt: skip
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".two")] == []
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"'notes.txt', which dure did not write"):
        export(bert, tmp_path / "out", Asked(force=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_onnx_predicts_what_the_original_does_at_any_length(kind, request, tmp_path):
    pytest.importorskip("onnxruntime")
    path = request.getfixturevalue(kind)
    record = export(path, tmp_path / "out", Asked("onnx"))
    assert record.agreement["share"] == 1
    assert_alike(tmp_path / "out", path)
    family = weights_at(tmp_path / "out").family(quiet)
    model, tokenizer = read_exported(family, tmp_path / "out")
    original, _ = weights_at(path).read(family, load_profile("cpu"), quiet)
    texts = ["안녕하세요 " * 9, "네", "그래요 좋아요"]
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    batch.pop("token_type_ids", None)
    if kind == "bert":
        assert torch.allclose(model(**batch)["logits"], original(**batch)["logits"], atol=1e-4)
    else:
        assert torch.equal(model.generate(**batch), original.generate(**batch))


def test_ctranslate2_writes_the_same_texts(bart, tmp_path):
    pytest.importorskip("ctranslate2")
    assert export(bart, tmp_path / "out", Asked("ctranslate2")).agreement["share"] == 1
    assert_alike(tmp_path / "out", bart)


def test_ctranslate2_says_why_its_beams_differ_where_tokens_are_forbidden():
    def said(**settings):
        return CTranslate2Model().differs(SimpleNamespace(generation_config=GenerationConfig(**settings)))

    assert said(num_beams=4) == said(num_beams=1, min_length=9, no_repeat_ngram_size=3) == ""
    assert "generation.min_length=9 forbids" in said(num_beams=4, min_length=9)
    both = said(num_beams=4, min_length=9, no_repeat_ngram_size=3)
    assert "generation.min_length=9 and generation.no_repeat_ngram_size=3 forbid out" in both


@pytest.mark.slow
def test_ctranslate2_writes_the_same_texts_by_beams_where_no_token_is_forbidden(tmp_path):
    pytest.importorskip("ctranslate2")
    few = ["rehearsal.max_steps=20", "rehearsal.num_evaluations=1", "generation.num_beams=6"]
    free = ["generation.min_length=0", "generation.no_repeat_ngram_size=0"]
    running.train("eenzeenee_t5", [*few, *free], rehearse=True, profile="cpu", output=tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / "out", Asked("ctranslate2")).agreement["share"] == 1
    running.train("eenzeenee_t5", few, rehearse=True, profile="cpu", output=tmp_path / "other")
    with pytest.raises(RunError, match="shares the probability of tokens that"):
        export(tmp_path / "other", tmp_path / "no", Asked("ctranslate2"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", ["transformers", "onnx"])
def test_an_export_stays_whole_on_a_disk_that_does_not_take_the_new_one(bert, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    with disks(tmp_path) as mount:
        disk = mount(40)
        target = disk / "out"
        export(bert, target, Asked(format))
        before = contents(target)
        filler = fill(disk, leaving=100_000)
        with pytest.raises(OSError, match="No space left") as full:
            export(bert, target, Asked(format, force=True))
        assert full.value.filename == str(target)
        assert contents(target) == before
        assert sorted(disk.iterdir()) == [filler, target]
        filler.unlink()
        export(bert, target, Asked(format, force=True))
        assert list(disk.iterdir()) == [target]


def test_the_disk_of_an_export_is_all_that_ctranslate2_needs(bart, tmp_path, monkeypatch):
    pytest.importorskip("ctranslate2")
    with disks(tmp_path) as mount:
        monkeypatch.setattr("tempfile.tempdir", str(mount(1)))
        export(bart, tmp_path / "out", Asked("ctranslate2", accept=0))
    assert not list((tmp_path / "out").glob("tmp*"))


def test_where_an_export_cannot_lie_is_told_before_anything_is_predicted(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("dure.exports.exporting.predict_rows", None)
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    for target in (Path(), Path(".."), tmp_path):
        with pytest.raises(UserError, match=r"(?s)the working folder.*try: --to \S*model"):
            export(bert, target)
    with disks(tmp_path) as mount, pytest.raises(UserError, match="a mounted disk"):
        export(bert, mount(1))
    with pytest.raises(UserError, match="cannot be made"):
        export(bert, tmp_path / "file" / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text("{}")
    for said in ("", "[]", "{"):
        (tmp_path / "out" / "manifest.json").write_text(said)
        with pytest.raises(UserError, match="this is no manifest of an export"):
            export(bert, tmp_path / "out", Asked(force=True))
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="which dure did not write"):
        export(bert, tmp_path / "out", Asked(force=True))


def test_an_export_through_a_link_lies_where_that_leads(bert, tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large disk")
    for force in (False, True):
        export(bert, tmp_path / "link", Asked(force=force))
        assert sorted(tmp_path.iterdir()) == [tmp_path / "large disk", tmp_path / "link"]
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "large disk" / "export.json").is_file()


def test_a_card_says_on_what_an_export_and_its_original_predicted_so_fast(bert, tmp_path):
    record = export(bert, tmp_path / "out")
    said = f"{record.rows_per_second:g} rows a second on the CPU (the original {record.original_rows_per_second:g}, "
    assert f"{said}there too)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    graphs = record.model_copy(update={"format": "onnx"})
    assert speeds(graphs, "cuda") == f"{said}on cuda)"
    assert speeds(record, "cuda") == f"{said}there too)".replace("the CPU", "cuda")


@pytest.mark.slow
def test_ctranslate2_writes_the_same_beams_where_the_output_is_not_scaled(tmp_path):
    """mT5, and T5 whose output layer is its own: greedy texts do not depend on the scale, beams do."""
    pytest.importorskip("ctranslate2")
    words = [
        "rehearsal.max_steps=12",
        "rehearsal.max_dev_rows=12",
        "generation.num_beams=4",
        "generation.max_length=16",
    ]
    free = ["generation.min_length=0", "generation.no_repeat_ngram_size=0"]
    running.train(
        "mt5_xlsum_ultimate", [*words, *free], rehearse=True, profile="cpu", output=tmp_path / "run"
    )
    assert export(tmp_path / "run", tmp_path / "out", Asked("ctranslate2")).agreement["share"] == 1


@pytest.mark.slow
def test_ctranslate2_writes_the_same_answers_after_prompts_of_any_length(tmp_path):
    pytest.importorskip("ctranslate2")
    steps = ["rehearsal.max_steps=20", "rehearsal.num_evaluations=1", "generation.min_length=3"]
    running.train("causal_qwen", steps, rehearse=True, profile="cpu", output=tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / "out", Asked("ctranslate2")).agreement["share"] == 1
    assert_alike(tmp_path / "out", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_an_adapter_with_new_tokens_loads_by_peft_alone(bart, tiny, tmp_path, monkeypatch, kind):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(bart / "final_model", checkpoint)
    values = tiny("bart", kind).model_dump(mode="json")
    values["model"]["checkpoint"] = str(checkpoint)
    values["rehearsal"]["enabled"] = False
    values["tokenizer"]["extra_special_tokens"] = ["#Email#"]
    path = trained(Experiment.model_validate(values), tmp_path / "run")
    record = export(path, tmp_path / "out", Asked("adapter"))
    assert record.agreement["share"] == 1
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in yaml.safe_load(card.split("---")[1])  # the hub knows no folder of this machine
    # The run foretold itself, and without any weights the same is foretold.
    said = json.loads((path / "result.json").read_text())["forecast"]
    assert said["proven"]
    assert "forecast: " in (path / "events.jsonl").read_text(encoding="utf-8")
    assert_alike(tmp_path / "out", path)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapters need the checkpoint .*, which cannot be loaded"):
        api.predict(tmp_path / "out", TEXTS, profile="cpu")
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    ahead = foresee(load_family(load_record(path / "experiment.yaml")), load_profile("cpu")).forecast
    for name in ("weights", "gradients", "moments", "activations"):
        assert round(ahead.parts[name] / 1024**2, 1) == said["memory_parts_mb"][name]
    assert (ahead.pace, said["pace"]) == ("by earlier runs here", "no run like it was measured here yet")
    with pytest.raises(UserError, match="rehearsal's miniature"):
        export(bart, tmp_path / "other", Asked("adapter"))


def test_an_adapter_of_an_embedding_is_read_by_encoder_and_decoder(bart, tiny, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(bart / "final_model", checkpoint)
    values = tiny("bart", "lora", learning_rate=0.05).model_dump(mode="json")
    values["model"]["checkpoint"] = str(checkpoint)
    values["rehearsal"]["enabled"] = False
    values["lora"]["targets"] = ["shared", "q_proj"]
    path = trained(Experiment.model_validate(values), tmp_path / "run")
    assert export(path, tmp_path / "out", Asked("adapter")).agreement["share"] == 1
    alone = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(checkpoint), str(tmp_path / "out")
    ).eval()
    merged = AutoModelForSeq2SeqLM.from_pretrained(path / "final_model").eval()
    ids = {"input_ids": torch.arange(8).view(2, 4), "decoder_input_ids": torch.arange(6).view(2, 3)}
    with torch.no_grad():
        torch.testing.assert_close(alone(**ids).logits, merged(**ids).logits, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_a_classifier_is_read_onto_a_checkpoint_that_was_written_for_masked_words(
    bert, tiny, tmp_path
):
    checkpoint = tmp_path / "checkpoint"
    AutoModelForMaskedLM.from_pretrained(bert / "final_model").save_pretrained(checkpoint)
    AutoTokenizer.from_pretrained(bert / "final_model").save_pretrained(checkpoint)
    values = tiny("bert", "lora").model_dump(mode="json")
    values["model"]["checkpoint"] = str(checkpoint)
    values["rehearsal"]["enabled"] = False
    path = trained(Experiment.model_validate(values), tmp_path / "run")
    assert export(path, tmp_path / "out", Asked("adapter")).agreement["share"] == 1
    assert_alike(tmp_path / "out", path)
    # DeepSpeed's workers write the whole weights into a checkpoint, and no folder of adapters.
    best = path / "checkpoints" / json.loads((path / "result.json").read_text())["best_checkpoint"]
    family = load_family(load_record(path / "experiment.yaml"))
    model, _ = weights_at(path).read(family, load_profile("cpu"), quiet, adapted=True)
    write_weights(model, best / WEIGHTS_FILE, {})
    for file in best.glob("adapter*"):
        file.unlink()
    write_manifest(best)
    assert export(path, tmp_path / "again", Asked("adapter")).agreement["share"] == 1
    assert_alike(tmp_path / "again", path)


def test_a_unified_training_is_what_won_its_crossover(bert, tmp_path):
    path = tmp_path / "unified"
    shutil.copytree(bert, path)
    (path / "checkpoints").rename(path / "checkpoints_final")
    state = torch.load(path / "checkpoints_final/epoch_1.pt", weights_only=True)[STATE]
    torch.save(state, path / "checkpoints_final/crossover_final.pth")
    (path / "checkpoints_final/crossover_final.json").write_text('{"kept": "epoch 1", "is_crossover": false}')
    weights = weights_at(path)
    assert weights.words == "crossover_final.pth: 'epoch 1', which no crossover beat"
    model, _ = weights.read(weights.family(quiet), load_profile("cpu"), quiet)
    assert torch.equal(model.state_dict()["classifier.weight"], state["classifier.weight"])


def test_rows_agree_by_equal_texts_and_near_numbers():
    one = [{"label": "a", "p": 0.5}, {"label": "a", "p": 0.5}, {"label": "a", "p": math.nan}]
    other = [{"label": "a", "p": 0.5004}, {"label": "b", "p": 0.5}, {"label": "a", "p": 0.1}]
    found = compare(one, other, 1e-3)
    assert (found.num_equal, found.num_rows) == (1, 3)
    assert [each.row for each in found.differences] == [1, 2]
    assert found.differences[0].export == {"label": "b"}
    assert found.as_dict()["largest_difference"] is None
