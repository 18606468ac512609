"""The losses of target tokens, without ever holding logits of all tokens over the whole vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from dure.config.schema import RehearsalConfig
from dure.errors import UserError
from dure.modeling.objectives import IGNORED, TokenCrossEntropy
from dure.modeling.shrinking import shrink

CHUNK = 1 << 24
"""Logits that are computed at once: 64 MiB in fp32."""
_TRIED_TOKENS = 64
"""The most that a model is tried with."""


def plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the model under adapters, if any."""
    found: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    return found


def with_numbers(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model to try; where its weights were not loaded, a small one of its architecture with random ones."""
    if model.device.type != "meta":
        return model
    config = shrink(copy.deepcopy(model.config), RehearsalConfig(), _TRIED_TOKENS)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return type(model)(config).eval()


def score_targets(model: PreTrainedModel | PeftModel, *, smoothed: bool = False) -> None:
    """Let a model's forward pass score target tokens, when it is told which: ``targets`` and ``predicted_at``.

    Both are of shape (rows, tokens): ids of target tokens, :data:`IGNORED` where there is none, and the places, among
    all of the batch, at which the model predicts them. In place of logits it then gives losses, shape (rows, tokens,
    2): -log p of the target, and the mean of -log p over the vocabulary if ``smoothed``, else 0.

    The layers run once for the whole batch. What comes after them, whatever an architecture does there (an output
    layer with adapters, a scale, a soft cap), runs for some of the target tokens at a time; their logits are forgotten
    and, in training, computed again for the gradient. Called without targets the model is as it was.
    """
    base = plain(model)
    tried = with_numbers(base)
    found_at = _decoder_of(tried)
    place = next(name for name, module in tried.named_modules() if module is found_at)
    vocabulary = base.get_input_embeddings().num_embeddings
    rows_at_once = max(1, CHUNK // vocabulary)

    def scoring(
        self: Any,
        *args: Any,
        targets: torch.Tensor | None = None,
        predicted_at: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        forward, decoder = self.forward_to_logits, self.get_submodule(place)
        if targets is None or predicted_at is None:
            return forward(*args, **inputs)
        # Adapters hand on what was not said, too, which not every architecture takes.
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs = decoder(*args, **inputs, use_cache=False)
        is_real = targets != IGNORED
        hidden = outputs.last_hidden_state.flatten(0, 1)[predicted_at[is_real]]

        def losses(some: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with _giving(decoder, type(outputs)(last_hidden_state=some[None])):
                logits = forward(*args, **inputs).logits[0].float()
            of_targets = functional.cross_entropy(logits, labels, reduction="none")
            spread = logits.logsumexp(-1) - logits.mean(-1) if smoothed else torch.zeros_like(of_targets)
            return torch.stack([of_targets, spread], dim=-1)

        parts = list(zip(hidden.split(rows_at_once), targets[is_real].split(rows_at_once), strict=True))
        forgets = torch.is_grad_enabled() and len(parts) > 1
        found = [
            checkpoint(losses, *part, use_reentrant=False) if forgets else losses(*part) for part in parts
        ]
        scored = torch.zeros(*targets.shape, 2, device=targets.device)
        if found:
            scored = scored.index_put((is_real,), torch.cat(found))
        return CausalLMOutputWithPast(logits=scored)

    # Bound to the model, both go along when it is copied.
    if not hasattr(base, "forward_to_logits"):
        base.forward_to_logits = base.forward
    base.forward = MethodType(scoring, base)


@torch.no_grad()
def _decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the module that is all layers of a model, and after which its output begins; found by trying."""
    ids = torch.zeros(1, 3, dtype=torch.int64, device=model.device)
    for decoder in (model.get_decoder(), model.base_model):
        if decoder is None or decoder is model:
            continue
        outputs = decoder(input_ids=ids, use_cache=False)
        with _giving(decoder, type(outputs)(last_hidden_state=outputs.last_hidden_state[:, 1:])):
            if model(input_ids=ids).logits.shape[1] == 2:
                found: nn.Module = decoder
                return found
    raise UserError(
        f"no part of {type(model).__name__} computes all but its output layer",
        where="model.checkpoint",
        expected="a model with a decoder and an output layer behind it, such as Llama, Qwen or Gemma",
    )


@contextmanager
def _giving(decoder: nn.Module, outputs: Any) -> Iterator[None]:
    """Let a module give these outputs, whatever it is called with."""
    own = vars(decoder).get("forward")
    decoder.forward = lambda *args, **kwargs: outputs
    try:
        yield
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own


class TargetLosses(TokenCrossEntropy):
    """The same cross entropy of target tokens, as models that :func:`score_targets` give it: (rows, tokens, 2)."""

    takes_projected = False

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy summed over target tokens."""
        of_targets, spread = logits.unbind(-1)
        smooth = self.label_smoothing
        return ((1 - smooth) * of_targets + smooth * spread).sum()

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Never asked for: it is of whole distributions, and the batches of this family refuse R-Drop."""
        raise NotImplementedError(
            "R-Drop is of whole distributions, and only likelihoods of targets are kept"
        )

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return for every row the summed plain cross entropy, and the number of target tokens."""
        return torch.stack([logits[..., 0].sum(dim=1), (labels != IGNORED).sum(dim=1).float()], dim=1)

    def mean_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Return the mean over all target tokens, and e to the power of it."""
        total, items = sums.tolist()
        loss = total / items
        # Beyond it, the exponential is infinite: no figure to compare.
        return {"loss": loss, "perplexity": exp(min(loss, 700.0))}
