"""Training needs torch, transformers and the data; nothing else has to be installed where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dure.config import dump_yaml

ABSENT = ("ray", "kiwipiepy", "bitsandbytes", "deepspeed", "optuna", "wandb")

PROGRAM = """
import json, pkgutil, sys
from importlib import import_module
from pathlib import Path

absent, folder = sys.argv[1].split(","), Path(sys.argv[2])


class Without:
    '''A finder of modules, to which some packages are not installed.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import dure, dure.training
from dure.config import load_experiment, load_profile
from dure.errors import UserError
from dure.family import load_family
from dure.training.run import RunRequest, run

for module in pkgutil.iter_modules(dure.training.__path__):
    import_module(f"dure.training.{module.name}")
experiment = load_experiment(str(folder / "experiment.yaml"))
result = run(RunRequest(experiment, load_profile("cpu"), folder / "run"))
said = {"state": result.state, "present": [name for name in sys.modules if name.partition(".")[0] in absent]}
try:
    load_family(load_experiment(str(folder / "experiment.yaml"), ["task.rouge_tokenizer=morpheme"]))
except UserError as error:
    said["refused"] = str(error)
(folder / "said.json").write_text(json.dumps(said))
"""


def test_a_run_is_trained_and_saved_without_what_studies_need(tiny, tmp_path) -> None:
    experiment = tiny("t5", "lora", max_steps=2, eval_every=1)
    (tmp_path / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(ABSENT), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert said["state"] == "completed"
    assert said["present"] == []
    assert (tmp_path / "run" / "final_model" / "model.safetensors").is_file()
    assert "task.rouge_tokenizer" in said["refused"]
    assert "pip install kiwipiepy" in said["refused"]
