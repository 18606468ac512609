"""Secrets that runs need: which they are, and text without them."""

from __future__ import annotations

import os
from collections.abc import Iterable

SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables that runs read and nobody else should."""
_OTHERS = ("RAY_AUTH_TOKEN",)
_SHORTEST = 6
"""A shorter value is no secret, and would be found in the middle of words."""
_HIDDEN = "<hidden>"


def redacted(text: str, more: Iterable[str] = ()) -> str:
    """Return a text without the values of this environment's secrets.

    Args:
        text: What is to be shown.
        more: Further values that must not be shown.
    """
    values = {os.environ.get(name, "") for name in (*SECRETS, *_OTHERS)} | set(more)
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    return text
