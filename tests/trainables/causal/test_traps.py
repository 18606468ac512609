"""Twelve traps of training decoder-only models, none of which is met: see tests/benchmarks/traps.md."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch

from dure.config.loading import load_profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.predicting import generated
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest
from tests.trainables.causal.test_packing import LENGTHS, assert_same, model_of, rows_of, step
from tests.trainables.causal.toy_tokenizers import CHATML, CHATML_TOKENS, tokenizer_of, tokenizers
from trainables.causal.chat import Chat
from trainables.causal.packing import Conversations
from trainables.causal.template import set_template
from trainables.causal.turns import Turn

ASKED = (
    Turn("system", "", "짧게."),
    Turn("user", "사과를 주세요."),
    Turn("assistant", "네."),
    Turn("user", "요약"),
)
ANSWER = "사과를 산다."


def encoded(tokenizer, *, max_prompt=400, asked=ASKED, **more):
    set_template(tokenizer, "tokenizer", stands_in=True, notify=lambda line: None)
    chat = Chat(tokenizer, max_prompt=max_prompt, max_answer=60, **more)
    return chat, chat.encode([asked], [ANSWER])[0]


def test_1_double_beginning():
    # The template writes the token, and the tokenizer would put it in front once more.
    chat, row = encoded(tokenizers()["no_system"])
    assert chat.tokenizer("a")["input_ids"][0] == chat.tokenizer.bos_token_id
    assert row.ids.count(chat.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", tokenizers())
def test_2_missing_end(name):
    chat, row = encoded(tokenizers()[name])
    assert [row.ids[begin:end].count(chat.end_id) for begin, end in row.learned] == [1, 1]
    assert chat.end_id in chat.end_ids  # where generation stops


def test_3_end_masked_as_padding():
    tokenizer = tokenizer_of(CHATML, control=CHATML_TOKENS)
    tokenizer.pad_token = "<|im_end|>"
    chat, row = encoded(tokenizer)
    other = {"input_ids": row.ids[:9], "prompt_length": 5, "learned": [[5, 9]]}
    one = {"input_ids": row.ids, "prompt_length": row.prompt_length, "learned": row.learned}
    batches = Conversations(tokenizer.pad_token_id)
    targets = batches.targets(batches.collate([one, other]))
    assert int((targets[0] == chat.end_id).sum()) == 2  # the end of each answer
    assert int((targets[1] == chat.end_id).sum()) == row.ids[5:9].count(chat.end_id)  # and no padding


def test_4_template_without_marks():
    (_, plain), (_, marked) = (encoded(tokenizers()[name]) for name in ("chatml", "marked"))
    assert [end - begin for begin, end in plain.learned] == [end - begin for begin, end in marked.learned]
    assert len(plain.learned) == 2


def test_5_loss_on_the_prompt():
    model, rows = model_of("llama"), rows_of()
    loss, _, _ = step(model, Conversations(0), rows)
    for row in rows:
        # Other targets in the prompt would be another loss; of its last token the model's input depends.
        begin = row["learned"][0][0]
        targets = Conversations(0).collate([row])["targets"][0].tolist()
        assert targets == row["input_ids"][begin:]
    assert loss > 0


def test_6_packed_rows_leak():
    model = model_of("qwen3")
    alone = step(model, Conversations(0), rows_of(), num_passes=len(LENGTHS))
    assert_same(step(model, Conversations(0, "positions"), rows_of()), alone)


def test_7_positions_of_packed_rows():
    batch = Conversations(0, "positions").collate(rows_of())
    begins = (batch["position_ids"] == 0).sum()
    assert int(begins) >= len(LENGTHS)
    for row, ids in enumerate(rows_of()):
        first = int(batch["predicted_at"][row, 0])
        assert int(batch["position_ids"].flatten()[first]) == ids["learned"][0][0] - 1


def uneven():
    """Give rows of which some have one target token and some have many."""
    rows = rows_of((30,) * 8)
    for place, row in enumerate(rows):
        row["learned"] = [[29 if place % 2 else 5, 30]]
    return rows


def test_8_mean_of_means_under_accumulation():
    model = model_of("llama")
    whole = step(model, Conversations(0), uneven())
    assert_same(step(model, Conversations(0), uneven(), num_passes=8), whole)


def test_9_last_batch_of_few_rows():
    # Two passes of five rows and of three: a mean of their means would weigh the three too much.
    model = model_of("llama")
    whole = step(model, Conversations(0, "positions"), uneven())
    assert_same(step(model, Conversations(0, "positions"), uneven()[:5] + uneven()[5:], num_passes=1), whole)
    assert_same(step(model, Conversations(0, "positions"), uneven(), num_passes=2), whole)


WORKER = """
import os, pickle, sys
import torch.distributed
from dure.training.run import run

