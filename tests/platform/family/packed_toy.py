"""A decoder-only toy: rows packed into one sequence, validated by the loss alone, predicted as generated text."""

from itertools import chain

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from dure.data.collating import Batches, padded
from dure.data.tables import Role
from dure.family import Family
from dure.modeling.loading import load_model
from dure.modeling.objectives import IGNORED, TokenCrossEntropy
from dure.modeling.task import CAUSAL


class Packed(Batches):
    """All rows in one sequence: positions begin anew with every row, and no row attends to another."""

    def collate(self, rows):
        texts = [[*row["input_ids"], *row.get("labels", [])] for row in rows]
        labels = [[IGNORED] * (len(row["input_ids"]) - 1) + [*row.get("labels", []), IGNORED] for row in rows]
        left = [row["input_ids"][::-1] for row in rows]
        return {
            "input_ids": torch.tensor([[*chain(*texts)]]),
            "position_ids": torch.cat([torch.arange(len(text)) for text in texts])[None],
            "row": torch.cat([torch.full([len(text)], place) for place, text in enumerate(texts)]),
            "labels": torch.tensor([[*chain(*labels)]]) if "labels" in rows[0] else None,
            "prompt_ids": padded(left, 0).flip(1),
            "prompt_mask": padded([[1] * len(row) for row in left], 0).flip(1),
        }

    def num_rows(self, batch):
        return len(batch["prompt_ids"])

    def split(self, batch):
        half = -(-self.num_rows(batch) // 2)
        cut = int((batch["row"] < half).sum())
        whole = ("input_ids", "position_ids", "labels")
        first = {name: batch[name][:, :cut] for name in whole} | {"row": batch["row"][:cut]}
        second = {name: batch[name][:, cut:] for name in whole} | {"row": batch["row"][cut:] - half}
        for name in ("prompt_ids", "prompt_mask"):
            first[name], second[name] = batch[name][:half], batch[name][half:]
        return (first, second) if half < self.num_rows(batch) else None

    def inputs(self, batch):
        # Beside a cache transformers does not see from the positions where a row begins, and rows attend to others.
        return {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}

    def prompts(self, batch):
        return {"input_ids": batch["prompt_ids"], "attention_mask": batch["prompt_mask"]}

    def targets(self, batch):
        return None if batch["labels"] is None else (batch["labels"], batch["row"])


class PackedTokens(TokenCrossEntropy):
    def count(self, targets):
        return super().count(targets[0])

    def total(self, logits, targets):
        return super().total(logits, targets[0])

    def row_losses(self, logits, targets):
        labels, row = targets[0].reshape(-1), targets[1]
        losses = cross_entropy(logits[0].float(), labels, ignore_index=IGNORED, reduction="none")
        both = torch.stack([losses, (labels != IGNORED).float()], dim=1)
        return torch.zeros(int(row.max()) + 1, 2).index_add_(0, row, both)


class Continuing(Family):
    """Reads a word and goes on with it."""

    roles = (Role("text", "text", is_input=True), Role("target", "target"))
    predicts, validates, metrics = "text", "loss", ()

    def sample(self, split):
        return [
            {"text": f"{word} {split} " * (n % 3 + 1), "target": word * (n % 4 + 1)}
            for n, word in enumerate("가나다라마바사아" * 3)
        ]

    def load_model(self, tokenizer, profile):
        model = load_model(CAUSAL, self.experiment, profile, tokenizer, self.notify)
        model.generation_config.update(max_length=None, max_new_tokens=4, pad_token_id=tokenizer.pad_token_id)
        return model

    def encode(self, rows, tokenizer):
        features = {"input_ids": tokenizer(rows["text"])["input_ids"]}
        if "target" in rows:
            features["labels"] = tokenizer(rows["target"])["input_ids"]
        return features | {
            "length": [*map(len, features["input_ids"])],
            "truncated": [False] * len(rows["text"]),
        }

    def batches(self, tokenizer, model):
        return Packed()

    def objective(self, model, train):
        return PackedTokens()

    def predictions(self, answers, batch, tokenizer):
        return [{"text": text} for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def load_exported(self, folder):
        return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
