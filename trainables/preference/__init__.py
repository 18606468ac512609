"""Preferences: a decoder-only model that learns which of two answers is the better one, by DPO or SimPO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from math import log
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import datasets
import numpy as np
import torch
from peft import PeftModel
from pydantic import Field, model_validator
from torch.nn.functional import softplus
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dure.config.data import SAMPLE
from dure.config.scalars import Float
from dure.config.schema import Experiment, Profile
from dure.data.batching import length_order
from dure.data.collating import Batch, Row, moved
from dure.data.tables import Table
from dure.errors import UserError, counted
from dure.events import silent
from dure.family import Features, Rows
from dure.files import hash_of
from dure.metrics.metric import Metric
from dure.modeling.precision import computing_in, resolve
from dure.runtime.placement import recognised_profile
from trainables.causal import Causal
from trainables.causal.options import CausalOptions
from trainables.causal.packing import Conversations
from trainables.causal.turns import Layout
from trainables.preference.losses import Method, PairLosses
from trainables.preference.rows import PairLayout, recognised_pairs, said
from trainables.samples.preferences import preference_corpus

_OF_TEXTS = (
    "packing",
    "batch_counts",
    "pack_tokens",
    "loss",
    "validates",
    "rouge_tokenizer",
    "rouge_markers",
)
"""Options of instruction fine-tuning that pairs have no use for."""
_OF_LOSS = ("beta", "margin", "sft_weight")
"""Options that change neither an id nor the reference."""
_MARGIN = Metric("eval_reward_margin", "max")


class PreferenceOptions(CausalOptions):
    """What ``task:`` of preference learning may say: how prompts are rendered, as in causal, and how pairs are learned."""

    rows: Literal["auto", "pairs", "messages"] = "auto"
    """How tables hold prompts and answers: as ``pairs`` of texts, or in conversations as ``messages``; ``auto`` recognises
    it by the first row of the training table."""
    method: Method = "dpo"
    """``dpo`` (Rafailov et al. 2023) keeps near the model that training begins with; ``simpo`` needs no reference."""
    beta: Annotated[Float, Field(gt=0.0)] = 0.1
    """Scale of rewards: what a difference of log-probabilities counts."""
    margin: Annotated[Float, Field(ge=0.0)] = 0.0
    """By how much SimPO wants the better answer's reward ahead (its gamma)."""
    sft_weight: Annotated[Float, Field(ge=0.0)] = 0.0
    """What the better answer's cross entropy, mean over its tokens, counts beside the loss of its pair (RPO's alpha, Pang et
    al. 2024, arXiv 2404.19733): so that the model goes on learning to write it. Validation has the loss of pairs alone."""
    validates: Literal["text", "loss"] = Field(default="loss", alias="validate")
    """Pairs are validated by their loss, the accuracy and the margin of rewards."""

    @model_validator(mode="after")
    def _fits_pairs(self) -> Self:
        given = [name for name in _OF_TEXTS if name in self.model_fields_set]
        if given:
            raise ValueError(
                f"{given[0].replace('validates', 'validate')} is for single answers, and not for pairs"
            )
        if self.margin and self.method == "dpo":
            raise ValueError("margin is SimPO's; DPO has none")
        return self