rank, number = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if number > 1:
    torch.distributed.init_process_group("gloo")
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        run(pickle.load(file), rank=rank, num_workers=number)
"""


def run_with(request):
    number = request.profile.num_workers
    request.path.mkdir(parents=True)
    (request.path / "request.pickle").write_bytes(pickle.dumps(request))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(request.path / "request.pickle")],
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                **(together if number > 1 else {"WORLD_SIZE": "1"}),
                "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank),
                **({"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(number)} if number > 1 else {}),
            },
        )
        for rank in range(number)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * number, (
        request.path / "run.log"
    ).read_text("utf-8")[-3000:]
    records = list(read_json_lines(RunFolder(request.path).metrics))
    return [
        {name: row[name] for name in row if name in ("loss", "grad_norm", "eval_loss")} for row in records
    ]


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", [None, "zero2", "zero3"])
def test_10_several_workers(deepspeed, tiny, tmp_path):
    # 40 rows by 16: the last step of an epoch has 8.
    experiment = tiny("llama", "full", batch_size=4, gradient_accumulation_steps=4, log_every=1)
    one, two = (
        load_profile("cpu").model_copy(update={"num_workers": number, "deepspeed": sharing})
        for number, sharing in ((1, None), (2, deepspeed))
    )
    alone = run_with(RunRequest(experiment, one, tmp_path / "one"))
    together = run_with(RunRequest(experiment, two, tmp_path / "two"))
    assert len(alone) == len(together)
    for single, double in zip(alone, together, strict=True):
        assert single.keys() == double.keys()
        for name, value in single.items():
            assert double[name] == pytest.approx(value, rel=1e-5 if deepspeed is None else 1e-4), name
    first = next(row for row in alone if "loss" in row)
    other = next(row for row in together if "loss" in row)
    assert other["loss"] == pytest.approx(first["loss"], rel=1e-6 if deepspeed is None else 1e-4)


def test_11_padding_at_the_left_in_generation(tiny):
    family = load_family(tiny("qwen3", "full"))
    corpus = load_corpus(family, notify=lambda line: None)
    model = family.load_model(corpus.tokenizer, load_profile("cpu")).eval()
    batches = family.batches(corpus.tokenizer, model)
    rows = [corpus.dev[row] for row in range(5)]
    together = batches.prompts(batches.collate(rows))
    assert not together["attention_mask"].bool().all()
    texts = corpus.tokenizer.batch_decode(generated(model, together), skip_special_tokens=True)
    for row, text in zip(rows, texts, strict=True):
        alone = generated(model, batches.prompts(batches.collate([row])))
        assert corpus.tokenizer.batch_decode(alone, skip_special_tokens=True) == [text]


def test_12_prompt_cut_in_place_of_history():
    chat, whole = encoded(tokenizers()["chatml"])
    _, row = encoded(tokenizers()["chatml"], max_prompt=whole.prompt_length - 1)
    text = chat.tokenizer.decode(row.ids)
    assert "사과를 주세요" not in text
    assert text == chat.tokenizer.decode(
        encoded(tokenizers()["chatml"], asked=(ASKED[0], ASKED[3]))[1].ids
    )  # system text and question are whole
    assert torch.tensor(row.learned).shape == (1, 2)
