"""The validation before the first step, computed once for all trials of a study that begin with the same model.

A search over learning rates validates one untrained model in every trial. What decides the numbers is hashed: weights,
configuration, rows, decoding, metrics, precision, threads, libraries, and the state of the random numbers, which is put to
where the validation would have left it. So a trial that takes the numbers from here has those that it would have computed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import EvalLoopOutput

from dure.config.schema import Experiment
from dure.family import Family
from dure.files import read_json, write_json
from dure.runs.budget import study_of
from dure.runs.environment import device_name

_DECIDES = ("family", "task", "tokenizer", "generation", "model", "lora", "rehearsal")
"""Sections of an experiment on which its untrained model, its text or its scores depend."""


class UntrainedScores:
    """Keeps the scores of untrained models in the folder of a study, by what they are computed from."""

    def __init__(self, folder: Path, family: Family) -> None:
        self._folder = folder
        self._family = family

    @classmethod
    def shared_by(cls, run: Path, family: Family, num_workers: int) -> UntrainedScores | None:
        """Return those of the study that a run belongs to; None where nobody would share them."""
        study = study_of(run)
        return None if study == run or num_workers > 1 else cls(study / ".untrained", family)

    def of(self, trainer: Any, compute: Callable[[], EvalLoopOutput]) -> EvalLoopOutput:
        """Return what the trainer's validation computes, or what it would."""
        file = self._folder / f"{self._hash(trainer)}.json"
        if file.is_file():
            kept = read_json(file, what="the scores of an untrained model", hint="remove it")
            torch.set_rng_state(torch.tensor(list(bytes.fromhex(kept["random"])), dtype=torch.uint8))
            return EvalLoopOutput(None, None, kept["metrics"], len(trainer.eval_dataset))
        output = compute()
        random = bytes(torch.get_rng_state().numpy()).hex()
        with suppress(OSError):  # a full disk: the next trial computes them itself
            self._folder.mkdir(exist_ok=True)
            write_json(file, {"metrics": output.metrics, "random": random})
        return output

    def _hash(self, trainer: Any) -> str:
        digest = hashlib.blake2b(digest_size=20)
        for name, tensor in trainer.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        model, args, family = trainer.model, trainer.args, self._family
        experiment: Experiment = family.experiment
        decides = {
            "rows": trainer.eval_dataset[:],
            # A miniature's path is another one every time; what it holds is hashed.
            "config": model.config.to_dict() | {"_name_or_path": None},
            "decoding": model.generation_config.to_dict() if family.validates == "text" else None,
            "experiment": {name: experiment.model_dump(mode="json")[name] for name in _DECIDES},
            "metrics": [
                family.metric_notes(),
                Path(inspect.getfile(type(family))).read_text(encoding="utf-8"),
            ],
            "batch": args.per_device_eval_batch_size,
            "precision": [args.bf16, args.fp16],
            "machine": [device_name(args.device.type), torch.get_num_threads()],
            "libraries": [version(name) for name in ("dure", "torch", "transformers", "peft")],
        }
        digest.update(json.dumps(decides, sort_keys=True, default=str).encode())
        digest.update(torch.get_rng_state().numpy().data)
        return digest.hexdigest()
