"""Tiny checkpoints saved as folders, so that the real loading code finds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

from dure.modeling.rehearsal import train_tokenizer
from tests.platform.modeling.tiny_models import TARGETS, TEXTS, build, experiment_of

logging.disable_progress_bar()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a saved tiny model and tokenizer for each kind."""
    folders = {}
    for kind in TARGETS:
        folder = folders[kind] = tmp_path_factory.mktemp(kind)
        rehearsal = experiment_of(kind, "nobody/nothing", rehearsal={"enabled": True})
        tokenizer = train_tokenizer(iter(TEXTS), rehearsal)
        tokenizer.save_pretrained(folder)
        model = build(kind, len(tokenizer))
        model.generation_config.max_length = 17
        model.save_pretrained(folder)
    return folders
