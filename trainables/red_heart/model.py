"""The Red Heart model: one text encoder, and for each of four tasks an analyser and a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput

from trainables.red_heart.tasks import BENTHAM, EMOTIONS, SURD, TASKS, task_slices


class RedHeartConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a Red Heart model; the defaults are those of the 730M one."""

    model_type = "red_heart"
    emotions: Any
    """Names of the emotion classes."""
    bentham: Any
    """Names of the Bentham values."""

    def __init__(
        self,
        vocab_size: int = 32_000,
        hidden_size: int = 1280,
        intermediate_size: int = 5120,
        num_hidden_layers: int = 18,
        num_attention_heads: int = 20,
        num_analyzer_layers: int = 2,
        dropout: float = 0.1,
        rope_theta: float = 10_000.0,
        initializer_range: float | None = None,
        weighting: Literal["fixed", "uncertainty"] = "fixed",
        emotions: tuple[str, ...] | list[str] = EMOTIONS,
        bentham: tuple[str, ...] | list[str] = BENTHAM,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        self.pad_token_id = pad_token_id
        self.vocab_size = vocab_size
        """Rows of the token embedding."""
        self.hidden_size = hidden_size
        """Width of the backbone and the analysers."""
        self.intermediate_size = intermediate_size
        """Width inside the gated feed-forward layers."""
        self.num_hidden_layers = num_hidden_layers
        """Layers of the backbone."""
        self.num_attention_heads = num_attention_heads
        """Heads of every attention."""
        self.num_analyzer_layers = num_analyzer_layers
        """Layers of each analyser."""
        self.dropout = dropout
        """Part of the values that is dropped after the embedding, attention, feed-forward and pooling."""
        self.rope_theta = rope_theta
        """Base of the rotary positions' wavelengths."""
        self.initializer_range = hidden_size**-0.5 if initializer_range is None else initializer_range
        """Standard deviation of fresh weights; hidden_size ** -0.5 when not given."""
        self.weighting = weighting
        """Whether the four losses have fixed weights, or learned ones (``uncertainty``), which are parameters of the
        model then.
        """
        self.emotions = list(emotions)
        self.bentham = list(bentham)

    @property
    def task_sizes(self) -> dict[str, int]:
        """Values that each task predicts, in the order of :data:`TASKS`."""
        return {"emotion": len(self.emotions), "bentham": len(self.bentham), "regret": 1, "surd": len(SURD)}


PRESETS: dict[str, dict[str, Any]] = {
    "730m": {},
    "800m": {"vocab_size": 48_000, "num_hidden_layers": 20},
    "320m": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 13,
        "num_attention_heads": 16,
        "num_analyzer_layers": 1,
    },
    "tiny": {
        "vocab_size": 2000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_analyzer_layers": 1,
        "dropout": 0.0,
    },
}
"""Sizes by name, as changes to the defaults of :class:`RedHeartConfig`.

Of the 730M parameters 513M are the backbone's, since all tasks learn it; 4 x 52M are the analysers', two layers like
its own, so that a task can look at single tokens again before it pools them; 4 x 1.6M are the heads', which only have
to read values off one vector.
"""


def predicted_values(logits: torch.Tensor, sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Return what logits of shape (rows, values of all tasks) say.

    Returns:
        By task, in fp32: ``emotion`` and ``surd`` are shares that sum to 1, ``bentham`` lies in [0, 1], ``regret`` is
        any number. Each has shape (rows, values of the task).
    """
    parts = {task: logits[:, place].float() for task, place in task_slices(sizes).items()}
    return {
        "emotion": parts["emotion"].softmax(dim=-1),
        "bentham": parts["bentham"].sigmoid(),
        "regret": parts["regret"],
        "surd": parts["surd"].softmax(dim=-1),
    }


@dataclass
class RedHeartOutput(ModelOutput):  # type: ignore[misc]
    """What the model says of a batch."""

    logits: torch.Tensor | None = None
    """Raw values of all tasks, shape (rows, values of all tasks), in the order of :data:`TASKS`."""
    emotion: torch.Tensor | None = None
    """Those of the emotion classes: log odds of shares."""
    bentham: torch.Tensor | None = None
    """Those of the Bentham values: log odds of each."""
    regret: torch.Tensor | None = None
    """The regret itself, shape (rows, 1)."""
    surd: torch.Tensor | None = None
    """Those of the four parts: log odds of shares."""
    log_variances: torch.Tensor | None = None
    """Learned log variance of every task, shape (tasks,), with ``weighting="uncertainty"``."""


class Attention(nn.Module):
    """Self-attention over the tokens of a text, their distance told by rotation (Su et al. 2021)."""

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.inputs = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.dropout = config.dropout

    def forward(self, states: torch.Tensor, mask: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """Return states of the same shape (rows, length, hidden)."""
        rows, length, hidden = states.shape
        parts = self.inputs(states).view(rows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            _rotated(query, rotation),
            _rotated(key, rotation),
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: torch.Tensor = self.output(mixed.transpose(1, 2).reshape(rows, length, hidden))
        return output


class FeedForward(nn.Module):
    """The gated feed-forward layer SwiGLU (Shazeer 2020)."""

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__()
        self.inputs = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return states of the same shape."""
        gate, values = self.inputs(states).chunk(2, dim=-1)
        output: torch.Tensor = self.output(functional.silu(gate) * values)
        return output


class Layer(GradientCheckpointingLayer):  # type: ignore[misc]
    """A pre-norm transformer layer."""

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """Return states of the same shape."""
        states = states + self.dropout(self.attention(self.attention_norm(states), mask, rotation))
        output: torch.Tensor = states + self.dropout(self.feed_forward(self.feed_forward_norm(states)))
        return output


class Backbone(nn.Module):
    """The encoder that all tasks share."""

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-6)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """Return the states of the tokens, shape (rows, length, hidden)."""
        states = self.dropout(self.embedding(input_ids))
        for layer in self.layers:
            states = layer(states, mask, rotation)
        output: torch.Tensor = self.norm(states)
        return output


