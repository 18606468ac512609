"""What ``task:`` of an instruction fine-tuning may say."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dure.config.scalars import Bool, Int, Text
from trainables._summaries import TextOptions
from trainables.causal.turns import TEXT, Layout, Learned


class CausalOptions(TextOptions):
    """What ``task:`` of an instruction fine-tuning may say."""

    rows: Literal["auto"] | Layout = "auto"
    """How tables hold conversations; ``auto`` recognises it by the columns of the training table."""
    prompt: str = TEXT
    """The turn of the user, with ``{text}`` where the text of a row stands; rows of messages bring their own."""
    system: Text | None = None
    """System text of rows that bring none."""
    chat_template: Text = "tokenizer"
    """The template: ``tokenizer`` for the tokenizer's own, ``plain`` for none, or a Jinja file."""
    template_options: dict[str, Any] = Field(default_factory=dict)
    """What the template takes beside the conversation, such as ``enable_thinking: false``."""
    loss: Learned = "answers"
    """Which tokens are learned: those of all ``answers``, of the ``last`` one, or ``all`` text."""
    packing: Bool = True
    """Whether short rows of a batch share one sequence, as far as the architecture keeps them apart."""
    batch_counts: Literal["rows", "tokens"] = "rows"
    """Whether ``training.batch_size`` counts rows, or packs of up to ``pack_tokens`` tokens."""
    pack_tokens: Int = Field(default=2048, ge=8)
    """Most tokens of a pack; a longer row is one by itself."""
    validates: Literal["text", "loss"] = Field(default="text", alias="validate")
    """What validation computes: generated ``text`` and its ROUGE beside the loss, or the ``loss`` alone."""
    rouge_markers: tuple[Text, ...] = ()
    """Words that ROUGE takes as one, such as ``#Person1#``, beside the tokenizer's special tokens."""

    @model_validator(mode="after")
    def _packs_are_packed(self) -> Self:
        if self.batch_counts == "tokens" and not self.packing:
            raise ValueError("batch_counts is tokens, which come in packs: packing must be true")
        return self

    @model_validator(mode="after")
    def _metrics_have_texts(self) -> Self:
        if self.metrics and self.validates == "loss":
            raise ValueError("metrics score texts, and validate is loss: none are written")
        return self

    @field_validator("prompt")
    @classmethod
    def _has_one_text(cls, value: str) -> str:
        if value.count(TEXT) != 1:
            raise ValueError(f"a text with {TEXT} in it, once")
        return value
