"""Which experiment of a batch takes longest, from its settings alone."""

from __future__ import annotations

from dure.config.schema import Experiment
from dure.training.arguments import total_steps

_ROWS = 10_000
"""Rows of a table whose number nobody limits: experiments of a batch mostly share their table."""
_OVERHEAD = 8_000
"""Positions whose computing takes as long as what every pass costs whatever its size; of a miniature on one core."""


def training_work(experiment: Experiment) -> float:
    """Return the work of training, in positions that are computed; only the order of experiments is meant.

    Sizes of models are not known before they are loaded, and rows are taken to be as long as they may be.
    """
    training, tokenizer = experiment.training, experiment.tokenizer
    rows = experiment.data.max_train_rows or _ROWS
    passes = total_steps(experiment, rows) * training.gradient_accumulation_steps
    length = tokenizer.encoder_max_len + tokenizer.decoder_max_len
    return float(passes * (training.batch_size * length + _OVERHEAD))
