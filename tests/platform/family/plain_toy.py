"""The smallest toy: tells whether a text is a question."""

import numpy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dure.data.collating import PaddedRows
from dure.data.encoding import token_ids
from dure.data.tables import Role
from dure.family import Family
from dure.metrics.metric import Metric
from dure.modeling.loading import load_model
from dure.modeling.objectives import ClassCrossEntropy
from dure.modeling.task import classification


class Questions(Family):
    """Reads a text and says yes or no."""

    roles = (Role("text", "text", is_input=True), Role("label", "label", is_class=True))
    metrics = (Metric("eval_accuracy", "max", "share"),)

    def sample(self, split):
        texts = [f"{word} {split} {number}" for number in range(4) for word in "가나다라마바사"]
        return [{"text": text + " 까요?" * (n % 2), "label": "ny"[n % 2]} for n, text in enumerate(texts)]

    def load_model(self, tokenizer, profile):
        return load_model(classification(["no", "yes"]), self.experiment, profile, tokenizer, self.notify)

    def encode(self, rows, tokenizer):
        ids, cut = token_ids(tokenizer, self.experiment.tokenizer.encoder_max_len, text=list(rows["text"]))
        features = {"input_ids": ids, "length": [len(row) for row in ids], "truncated": cut}
        return features | (
            {"labels": ["ny".index(label) for label in rows["label"]]} if "label" in rows else {}
        )

    def batches(self, tokenizer, model):
        return PaddedRows(tokenizer.pad_token_id)

    def objective(self, model, train):
        return ClassCrossEntropy(self.experiment.objective.label_smoothing)

    def compute_metrics(self, model, tokenizer, dataset):
        truth = numpy.asarray(dataset["labels"][:])
        return lambda answers: {"accuracy": float((answers.predictions.argmax(-1) == truth).mean())}

    def predictions(self, answers, batch, tokenizer):
        return [{"label": "ny"[place]} for place in answers.argmax(dim=-1).tolist()]

    def load_exported(self, folder):
        return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(
            folder
        )
