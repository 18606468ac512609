"""Without the model hub a model that was fetched before is trained as ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import time
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.task import SEQ2SEQ
from tests.platform.modeling.tiny_models import CPU, experiment_of
experiment = experiment_of("bart", "team/tiny-bart")
begin = time.monotonic()
load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)
print("loaded", flush=True)
assert time.monotonic() - begin < 30
"""


@pytest.fixture
def cached(checkpoints, tmp_path) -> Path:
    """Make the hub's cache as it is after ``team/tiny-bart`` was fetched."""
    commit = "0123456789abcdef" * 2 + "01234567"
    model = tmp_path / "hub" / "models--team--tiny-bart"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots").mkdir()
    (model / "snapshots" / commit).symlink_to(checkpoints["bart"])
    return tmp_path / "hub"


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("http://127.0.0.1:9", id="refused"),
        pytest.param("https://hub.invalid", id="no name", marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_is_out_of_reach_stops_no_model_that_was_fetched_before(
    cached: Path, endpoint: str
) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_HUB_CACHE": str(cached), "HF_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "loaded" in ended.stdout
    assert f"the model hub {endpoint} is out of reach" in ended.stderr
