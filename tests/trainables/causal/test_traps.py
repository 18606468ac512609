"""Twelve traps of training decoder-only models, none of which is met: see tests/benchmarks/traps.md."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch
from transformers import GenerationConfig

from dure.config.loading import load_profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.predicting import generated
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest
from tests.trainables.causal.test_likelihood import reference
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
    # By torch's cross entropy of all logits, with the labels of prompts left out, and with them.
    answers, _ = reference(model, rows)
    whole, _ = reference(model, [row | {"learned": [[1, len(row["input_ids"])]]} for row in rows])
    assert loss == pytest.approx(answers, rel=1e-6)
    assert abs(whole - loss) > 1e-3


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


def uneven(number=8):
    """Give rows of which some have one target token and some have many."""
    rows = rows_of((30,) * number)
    for place, row in enumerate(rows):
        row["learned"] = [[29 if place % 2 else 5, 30]]
    return rows


def test_8_mean_of_means_under_accumulation():
    model = model_of("llama")
    whole = step(model, Conversations(0), uneven())
    assert_same(step(model, Conversations(0), uneven(), num_passes=8), whole)


def test_9_last_batch_of_few_rows():
    # Passes of five rows, of five and of one: a mean of their means would weigh the one too much.
    model, rows, batches = model_of("llama"), uneven(11), Conversations(0, "positions")
    whole = step(model, batches, rows)
    assert_same(step(model, batches, rows, num_passes=2), whole)
    means = [step(model, batches, some)[0] for some in (rows[:5], rows[5:10], rows[10:])]
    assert abs(sum(means) / len(means) - whole[0]) > 1e-3


WORKER = """
import os, pickle, sys
import torch
import torch.distributed
from torch.optim.optimizer import register_optimizer_step_pre_hook
from dure.training import run as training

training.foretold = lambda *given: None  # a forecast takes steps of its own
rank, number, folder = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[1]
if number > 1:
    torch.distributed.init_process_group("gloo")
try:
    # Kernels for inference, which training never calls, and which take half a minute to compile.
    import deepspeed.ops
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
except ImportError:
    pass

def keep(optimizer, args, kwargs):
    path = os.path.join(folder, "gradients.pt")
    if rank == 0 and not os.path.exists(path):
        torch.save([p.grad for group in optimizer.param_groups for p in group["params"]], path)

register_optimizer_step_pre_hook(keep)
with open(os.path.join(folder, "request.pickle"), "rb") as file:
    training.run(pickle.load(file), rank=rank, num_workers=number)
"""


def run_with(request):
    """Run on as many workers as the profile says; return the losses that were recorded and the first gradients."""
    number = request.profile.num_workers
    request.path.mkdir(parents=True)
    (request.path / "request.pickle").write_bytes(pickle.dumps(request))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(request.path)],
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank),
                "WORLD_SIZE": str(number),
                **({"LOCAL_RANK": str(rank), **together} if number > 1 else {}),
            },
        )
        for rank in range(number)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * number, (
        request.path / "run.log"
    ).read_text("utf-8")[-3000:]
    records = [
        {name: row[name] for name in row if name in ("loss", "grad_norm", "eval_loss")}
        for row in read_json_lines(RunFolder(request.path).metrics)
    ]
    return records, torch.load(request.path / "gradients.pt", weights_only=True)


def assert_alike(found, wanted, tolerance):
    """Compare the losses of a run, of which the first is before any step."""
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    first = next(place for place, row in enumerate(wanted) if "loss" in row)
    for place, row in enumerate(wanted):
        for name, value in row.items():
            allowed = 1e-6 if place == first else tolerance
            assert found[place][name] == pytest.approx(value, rel=allowed), (place, name)


@pytest.fixture
def arranged(tiny):
    """Make an experiment of steps of 16 rows, of which an epoch of 40 ends in one of 8, and a profile of workers."""

    def make(architecture, num_workers, *, deepspeed=None, packing=True, batch_size=4):
        settings = {"batch_size": batch_size, "gradient_accumulation_steps": 16 // batch_size, "log_every": 1}
        experiment = tiny(architecture, "full", task={"packing": packing}, **settings)
        sharing = {"num_workers": num_workers, "deepspeed": deepspeed}
        return experiment, load_profile("cpu").model_copy(update=sharing)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text"])
def test_10_several_workers(architecture, arranged, tmp_path):
    ways = {
        "alone": arranged(architecture, 1),
        "at_once_and_padded": arranged(architecture, 1, packing=False, batch_size=16),
        "two": arranged(architecture, 2),
    }
    found = {name: run_with(RunRequest(*way, tmp_path / name)) for name, way in ways.items()}
    wanted, gradients = found.pop("alone")
    for records, other in found.values():
        assert_alike(records, wanted, 1e-5)
        largest = max(float(each.abs().max()) for each in gradients)
        for one, two in zip(other, gradients, strict=True):
            assert float((one - two).abs().max()) <= 1e-6 * max(largest, 1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
@pytest.mark.parametrize("packing", [True, False])
def test_10_workers_that_share_out_the_model(stage, packing, arranged, tmp_path):
    pytest.importorskip("deepspeed")
    wanted, _ = run_with(RunRequest(*arranged("llama", 1, packing=packing), tmp_path / "plain"))
    shared = arranged("llama", 2, deepspeed=stage, packing=packing)
    found, _ = run_with(RunRequest(*shared, tmp_path / "shared"))
    assert_alike(found, wanted, 1e-4)


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


def test_11_padding_at_the_left_of_windows():
    model, batches = model_of("gemma3_text", window=6), Conversations(0)
    model.generation_config = GenerationConfig(max_new_tokens=12, pad_token_id=0, eos_token_id=1)
    rows = rows_of((40, 11, 23, 9))
    together = generated(model, batches.prompts(batches.collate(rows)))
    assert len({tuple(ids) for ids in together.tolist()}) > 1
    for row, ids in zip(rows, together.tolist(), strict=True):
        (alone,) = generated(model, batches.prompts(batches.collate([row]))).tolist()
        assert ids == alone + [0] * (len(ids) - len(alone))


def test_12_prompt_cut_in_place_of_history():
    chat, whole = encoded(tokenizers()["chatml"])
    _, row = encoded(tokenizers()["chatml"], max_prompt=whole.prompt_length - 1)
    text = chat.tokenizer.decode(row.ids)
    assert "사과를 주세요" not in text
    assert text == chat.tokenizer.decode(
        encoded(tokenizers()["chatml"], asked=(ASKED[0], ASKED[3]))[1].ids
    )  # system text and question are whole
    assert torch.tensor(row.learned).shape == (1, 2)
