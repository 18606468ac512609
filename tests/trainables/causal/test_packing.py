"""Rows that share a sequence have the losses and the gradients that they have alone."""

from __future__ import annotations

import random
import time
from collections import Counter

import datasets
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dure.config.schema import RehearsalConfig
from dure.data.collating import pieces
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling.rehearsal import USUAL
from dure.modeling.shrinking import shrink
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker
from trainables.causal.likelihood import TargetLosses, score_targets
from trainables.causal.packing import Conversations, packed, packs_of, way_to_pack

VOCABULARY = 300
LENGTHS = (40, 11, 23, 9, 31, 8, 17, 26)


def model_of(name, *, window=None):
    config = AutoConfig.for_model(name, **USUAL.get(name, {}))
    mini = RehearsalConfig(hidden_size=64, num_layers=2, num_heads=4, vocab_size=VOCABULARY)
    shrink(config, mini, 64)
    config.vocab_size, config.pad_token_id, config.eos_token_id = VOCABULARY, 0, 1
    if window is not None:
        config.sliding_window = window
        config.layer_types = ["sliding_attention", "full_attention"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(type(config).from_dict(config.to_dict())).eval()
    score_targets(model)
    return model


def rows_of(lengths=LENGTHS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for length in lengths:
        ids = torch.randint(2, VOCABULARY, (length,), generator=draw).tolist()
        rows.append({"input_ids": ids, "prompt_length": length - 5, "learned": [[length - 5, length]]})
    return rows


def step(model, batches, rows, *, num_passes=1):
    """Return the loss of an optimiser step over rows, its parts and its gradients."""
    objective = TargetLosses()
    model.zero_grad()
    size = len(rows) // num_passes
    made = [batches.collate(rows[place : place + size]) for place in range(0, len(rows), size)]
    items = sum(objective.count(batches.targets(batch)) for batch in made)
    total, of_rows = 0.0, []
    for batch in made:
        outputs = model(**batches.inputs(batch))
        loss = objective(outputs, batches.targets(batch), items)
        loss.backward()
        total += float(loss)
        of_rows.append(objective.row_losses(outputs.logits.detach(), batches.targets(batch)))
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, torch.cat(of_rows), gradients


def assert_same(one, other, tolerance=1e-6):
    assert abs(one[0] - other[0]) <= tolerance * max(1, abs(other[0]))
    torch.testing.assert_close(one[1], other[1], rtol=tolerance, atol=1e-5)
    assert one[2].keys() == other[2].keys()
    largest = max(float(gradient.abs().max()) for gradient in other[2].values())
    for name, gradient in other[2].items():
        apart = float((one[2][name] - gradient).abs().max())
        assert apart <= tolerance * max(largest, 1), (name, apart)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "exaone4"])
def test_packed_rows_have_the_loss_and_the_gradients_of_rows_alone(name):
    model = model_of(name)
    way, bool_mask = way_to_pack(model)
    assert way == "positions"
    alone = step(model, Conversations(0), rows_of(), num_passes=len(LENGTHS))
    assert_same(step(model, Conversations(0, way, bool_mask=bool_mask), rows_of()), alone)
    assert_same(step(model, Conversations(0), rows_of()), alone)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_one_pass_of_32_rows_is_32_passes_of_one_row(name):
    model, lengths = model_of(name), LENGTHS * 4
    whole = step(model, Conversations(0, "positions"), rows_of(lengths))
    assert_same(step(model, Conversations(0, "positions"), rows_of(lengths), num_passes=32), whole)
    # A last batch of fewer rows and tokens weighs what its tokens weigh.
    assert_same(step(model, Conversations(0, "positions"), rows_of(lengths), num_passes=5), whole)


def test_a_pack_has_the_loss_and_the_gradients_of_its_rows():
    rows = rows_of((*LENGTHS, 70, 5))
    table = datasets.Dataset.from_list([row | {"length": len(row["input_ids"])} for row in rows])
    packs = packs_of(table, 60)
    assert sum(len(members) for members in packs["members"]) == len(rows)
    assert all(pack["length"] <= 60 or len(pack["members"]) == 1 for pack in packs)
    model, batches = model_of("qwen3"), Conversations(0, "positions")
    alone = step(model, Conversations(0), rows, num_passes=len(rows))
    batch = batches.collate([*packs])
    objective = TargetLosses()
    model.zero_grad()
    items = objective.count(batches.targets(batch))
    total = 0.0
    for piece in pieces(batches, batch, 2):
        loss = objective(model(**batches.inputs(piece)), batches.targets(piece), items)
        loss.backward()
        total += float(loss)
    assert total == pytest.approx(alone[0], rel=1e-6)
    for name, parameter in model.named_parameters():
        assert float((parameter.grad - alone[2][name]).abs().max()) <= 1e-6, name


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_a_single_pack_is_halved_into_its_rows_with_the_same_gradients(name):
    rows, model, batches, objective = rows_of(), model_of(name), Conversations(0, "positions"), TargetLosses()
    batch = batches.collate([{"members": rows, "length": sum(LENGTHS)}])
    items = objective.count(batches.targets(batch))
    assert (batches.num_rows(batch), len(batch["input_ids"])) == (len(rows), 1)
    found = []
    for most, sizes in ((8, [8]), (4, [4, 4]), (1, [1] * 8)):
        cut = [*pieces(batches, batch, most)]
        assert [batches.num_rows(piece) for piece in cut] == sizes
        model.zero_grad()
        losses = [objective(model(**batches.inputs(piece)), batches.targets(piece), items) for piece in cut]
        torch.autograd.backward(losses)
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found.append((float(torch.stack(losses).sum().detach()), gradient))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert float((gradient - found[0][1]).abs().max()) <= 1e-6


