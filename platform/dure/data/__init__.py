"""Tables, their checks, and the rows that a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.data.dialogues import DialogueSummarizationDataset

__all__ = ["DialogueSummarizationDataset"]


def __getattr__(name: str) -> Any:
    if name == "DialogueSummarizationDataset":  # brings torch, which most of this package does without
        from dure.data.dialogues import DialogueSummarizationDataset

        return DialogueSummarizationDataset
    raise AttributeError(f"module 'dure.data' has no attribute {name!r}")