class Pairs(Conversations):
    """Of n pairs the n better answers, then the n others, each after its prompt and padded; pairs are never parted."""

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return one batch: 2n sequences, or n prompts where the rows have no answers."""
        better = list(rows)
        if "rejected_ids" not in rows[0]:
            return super().collate(better)
        others = [
            {
                "input_ids": row["rejected_ids"],
                "prompt_length": row["prompt_length"],
                "learned": row["rejected_learned"],
            }
            for row in rows
        ]
        batch = super().collate([*better, *others])
        batch["held"] = type(batch["held"])(better)
        if "reference" in rows[0]:
            batch["reference"] = torch.tensor([row["reference"] for row in rows], dtype=torch.float32)
        return batch

    def positions(self, row: Row) -> tuple[int, ...]:
        """Return the length of the longer answer with its prompt, twice: each has a sequence."""
        return (2 * self.padded_length(max(len(row["input_ids"]), len(row["rejected_ids"]))),)

    def prompts(self, batch: Batch) -> Batch:
        """Return each prompt once, padded at the left."""
        return {name: value[: self.num_rows(batch)] for name, value in super().prompts(batch).items()}

    def targets(self, batch: Batch) -> Any:
        """Return the target ids of all answers, shape (2n, tokens), and what the reference gives them, shape (n, 2)."""
        if "targets" not in batch:
            return None
        return {"ids": batch["targets"], "reference": batch.get("reference")}


class Preference(Causal):
    """Learns from pairs of answers to a prompt which is the better one, and answers prompts."""

    options_section = PreferenceOptions
    converts = ("dpo", "simpo")
    options: PreferenceOptions

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        self.roles = self._pairs.roles()
        self.metrics = (
            Metric("eval_reward_accuracy", "max", "share"),
            _MARGIN,
        )
        self._reference: PreTrainedModel | None = None

    def recognised(self) -> Mapping[str, str]:
        """Return how pairs and prompts stand in the training table, where that decided it."""
        if self.options.rows != "auto" or self._pairs.is_text:
            return {}
        return {"task.rows": "messages", "data.columns.text": self._pairs.prompt}

    def measured_by(self, metric: str) -> str:
        """Return the method and its scale, by which the same answers have another loss and another margin of rewards."""
        kind = super().measured_by("eval_loss" if metric == _MARGIN.name else metric)
        options = self.options
        margin = f" and margin {options.margin:g}" if options.margin else ""
        return kind and f"{kind}, {options.method} with beta {options.beta:g}{margin}"

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean dialogues, each with its summary and one that tells something wrong."""
        return [
            {"id": row.id, "text": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
            for row in preference_corpus()[split]
        ]

    def survey(self, tables: Mapping[str, Table]) -> None:
        """Tell pairs of which neither answer is the better one, and refuse answers to different prompts."""
        if not self._pairs.is_text:
            self.notify(
                f"{tables['train'].source}: rows are read as conversations, with the prompt in column '{self._pairs.prompt}'"
            )
        self.tell_unused_prompts()
        for table in tables.values():
            if self._pairs.is_whole and "other_text" in table.dataset.column_names:
                prompts = zip(table.dataset["text"][:], table.dataset["other_text"][:], strict=True)
                apart = [row for row, (one, other) in enumerate(prompts) if one != other]
                if apart:
                    raise UserError(
                        f"{counted(len(apart), 'row')} with answers to different prompts, the first of them {table.place(apart[0])}",
                        where=table.source,
                        expected="chosen and rejected to differ in their last turn only",
                    )
            if {"chosen", "rejected"} <= {*table.dataset.column_names}:
                pairs = zip(table.dataset["chosen"][:], table.dataset["rejected"][:], strict=True)
                same = [row for row, (one, other) in enumerate(pairs) if one.strip() == other.strip()]
                if same:
                    self.notify(
                        f"{table.source}: {len(same):,} pairs have the same answer twice, which teaches nothing; "
                        f"the first is {table.place(same[0])}"
                    )

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Load the model, which answers as the experiment says and scores answers; the reference has done its part."""
        self._reference = None
        return super().load_model(tokenizer, profile)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode prompts with both answers, and keep what the reference model gives these when DPO asks for it.

        So the reference is computed once for each row, and found again in the cache with it.
        """
        asked = [self.framing.turns(self.layout, {"text": text}) for text in rows["text"]]
        chat = self._chat(tokenizer)
        is_paired = {"chosen", "rejected"} <= {*rows}
        better = chat.encode(asked, rows["chosen"] if is_paired else None)
        features = self._features(rows, better)
        if is_paired:
            others = chat.encode(asked, rows["rejected"])
            features |= {
                "learned": [row.learned for row in better],
                "control": self.control(asked, tokenizer),
                "answer_is_cut": [
                    one.is_answer_cut or other.is_answer_cut
                    for one, other in zip(better, others, strict=True)
                ],
                "rejected_ids": [row.ids for row in others],
                "rejected_learned": [row.learned for row in others],
                "length": [
                    max(len(one.ids), len(other.ids)) for one, other in zip(better, others, strict=True)
                ],
                "truncated": [one.is_cut or other.is_cut for one, other in zip(better, others, strict=True)],
            }
            if self.options.method == "dpo":
                features["reference"] = (
                    self._references(features, tokenizer)
                    if self.computes_ahead
                    else [[0.0, 0.0]] * len(better)
                )
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return what decides the ids, and with DPO what decides the reference; not what the loss makes of them."""
        experiment = self.experiment
        key = {**super().encoding_key(), "family": "preference-4"}
        key["task"] = {name: value for name, value in experiment.task.items() if name not in _OF_LOSS}
        if self.options.method == "simpo":
            return key
        return key | {
            "model": experiment.model.model_dump(mode="json"),
            "weights": _weights_of(experiment.model.checkpoint),
            "has_reference": self.computes_ahead,
            "precision": self._computes_in(),
            "seed": experiment.experiment.seed,
            "rehearsal": experiment.rehearsal.model_dump(mode="json")
            if experiment.rehearsal.enabled
            else None,
        }

    def _profile_of_reference(self) -> Profile:
        return self.profile or recognised_profile()[0]

    def _computes_in(self) -> list[str]:
        asked = self.experiment.training.precision
        return [asked, self._profile_of_reference().precision] if self.computes_ahead else [asked]

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Pairs:
        """Put both answers of a pair into one batch."""
        return Pairs(int(tokenizer.pad_token_id or 0))

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Any:
        """The loss of pairs."""
        said = self.options
        smoothing = self.experiment.objective.label_smoothing
        return PairLosses(said.method, said.beta, said.margin, smoothing, said.sft_weight)

    def training_rows(self, train: datasets.Dataset) -> datasets.Dataset:
        """Return the pairs as they are, and tell of how many an answer is cut."""
        cut = sum(train["answer_is_cut"][:])
        if cut:
            self.notify(
                f"{cut:,} of {len(train):,} pairs have an answer of more than tokenizer.decoder_max_len="
                f"{self.experiment.tokenizer.decoder_max_len} tokens, which is compared up to there"
            )
        self.tell_control_tokens(train)
        return train

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score a model that gives both answers of every pair the same reward."""
        loss = float(softplus(torch.tensor(self.options.margin))) if self.options.margin else log(2)
        return {"eval_reward_accuracy": 0.5, "eval_reward_margin": 0.0, "eval_loss": loss}

    def _layout(self) -> Layout:
        """Return how prompts stand in the tables, and keep the columns of these."""
        data, rows = self.experiment.data, self.options.rows
        self._pairs = PairLayout(is_text=rows != "messages")
        if data.train != SAMPLE and rows != "pairs":
            with suppress(
                UserError
            ):  # Told where tables are read; a run that is predicted with needs its prompts only.
                self._pairs = recognised_pairs(data)
        return "pairs" if self._pairs.is_text else "messages"

    def _said(self, text: str) -> Iterable[str]:
        return said(text)

    @property
    def answer(self) -> str:
        """Name of the column of predictions."""
        return "answer"

    @torch.no_grad()
    def _references(self, features: Features, tokenizer: PreTrainedTokenizerBase) -> list[list[float]]:
        """Return log p of both answers of every pair by the model that training begins with, its adapters off."""
        profile = self._profile_of_reference()
        if self._reference is None:
            self.notify(
                "the reference model is loaded: its likelihoods of the answers are computed once, and kept in the cache"
            )
            self._reference = super().load_model(tokenizer, profile).eval()
            if not getattr(self._reference, "is_quantized", False):
                self._reference.to(torch.device(profile.device))
        model = self._reference
        batches = self.batches(tokenizer, model)
        training = self.experiment.training
        at_once = training.rows_evaluated
        found = np.zeros((len(features["length"]), 2), dtype=np.float32)
        order = length_order(features["length"])
        precision = resolve(training.precision, profile, model.config.model_type, silent)
        plain = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
        with plain, computing_in(precision, profile.device):
            for start in range(0, len(order), at_once):
                rows = order[start : start + at_once]
                batch = batches.collate(
                    [{name: values[row] for name, values in features.items()} for row in rows]
                )
                outputs = model(**batches.inputs(moved(batch, model.device)))
                found[rows] = -outputs["logits"][..., 0].float().sum(dim=1).reshape(2, -1).T.cpu().numpy()
        return found.tolist()


@cache
def _weights_of(checkpoint: str) -> list[str]:
    """Return the hashes of the weights in a checkpoint's folder; none for one of the hub, which its revision names."""
    folder = Path(checkpoint)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if folder.is_dir() else []
    return [hash_of(file) for file in sorted(files)]