def test_a_run_whose_single_pack_does_not_fit_goes_on_in_its_rows(tiny, cpu, tmp_path, monkeypatch):
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    task = {"batch_counts": "tokens", "pack_tokens": 300, "validate": "loss"}
    experiment = tiny(
        "llama", "full", task=task, best_metric="eval_perplexity", batch_size=1, max_steps=2, eval_every=2,
        gradient_accumulation_steps=1, on_oom="shrink",
    )  # fmt: skip
    ended = []
    for longest in (1000, 200):
        family = load_family(experiment)
        corpus = load_corpus(family, notify=lambda line: None)
        model = family.load_model(corpus.tokenizer, cpu).double()

        def look(module, args, output, most=longest):
            if module.training and output.shape[1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.model.layers[-1].mlp.register_forward_hook(look)
        trainer = ModelTrainer(
            family, model, corpus.tokenizer, corpus.train, None, profile=cpu,
            folder=RunFolder(tmp_path / str(longest)), worker=Worker(),
        )  # fmt: skip
        num_oom = trainer.train()["num_oom"]
        weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        ended.append((num_oom, trainer.recovery.rows_at_once, weights))
    (calm, _, whole), (num_oom, rows, pieced) = ended
    assert (calm, num_oom > 0) == (0, True)
    assert 1 <= rows <= 4  # of the rows of a pack, where a step loads one pack
    assert float((whole - pieced).abs().max()) <= 1e-6


def test_windows_are_those_of_a_row_alone():
    model = model_of("gemma3_text", window=6)
    alone = step(model, Conversations(0), rows_of(), num_passes=len(LENGTHS))
    assert_same(step(model, Conversations(0, "positions"), rows_of()), alone)


@pytest.mark.parametrize(("name", "bool_mask"), [("opt", True), ("falcon", True), ("mpt", False)])
def test_an_architecture_that_needs_a_mask_of_blocks_gets_one(name, bool_mask):
    model = model_of(name)
    assert way_to_pack(model) == ("blocks", bool_mask)
    alone = step(model, Conversations(0), rows_of(), num_passes=len(LENGTHS))
    assert_same(step(model, Conversations(0, "blocks", bool_mask=bool_mask), rows_of()), alone)


@pytest.mark.parametrize("name", ["mamba", "bloom", "qwen3_next"])
def test_an_architecture_whose_rows_would_see_each_other_is_refused(name):
    with pytest.raises(UserError, match="see each other") as caught:
        way_to_pack(model_of(name))
    assert caught.value.hint == "task.packing=false"


def test_positions_that_run_on_are_found():
    # The trap: one sequence with one count of positions, and nothing that keeps rows apart.
    model, rows = model_of("llama"), rows_of()
    batches = Conversations(0, "positions")
    alone = step(model, Conversations(0), rows)
    batches._kept_apart = lambda positions, number: {}
    with pytest.raises(AssertionError):
        assert_same(step(model, batches, rows), alone)


def test_sequences_are_as_long_as_the_longest_row_and_hold_every_row_once():
    texts = [row["input_ids"] for row in rows_of()]
    bins = packed(texts, max(LENGTHS))
    assert sorted(row for members in bins for row in members) == list(range(len(texts)))
    assert all(sum(len(texts[row]) for row in members) <= max(LENGTHS) for members in bins)
    assert len(bins) == 5  # of 165 tokens in sequences of 40 that is the least there can be


def test_packs_of_many_rows_are_found_soon_and_hold_each_once():
    # Looking for room in every sequence takes ten times as long for three times the rows.
    draw = random.Random(0)
    lengths = [min(600, 5 + int(draw.lognormvariate(4, 0.6))) for _ in range(60_000)]
    rows = [{"input_ids": [n % 97] * 3, "prompt_length": 1, "learned": [[1, 3]]} for n in range(len(lengths))]
    table = datasets.Dataset.from_list([row | {"length": n} for row, n in zip(rows, lengths, strict=True)])
    begin = time.process_time()
    packs = packs_of(table, 500)
    assert time.process_time() - begin < 5
    assert sum(packs["length"][:]) == sum(lengths)
    assert sum(lengths) / 500 <= len(packs) < 1.01 * sum(lengths) / 500
    kept = Counter(member["input_ids"][0] for members in packs["members"][:] for member in members)
    assert kept == Counter(row["input_ids"][0] for row in rows)


@pytest.mark.parametrize("way", ["padded", "positions", "blocks"])
def test_halves_are_batches_of_half_the_rows(way):
    batches = Conversations(0, way)
    rows = rows_of()
    cut = list(pieces(batches, batches.collate(rows), 3))
    assert [batches.num_rows(piece) for piece in cut] == [2, 2, 2, 2]
    model = model_of("llama")
    objective = TargetLosses()
    found = [
        objective.row_losses(model(**batches.inputs(piece)).logits, batches.targets(piece)) for piece in cut
    ]
    whole = batches.collate(rows)
    expected = objective.row_losses(model(**batches.inputs(whole)).logits, batches.targets(whole))
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-5, atol=1e-5)


def test_prompts_are_padded_at_the_left():
    batches = Conversations(7)
    prompts = batches.prompts(batches.collate(rows_of((9, 12))))
    assert prompts["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1], [1] * 7]
    assert prompts["input_ids"][0, :3].tolist() == [7, 7, 7]
    assert prompts["input_ids"][0, 3:].tolist() == rows_of((9, 12))[0]["input_ids"][:4]


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "exaone4"])
def test_a_model_without_its_weights_is_packed_and_scored_as_one_with_them(name):
    """A forecast builds it so, where there are no numbers to try."""
    model = model_of(name)
    with torch.device("meta"):
        empty = type(model)(model.config)
    score_targets(empty)
    assert way_to_pack(empty) == way_to_pack(model)
