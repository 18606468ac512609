"""A rehearsal recomputes activations in its first step only, and every number stays what it is."""

from __future__ import annotations

import pytest
import transformers.modeling_utils
from torch.utils.checkpoint import checkpoint

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
    records, layers = {}, {}
    for steps, way in ((1, "one step"), (4, "checkpointed"), (4, "plain")):
        asked = {"training.gradient_checkpointing": way != "plain", "training.max_steps": steps}
        experiment = tiny("bart", "lora").with_({**asked, "training.eval_every": steps})
        assert experiment.rehearsal.enabled
        recomputed.clear()
        run(RunRequest(experiment, cpu, tmp_path / way))
        layers[way] = len(recomputed)
        records[way] = [
            {name: value for name, value in record.items() if not name.endswith(TIMED)}
            for record in read_json_lines(tmp_path / way / "metrics.jsonl")
        ]
    assert layers["one step"] == layers["checkpointed"] > 0
    assert layers["plain"] == 0
    assert records["checkpointed"] == records["plain"]
