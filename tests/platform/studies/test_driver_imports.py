"""The driver of a study trains nothing, and does not wait for what only a trial needs."""

from __future__ import annotations

import subprocess
import sys

LOOKS = """
import sys
import dure.studies.adapter
from ray import tune
from ray.tune.tune import air_usage
counted = air_usage.tag_callbacks([tune.Callback()])
names = ("transformers.trainer", "transformers.modeling_utils", "peft", "bitsandbytes", "mlflow", "wandb", "deepspeed")
print(counted, *(name for name in names if name in sys.modules))
"""


def test_the_driver_imports_no_trainer_and_ray_no_tracker_to_count_callbacks() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"], done.stdout
