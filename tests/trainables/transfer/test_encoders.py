"""Any encoder: a folder of it as it was pretrained trains, fully and with adapters on 4 bits, and is saved whole."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForPreTraining

from dure.config.loading import load_profile
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus

TARGETS = {
    "bert": "query",
    "electra": "query",
    "roberta": "query",
    "deberta": "in_proj",
    "deberta-v2": "query_proj",
    "modernbert": "Wqkv",
}
"""A layer of each that gets adapters."""
UNTAUGHT = {
    "bert": {"bert.pooler.dense", "classifier"},
    "electra": {"classifier.dense", "classifier.out_proj"},
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "deberta": {"pooler.dense", "classifier"},
    "deberta-v2": {"pooler.dense", "classifier"},
    "modernbert": {"classifier"},
}
"""The layers that pretraining does not teach."""
HEADS = {
    "bert": {"classifier"},
    "electra": {"classifier"},
    "roberta": {"classifier"},
    "deberta": {"pooler", "classifier"},
    "deberta-v2": {"pooler", "classifier"},
    "modernbert": {"head", "classifier"},
}
"""What of each stands beside its encoder, and is trained whole under LoRA."""

BY_DEFAULT = {("electra", "full"), ("roberta", "full"), ("deberta-v2", "qlora"), ("modernbert", "qlora")}
"""What the default suite trains; the others are in the slow one."""


def silent(message: str) -> None:
    pass


def save_pretrained_encoder(experiment, folder: Path) -> None:
    """Save an encoder of a rehearsal's sizes with the head that its kind is pretrained with."""
    family = load_family(experiment)
    tokenizer = load_corpus(family, notify=silent).tokenizer
    mini = family.load_model(tokenizer, load_profile("cpu")).config.to_dict()
    for name in ("id2label", "label2id", "problem_type", "num_labels", "transformers_version"):
        mini.pop(name, None)
    config = AutoConfig.for_model(**mini)
    torch.manual_seed(0)
    kind = AutoModelForPreTraining if config.model_type == "electra" else AutoModelForMaskedLM
    kind.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """Give the folder of an architecture, made once."""
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            changes = {"model.architecture": architecture}
            save_pretrained_encoder(tiny("bert", "full").with_(changes), made[architecture])
        return made[architecture]

    return folder


def on_folder(tiny, folders, architecture, kind, **more):
    changes = {"model.checkpoint": str(folders(architecture)), "rehearsal.enabled": False}
    changes |= {"model.architecture": architecture}
    if kind != "full":
        changes["lora.targets"] = [TARGETS[architecture]]
    return tiny("bert", kind, **more).with_(changes)


def steps(family, corpus, model, number: int = 4) -> list[float]:
    """Train some steps on one batch without dropout, and return the losses."""
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate([corpus.train[row] for row in range(8)])
    objective = family.objective(model, corpus.train)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    losses = []
    model.eval()
    for _ in range(number):
        loss = objective(model(**batches.inputs(batch)), batches.targets(batch))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        each if each in BY_DEFAULT else pytest.param(*each, marks=pytest.mark.slow)
        for each in product(TARGETS, ("full", "qlora"))
    ],
)
def test_an_encoder_as_it_was_pretrained_trains_and_is_saved(
    architecture, kind, tiny, cpu, folders, tmp_path
) -> None:
    told: list[str] = []
    family = load_family(on_folder(tiny, folders, architecture, kind), told.append)
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    (line,) = (line for line in told if "start at random" in line)
    assert f"lacks {2 * len(UNTAUGHT[architecture])} weights" in line
    if kind == "qlora":
        learned = {
            name.replace(".modules_to_save.default", "")
            for name, each in model.named_parameters()
            if each.requires_grad
        }
        whole = UNTAUGHT[architecture] | HEADS[architecture]
        for name in whole:
            assert any(f".{name}." in each and "lora" not in each for each in learned), name
        assert all(weight.dtype == torch.float32 for weight in model.parameters() if weight.requires_grad)
        assert any(weight.dtype == torch.uint8 for weight in model.parameters())
    losses = steps(family, corpus, model)
    assert losses[-1] < losses[0]
    family.export(model, corpus.tokenizer, tmp_path / "final")
    again, _ = family.load_exported(tmp_path / "final")
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.inputs(batches.collate([corpus.dev[row] for row in range(4)]))
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "architecture",
    [
        "electra",
        "modernbert",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("roberta", "deberta-v2")),
    ],
)
def test_an_encoder_as_it_was_pretrained_learns_emotions(architecture, tiny, cpu, folders) -> None:
    more = {"family": "trainables.emotion", "task": {"multi_label": True}, "best_metric": "eval_macro_f1"}
    family = load_family(on_folder(tiny, folders, architecture, "lora", **more))
    corpus = load_corpus(family, notify=silent)
    losses = steps(family, corpus, family.load_model(corpus.tokenizer, cpu))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("architecture", "behind"), [("bert", 0), ("electra", 0), ("roberta", 2), ("deberta-v2", None)]
)
def test_no_text_is_longer_than_the_positions_behind_the_padding(
    architecture, behind, tiny, cpu, folders
) -> None:
    """RoBERTa's first position is the one after its padding's id, 1: of 514 positions 512 are for tokens."""
    positions = AutoConfig.from_pretrained(folders(architecture)).max_position_embeddings
    experiment = on_folder(tiny, folders, architecture, "full")
    room = positions - (behind or 0)
    tight = experiment.with_({"tokenizer.encoder_max_len": room + 1})
    family = load_family(tight)
    corpus = load_corpus(family, notify=silent)
    if behind is None:  # relative positions know no end
        family.load_model(corpus.tokenizer, cpu)
        return
    with pytest.raises(UserError, match=f"{room + 1} tokens are more") as caught:
        family.load_model(corpus.tokenizer, cpu)
    assert caught.value.expected == f"at most {room}"
    fitting = load_family(experiment.with_({"tokenizer.encoder_max_len": room}))
    load_corpus(fitting, notify=silent)
    ids = torch.full((1, room), 5)
    model = fitting.load_model(corpus.tokenizer, cpu).eval()
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, room + 1), 5), attention_mask=torch.ones(1, room + 1))


def test_an_encoder_that_lacks_a_layer_is_refused(tiny, cpu, folders, tmp_path) -> None:
    for file in folders("electra").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = "electra.encoder.layer.0.attention.self.query.weight"
    assert weights.pop(lost, None) is not None
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    family = load_family(
        on_folder(tiny, folders, "electra", "full").with_({"model.checkpoint": str(tmp_path)})
    )
    corpus = load_corpus(family, notify=silent)
    with pytest.raises(UserError, match="lacks 1 weights, which would start at random") as caught:
        family.load_model(corpus.tokenizer, cpu)
    assert lost in caught.value.problem
