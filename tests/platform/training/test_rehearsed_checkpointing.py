"""A rehearsal recomputes activations in its first step only, and every number stays what it is."""

from __future__ import annotations

from typing import ClassVar

import pytest
import transformers.modeling_utils
from torch.utils.checkpoint import checkpoint

from dure.events import RunListener
from dure.files import read_json_lines
from dure.training.run import RunRequest, run

TIMED = ("seconds", "_runtime", "_per_second")


@pytest.fixture
def recomputed(monkeypatch):
    """Counts the layers whose activations are computed twice."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(transformers.modeling_utils, "checkpoint", counted)
    return calls


def test_the_first_step_shows_that_it_works_and_the_records_do_not_change(tiny, cpu, tmp_path, recomputed):
    class Counts(RunListener):
        after: ClassVar[dict[int, int]] = {}

        def progressed(self, progress):
            self.after[progress.step] = len(recomputed)

    records = {}
    for checkpoints in (True, False):
        asked = {"gradient_checkpointing": checkpoints, "max_steps": 3, "eval_every": 3, "log_every": 1}
        experiment = tiny("bart", "lora").with_({f"training.{name}": value for name, value in asked.items()})
        assert experiment.rehearsal.enabled
        recomputed.clear()
        run(RunRequest(experiment, cpu, tmp_path / str(checkpoints), listeners=(Counts(),)))
        assert Counts.after[1] == Counts.after[3]
        assert bool(Counts.after[1]) == checkpoints
        records[checkpoints] = [
            {name: value for name, value in record.items() if not name.endswith(TIMED)}
            for record in read_json_lines(tmp_path / str(checkpoints) / "metrics.jsonl")
        ]
    assert records[True] == records[False]
