"""Making a model's configuration small by the fields it has, whatever architecture it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from dure.config.schema import RehearsalConfig
from dure.errors import UserError

_WIDTHS = ("hidden_size", "d_model", "n_embd")
_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"),
    *("num_encoder_layers", "num_decoder_layers"),
)
_HEADS = (
    *("num_attention_heads", "num_heads", "n_head", "n_heads"),
    *("encoder_attention_heads", "decoder_attention_heads"),
)
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_DERIVED = ("head_dim", *_KEY_VALUE_HEADS)
"""What some architectures derive when it is None, and others do not."""
_HEAD_WIDTHS = (
    *("head_dim", "d_kv", "d_head", "query_pre_attn_scalar"),
    *("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
_INNER_WIDTHS = (
    *("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "ffn_dim", "n_inner"),
    *("d_inner", "dff", "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size"),
)
_OTHER_WIDTHS = (
    *("embedding_size", "word_embed_proj_dim", "pooler_hidden_size"),
    *("q_lora_rank", "kv_lora_rank"),
)
"""As wide as the model, or narrower."""
_WINDOWS = ("sliding_window", "local_attention", "attention_window")
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
"""The most of each."""
_SPREADS = ("initializer_range", "init_std")
"""Standard deviation of the initial weights."""
_ROTARY_FACTORS = ("short_factor", "long_factor")
"""Factors for every pair of rotated dimensions."""


def shrink(config: PretrainedConfig, mini: RehearsalConfig, positions: int) -> PretrainedConfig:
    """Return ``config`` with the sizes of a miniature, and everything else as it was.

    Fields are found under the names that transformers' architectures use for them. What depends on a size follows
    it: the width of heads and of the embedding, what is said for every layer, the groups of heads that share keys.

    ``positions`` are of the longest text in tokens, with what the architecture reserves in front.

    Raises:
        UserError: The heads of these sizes are too odd to be rotated.
        ValueError: It says no width or no number of layers, so that nothing is known about its size.
    """
    width = next((getattr(config, name) for name in _WIDTHS if _has(config, name)), None)
    num_layers = next((getattr(config, name) for name in _LAYERS if _has(config, name)), None)
    if width is None or num_layers is None:
        raise ValueError(f"its configuration has no {'width' if width is None else 'number of layers'}")
    head_width = _head_width(config, mini)
    changes: dict[str, Any] = {
        **_per_layer(config, num_layers, mini.num_layers),
        **_key_value_heads(config, mini.num_heads),
        **dict.fromkeys(_WIDTHS, mini.hidden_size),
        **dict.fromkeys(_LAYERS, mini.num_layers),
        **dict.fromkeys(_HEADS, mini.num_heads),
        **dict.fromkeys(_HEAD_WIDTHS, head_width),
        **dict.fromkeys(_INNER_WIDTHS, 2 * mini.hidden_size),
        # The standard deviation that keeps the scale of activations at this width, as 0.02 does at a real one.
        **dict.fromkeys(_SPREADS, mini.hidden_size**-0.5),
        **_positions(config, positions),
    }
    for name in _OTHER_WIDTHS:
        is_whole = getattr(config, name, None) == width
        changes[name] = mini.hidden_size if is_whole else mini.hidden_size // 2
    for name, most in _EXPERTS.items():
        changes[name] = min(getattr(config, name, None) or most, most)
    if _has(config, "num_hidden_groups"):
        changes["num_hidden_groups"] = min(config.num_hidden_groups, mini.num_layers)
    if _has(config, "first_k_dense_replace"):
        changes["first_k_dense_replace"] = min(config.first_k_dense_replace, mini.num_layers - 1)
    for name, value in changes.items():
        if _has(config, name) or (name in _DERIVED and name in vars(config)):
            setattr(config, name, value)
    return config


def _has(config: PretrainedConfig, name: str) -> bool:
    """Whether a configuration stores a value under a name, which may be another name's."""
    return vars(config).get(config.attribute_map.get(name, name)) is not None


def _rotations(config: PretrainedConfig) -> list[dict[str, Any]]:
    """Return how positions are rotated: once for all layers, or for every kind of layer."""
    stated = getattr(config, "rope_parameters", None) or {}
    return [each for each in stated.values() if isinstance(each, dict)] or ([stated] if stated else [])


def _head_width(config: PretrainedConfig, mini: RehearsalConfig) -> int:
    """Return the width of one head, and cut what rotates its dimensions to it."""
    width = mini.hidden_size // mini.num_heads
    if _has(config, "rotary_dim"):
        config.rotary_dim = width // 2 * 2
    for rotation in _rotations(config):
        rotated = int(width * (rotation.get("partial_rotary_factor") or 1.0))
        if rotated % 2:
            raise UserError(
                f"{config.model_type} rotates {rotated} dimensions of a head {width} wide, which are no pairs",
                where="rehearsal.num_heads",
                expected=f"hidden_size {mini.hidden_size} / num_heads a multiple of "
                f"{round(2 / (rotation.get('partial_rotary_factor') or 1.0))}",
            )
        for name in _ROTARY_FACTORS:
            if name in rotation:
                rotation[name] = rotation[name][: rotated // 2]
    return width


def _per_layer(config: PretrainedConfig, before: int, after: int) -> dict[str, Any]:
    """Return what a configuration says for every layer, for the layers that stay.

    The first layer of every kind stays, so that each is rehearsed where there are enough layers: Gemma 3 would
    otherwise lose its full attention, which is in every sixth layer.
    """
    lists = {
        name: list(value)
        for name, value in vars(config).items()
        if isinstance(value, list | tuple) and len(value) == before > 1
    }
    kinds: Sequence[tuple[Any, ...]] = list(zip(*lists.values(), strict=True))
    first = [place for place, kind in enumerate(kinds) if kind not in kinds[:place]]
    others = [place for place in range(before) if place not in first]
    stay = sorted([*first, *others][:after])
    # More layers than the real one has: as its last ones.
    stay += [before - 1] * (after - len(stay))
    return {name: [value[place] for place in stay] for name, value in lists.items()}


def _key_value_heads(config: PretrainedConfig, num_heads: int) -> Mapping[str, int]:
    """Return as many heads with keys and values as share them among ``num_heads`` like before."""
    changes = {}
    for name in _KEY_VALUE_HEADS:
        if name in vars(config):
            share = (getattr(config, name) or config.num_attention_heads) / config.num_attention_heads
            most = max(1, int(num_heads * share))
            changes[name] = next(count for count in range(most, 0, -1) if num_heads % count == 0)
    return changes


def _positions(config: PretrainedConfig, positions: int) -> Mapping[str, Any]:
    """Return what depends on the length of texts: positions that are learned, distances and windows.

    Rotated positions have no weights and stay. A window is half of the longest text at most, so that it is felt.
    """
    changes: dict[str, Any] = {}
    is_rotated = bool(_rotations(config))
    known = getattr(config, "max_position_embeddings", None)
    changes["max_position_embeddings"] = max(known or 0, positions) if is_rotated else positions
    for name, most in (("max_relative_positions", positions), ("position_buckets", positions // 2)):
        # −1 has a meaning of its own.
        if getattr(config, name, -1) > 0:
            changes[name] = min(getattr(config, name), most)
    window = max(2, positions // 4 * 2)
    for name in _WINDOWS:
        value = getattr(config, name, None)
        if isinstance(value, int):
            changes[name] = min(value, window)
    return changes