class Analyzer(nn.Module):
    """Looks at the tokens for one task, and pools them by attention to a learned query."""

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_analyzer_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.query = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """Return one vector per row, shape (rows, hidden)."""
        for layer in self.layers:
            states = layer(states, mask, rotation)
        states = self.norm(states)
        scores = self.query(states).squeeze(-1).float().masked_fill(~mask[:, 0, 0], float("-inf"))
        return torch.einsum("rl,rlh->rh", scores.softmax(dim=-1).to(states.dtype), states)


class Head(nn.Module):
    """Reads the values of one task off a vector."""

    def __init__(self, config: RedHeartConfig, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, size)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return raw values, shape (rows, values)."""
        values: torch.Tensor = self.output(self.dropout(functional.gelu(self.dense(pooled))))
        return values


class Weighting(nn.Module):
    """The learned log variances of the tasks, by which their losses are weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(len(TASKS)))


class RedHeartModel(PreTrainedModel):  # type: ignore[misc]
    """Reads a text and says its emotion, Bentham values, regret and SURD parts.

    Its modules by name: ``backbone``, and ``analyzers.<task>`` and ``heads.<task>`` for each of :data:`TASKS`.
    """

    config_class = RedHeartConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Layer",)
    _supports_sdpa = True

    def __init__(self, config: RedHeartConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        self.analyzers = nn.ModuleDict({task: Analyzer(config) for task in TASKS})
        self.heads = nn.ModuleDict({task: Head(config, size) for task, size in config.task_sizes.items()})
        if config.weighting == "uncertainty":
            self.weighting = Weighting()
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embedding."""
        return self.backbone.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another token embedding in place."""
        self.backbone.embedding = value

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> RedHeartOutput:
        """Return the raw values of every task.

        Args:
            input_ids: Token ids, shape (rows, length).
            attention_mask: 1 for tokens and 0 for padding, of the same shape; no padding when not given.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask.bool()[:, None, None]
        rotation = _rotation(self.config, input_ids.shape[1], input_ids.device)
        states = self.backbone(input_ids, mask, rotation)
        values = {task: self.heads[task](self.analyzers[task](states, mask, rotation)) for task in self.heads}
        log_variances = self.weighting.log_variances if self.config.weighting == "uncertainty" else None
        return RedHeartOutput(
            logits=torch.cat(list(values.values()), dim=-1), **values, log_variances=log_variances
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (Attention, FeedForward)):
            # Of n sublayers each adds to the states; so their sum stays as large as one (Radford et al. 2019).
            num_sublayers = 2 * (self.config.num_hidden_layers + self.config.num_analyzer_layers)
            std = self.config.initializer_range * num_sublayers**-0.5
            init.normal_(module.output.weight, mean=0.0, std=std)
        elif isinstance(module, Analyzer):
            # A fresh analyser takes the plain mean of the tokens.
            init.zeros_(module.query.weight)
        elif isinstance(module, Weighting):
            init.zeros_(module.log_variances)


def _rotation(config: RedHeartConfig, length: int, device: torch.device) -> torch.Tensor:
    """Return cosines and sines of the rotation at every position, shape (2, length, head width / 2)."""
    width = config.hidden_size // config.num_attention_heads
    speeds = config.rope_theta ** -(torch.arange(0, width, 2, device=device).float() / width)
    angles = torch.outer(torch.arange(length, device=device).float(), speeds)
    return torch.stack([angles.cos(), angles.sin()])


def _rotated(vectors: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate the first half of vectors against the second, by position; shape (rows, heads, length, width)."""
    cosines, sines = rotation.to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


AutoConfig.register(RedHeartConfig.model_type, RedHeartConfig)
AutoModel.register(RedHeartConfig, RedHeartModel)
