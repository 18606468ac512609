"""A toy that learns preferences: each row is a pair of texts, of which the first one is to score higher."""

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dure.data.collating import PaddedRows, padded
from dure.data.tables import Role
from dure.family import Family
from dure.metrics.metric import Metric
from dure.modeling.loading import load_model
from dure.modeling.objectives import Objective, of_coins
from dure.modeling.task import classification


class Pairs(PaddedRows):
    """All preferred texts, then all others: of n pairs 2n texts, and n labels."""

    def collate(self, rows):
        texts = [row[name] for name in ("input_ids", "rejected") if name in rows[0] for row in rows]
        ids, mask = padded(texts, 0), padded([[1] * len(text) for text in texts], 0)
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.ones(len(rows))}

    def num_rows(self, batch):
        return len(batch["labels"])

    def split(self, batch):
        rows, half = self.num_rows(batch), -(-self.num_rows(batch) // 2)
        first = {
            name: torch.cat([part[:half] for part in value.split(rows)]) for name, value in batch.items()
        }
        second = {
            name: torch.cat([part[half:] for part in value.split(rows)]) for name, value in batch.items()
        }
        return (first, second) if half < rows else None

    labels = None


class Preference(Objective):
    """The logistic loss of Bradley and Terry (1952): -log sigmoid(score of the preferred - score of the other)."""

    def count(self, labels):
        return torch.tensor(float(len(labels)))

    def total(self, logits, labels):
        return -logsigmoid(margins(logits)).sum()

    def disagreement(self, first, second, labels):
        return of_coins(margins(first), margins(second)).sum()

    def row_losses(self, logits, labels):
        ahead = margins(logits)
        return torch.stack([-logsigmoid(ahead), (ahead > 0).float(), *torch.ones(2, len(ahead))], dim=1)

    def mean_losses(self, sums):
        return {"loss": float(sums[0] / sums[2]), "accuracy": float(sums[1] / sums[3])}


def margins(logits):
    preferred, other = logits.squeeze(-1).chunk(2)
    return preferred - other


class Preferring(Family):
    """Scores a text."""

    roles = (Role("text", "chosen", is_input=True), Role("rejected", "rejected"))
    validates, metrics = "loss", (Metric("eval_accuracy", "max", "share"),)

    def sample(self, split):
        texts = [f"{letter} {split}" for letter in "가나다라마바사아" * 3]
        return [
            {"text": f"{text} 좋은 글 {n}", "rejected": f"{text} 나쁜 글"} for n, text in enumerate(texts)
        ]

    def load_model(self, tokenizer, profile):
        return load_model(
            classification(["score"], multi_label=True), self.experiment, profile, tokenizer, self.notify
        )

    def encode(self, rows, tokenizer):
        ids = {name: tokenizer(texts)["input_ids"] for name, texts in rows.items()}
        lengths = [len(row) for row in ids["text"]]
        return {"input_ids": ids.pop("text"), **ids, "length": lengths, "truncated": [False] * len(lengths)}

    def batches(self, tokenizer, model):
        return Pairs(0)

    def objective(self, model, train):
        return Preference()

    def predictions(self, answers, batch, tokenizer):
        return [{"score": float(score)} for score in answers[: len(batch["labels"]), 0]]

    def load_exported(self, folder):
        return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(
            folder
        )
