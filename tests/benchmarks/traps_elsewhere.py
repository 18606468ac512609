"""The inputs of the twelve traps through TRL's SFTTrainer: how the last column of traps.md was measured.

TRL is no dependency: `pip install --no-deps --target DIR trl`, then
`PYTHONPATH=DIR python -m tests.benchmarks.traps_elsewhere [NUMBER …]`. Every trap prints one line.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import datasets
import torch
import trl
from transformers import PreTrainedTokenizerBase

from tests.trainables.causal.test_packing import model_of
from tests.trainables.causal.toy_tokenizers import (
    CHATML,
    CHATML_TOKENS,
    WITHOUT_END,
    tokenizer_of,
    tokenizers,
)
from trainables.causal.likelihood import plain

SHORT, LONG = "사과를 산다.", "사과를 산다. 배를 산다. 감을 산다. 귤을 산다. 밤을 산다."


def talk(answer: str = SHORT) -> dict[str, Any]:
    """Return a row of messages."""
    return {
        "messages": [
            {"role": "user", "content": "사과를 주세요."},
            {"role": "assistant", "content": answer},
        ]
    }


def trainer(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """Make TRL's trainer of a tiny Llama."""
    model = plain(model_of("llama"))
    vars(model).pop("forward", None)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    arguments = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=settings.pop("per_device_train_batch_size", 2),
        max_grad_norm=0.0,
        **settings,
    )
    return trl.SFTTrainer(
        model, args=arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )


def batch_of(made: Any) -> dict[str, torch.Tensor]:
    """Return the first batch as the model gets it."""
    batch: dict[str, torch.Tensor] = next(iter(made.get_train_dataloader()))
    return batch


def learned(made: Any) -> list[str]:
    """Return the text of the first row that is learned, part by part."""
    batch = batch_of(made)
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    kept = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    return [made.processing_class.decode(kept)]


def double_beginning() -> str:
    """Count the tokens that begin a text."""
    made = trainer(tokenizers()["no_system"], [talk()] * 2)
    return f"{batch_of(made)['input_ids'][0].tolist().count(2)} BOS"


def missing_end() -> str:
    """Say what is learned where the template has no end token."""
    return f"learned: {learned(trainer(tokenizer_of(WITHOUT_END, begins=True), [talk()] * 2))!r}"


def end_as_padding() -> str:
    """Count the end tokens that are learned when they pad as well."""
    tokenizer = tokenizer_of(CHATML, control=CHATML_TOKENS)
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    batch = batch_of(trainer(tokenizer, [talk(), talk(LONG)]))
    return f"{[int((row == tokenizer.pad_token_id).sum()) for row in batch['labels']]} learned"


def without_marks() -> str:
    """Say what is learned of a template without marks when only answers are wanted."""
    tokenizer = tokenizer_of(CHATML, control=CHATML_TOKENS)
    return f"learned: {learned(trainer(tokenizer, [talk()] * 2, assistant_only_loss=True))!r}"


def loss_on_prompt() -> str:
    """Say what is learned of messages when nothing is said."""
    return f"learned: {learned(trainer(tokenizer_of(CHATML, control=CHATML_TOKENS), [talk()] * 2))!r}"


def packing() -> str:
    """Compare the loss of packed rows with that of the same rows apart."""
    losses = []
    for packs in (False, True):
        rows = [talk("사과 " * count) for count in range(1, 9)]
        made = trainer(
            tokenizer_of(CHATML, control=CHATML_TOKENS), rows, packing=packs, max_length=256, max_steps=1,
            per_device_train_batch_size=8, learning_rate=1e-9,
        )  # fmt: skip
        losses.append(made.train().training_loss)
    return f"loss {losses[0]:.4f} apart, {losses[1]:.4f} packed"


def passes(split: tuple[int, ...]) -> str:
    """Compare the loss of one pass with that of several."""
    rows = [talk(SHORT if number % 2 else LONG) for number in range(8)]
    losses = []
    for size in split:
        made = trainer(
            tokenizer_of(CHATML, control=CHATML_TOKENS), rows, max_steps=1, learning_rate=1e-9,
            per_device_train_batch_size=size, gradient_accumulation_steps=-(-8 // size),
        )  # fmt: skip
        losses.append(made.train().training_loss)
    return f"loss {losses[0]:.6f} in one pass of 8, {losses[1]:.6f} in passes of {split[1]}"


def step(rank: int, num_workers: int, port: int, folder: str) -> None:
    """Take one plain step of rate 1 over eight rows of unlike lengths as one of some workers, and save what it changed."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_workers),
        "LOCAL_WORLD_SIZE": str(num_workers), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    rows = [talk("사과 " * (1 if number < 4 else 12 * number)) for number in range(8)]
    made = trainer(
        tokenizer_of(CHATML, control=CHATML_TOKENS), rows, max_steps=1, learning_rate=1.0, optim="sgd",
        lr_scheduler_type="constant", logging_steps=1, per_device_train_batch_size=8 // num_workers, train_sampling_strategy="sequential",
    )  # fmt: skip
    assert made.accelerator.num_processes == num_workers
    before = torch.cat([weight.detach().flatten() for weight in made.model.parameters()])
    loss = {"told": made.train().training_loss, "logged": made.state.log_history[0]["loss"]}
    after = torch.cat(
        [weight.detach().flatten() for weight in made.accelerator.unwrap_model(made.model).parameters()]
    )
    if rank == 0:
        torch.save({"gradient": before - after, **loss}, f"{folder}/{num_workers}.pt")


def workers() -> str:
    """Compare the gradient of one process with that of two, of which one has far longer rows."""
    folder = tempfile.mkdtemp()
    found = []
    for number in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.spawn(step, (number, port, folder), nprocs=number)
        found.append(torch.load(f"{folder}/{number}.pt", weights_only=True))
    one, two = found
    apart = float((one["gradient"] - two["gradient"]).norm() / one["gradient"].norm())
    losses = [f"{name} {one[name]:.4f} and {two[name]:.4f}" for name in ("logged", "told")]
    return f"gradients of one worker and of two {apart:.1e} apart; losses {', '.join(losses)} in the end"


def cut() -> str:
    """Say what is left of a row that is too long."""
    tokenizer = tokenizer_of(CHATML, control=CHATML_TOKENS)
    batch = batch_of(trainer(tokenizer, [talk(LONG)] * 2, max_length=40))
    return f"left: {tokenizer.decode(batch['input_ids'][0])!r}"


CASES: dict[str, Callable[[], str]] = {
    "1 double BOS": double_beginning,
    "2 missing EOS": missing_end,
    "3 EOS masked by padding": end_as_padding,
    "4 template without marks": without_marks,
    "5 loss on the prompt": loss_on_prompt,
    "6, 7 packing": packing,
    "8 mean of means": lambda: passes((8, 1)),
    "9 last batch of few rows": lambda: passes((8, 3)),
    "10 several workers": workers,
    "12 too long": cut,
}


def main() -> None:
    """Print what happens in every case."""
    warnings.filterwarnings("ignore")
    print(f"trl {trl.__version__}")
    for name, case in CASES.items():
        if sys.argv[1:] and not any(name.startswith(f"{number} ") for number in sys.argv[1:]):
            continue
        try:
            print(f"{name}: {case()}", flush=True)
        except Exception as error:  # whatever it says is the result
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)


if __name__ == "__main__":
    main()
