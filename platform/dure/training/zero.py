"""Training with DeepSpeed: its process, its part of the trainer, and how a run goes on with other workers.

DeepSpeed gets a model that is loaded whole on every worker and shares it out at the first step, so that new rows,
adapters and miniatures are made as in any run. All else that it leaves is as without it: a checkpoint holds
:data:`WEIGHTS_FILE` with the whole weights in fp32 beside the parts of every worker.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate.utils.other as unwrapping
import torch

from dure.config.deepspeed import deepspeed_settings
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.events import Notify
from dure.files import read_json, write_json
from dure.modeling.precision import Precision
from dure.modeling.replaced import replaced
from dure.modeling.weights import check_finite, load_weights, save_weights, write_weights
from dure.runs.checkpoints import AVERAGE_FILE, RUNNING_LOSS_FILE, STATE_FILE, WEIGHTS_FILE, checkpoint_name
from dure.training.captured import OPTIMIZER_FILE, SCHEDULER_FILE
from dure.training.recovery import STATE_FILE as RECOVERY_FILE

_WRITTEN_FILE = "deepspeed.json"
"""How the parts in a checkpoint were shared out."""

# Every trainer asks whether its model is DeepSpeed's, and would import that for it: 1.1 CPU seconds, with MLflow in them.
# A model that is has imported it.
unwrapping.is_deepspeed_available = lambda: sys.modules.get("deepspeed") is not None


def settings_of(experiment: Experiment, profile: Profile, precision: Precision) -> dict[str, Any] | None:
    """Return the DeepSpeed settings of a profile, ready for ``TrainingArguments``, or None; before the model is made.

    In bf16 the weights stay in fp32 and compute under autocast, as they do without DeepSpeed. Its own ``bf16`` makes
    the whole model bf16: norms, residuals and the gradients of accumulated passes too.

    Raises:
        UserError: DeepSpeed is not installed, the settings are wrong, or the model cannot be shared out.
    """
    if profile.deepspeed is None:
        return None
    where = f"profile {profile.name}: deepspeed"
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "DeepSpeed is not installed on this machine",
            where=where,
            hint="pip install 'deepspeed>=0.19' (Linux only), or a profile without deepspeed",
        )
    settings = deepspeed_settings(profile.deepspeed)
    if settings["zero_optimization"]["stage"] == 3 and experiment.model.quantization and profile.quantization:
        raise UserError(
            "ZeRO 3 cannot share out 4-bit weights",
            where=where,
            expected="zero2 for QLoRA",
            hint="a profile with quantization: false trains LoRA on whole weights",
        )
    # By itself it sends the weights of linear layers in bf16, and adds up their gradients in it.
    more = {"lower_precision_safe_modules": []} | settings.get("torch_autocast", {})
    settings["torch_autocast"] = more | {"enabled": precision == "bf16", "dtype": "bfloat16"}
    settings["bf16"] = {"enabled": False}
    if profile.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    return settings


@dataclass(frozen=True)
class Written:
    """How a checkpoint was shared out."""

    stage: int
    """ZeRO stage."""
    num_workers: int
    """Workers that wrote it."""
    precision: str
    """What they computed in."""

    def joins(self, other: Written) -> bool:
        """Return whether the parts can be joined for other workers: not from stages that keep other parts."""
        kinds = [(each.stage == 3, each.precision) for each in (self, other)]
        return kinds[0] == kinds[1] and 0 not in (self.stage, other.stage)

    def write(self, checkpoint: Path) -> None:
        """Put this beside the parts."""
        write_json(checkpoint / _WRITTEN_FILE, vars(self))

    @classmethod
    def read(cls, checkpoint: Path) -> Written | None:
        """Return how a checkpoint was shared out; None when it is one without DeepSpeed."""
        path = checkpoint / _WRITTEN_FILE
        return cls(**read_json(path, what="record of a checkpoint")) if path.is_file() else None


def written_by(settings: Mapping[str, Any] | None, num_workers: int, precision: str) -> Written | None:
    """Return how a run with these settings of DeepSpeed shares out its weights; None without settings."""
    return (
        None if settings is None else Written(settings["zero_optimization"]["stage"], num_workers, precision)
    )


@dataclass(frozen=True)
class Continuation:
    """What a run goes on with."""

    path: Path
    """Folder with the trainer's state."""
    weights_only: bool = False
    """Whether only the weights go on, and the optimizer's moments start again."""
    is_universal: bool = False
    """Whether the parts in it fit any number of workers."""


@contextmanager
def continuation(
    checkpoint: Path, now: Written | None, *, is_main: bool, notify: Notify
) -> Iterator[Continuation]:
    """Give what a run goes on with; a folder that was made for it is removed at the end.

    Weights are shared out as ``now`` says, and not at all without it. ``notify`` gets one line when something else than
    the run's own parts is used.
    """
    then = Written.read(checkpoint)
    if then is None and not (checkpoint / OPTIMIZER_FILE).is_file():
        notify(
            f"{checkpoint.name} holds the weights of an epoch and no optimizer: the learning-rate schedule goes on at "
            "its step, the moments of the optimizer begin anew"
        )
        yield Continuation(checkpoint, weights_only=True)
        return
    if then == now:
        yield Continuation(checkpoint)
        return
    if then is None or now is None or not then.joins(now):
        notify(
            f"{checkpoint.name} was written {_described(then)} and goes on {_described(now)}: its weights and the "
            "learning-rate schedule go on, the moments of the optimizer begin anew"
        )
        yield Continuation(checkpoint, weights_only=True)
        return
    notify(
        f"{checkpoint.name} was written {_described(then)} and goes on {_described(now)}: its parts are joined"
    )
    folder = checkpoint.parent / f".{checkpoint.name}.universal"
    if is_main:
        _make_universal(checkpoint, folder)
    torch.distributed.barrier()
    try:
        yield Continuation(folder, is_universal=True)
    finally:
        if is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _described(written: Written | None) -> str:
    if written is None:
        return "without DeepSpeed"
    return f"by {written.num_workers} worker(s) with ZeRO {written.stage} in {written.precision}"


def _make_universal(checkpoint: Path, folder: Path) -> None:
    """Join the parts of all workers, parameter by parameter, beside the rest of a checkpoint."""
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != WEIGHTS_FILE:
            shutil.copy2(path, folder)
    parts = next(checkpoint.glob("global_step*"))
    ds_to_universal.main(
        argparse.Namespace(
            input_folder=str(parts),
            output_folder=str(folder / f"{parts.name}_universal"),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )


class SharedOutTraining:
    """What the trainers do otherwise when DeepSpeed has shared out the model; mixed in before ``Trainer``."""

    continues: Continuation | None = None
    """What the run goes on with."""

    def _prepare_for_training(self: Any, max_steps: int, loader: Any, checkpoint: str | None) -> Any:
        """Wrap the model and go on as ``continues`` says."""
        going_on = self.continues
        is_universal = going_on is not None and going_on.is_universal
        groups = self._optimizer_groups() if is_universal else []
        if is_universal:
            self.args.hf_deepspeed_config.config["checkpoint"] = {"load_universal": True}
        if going_on is not None and going_on.weights_only:
            checkpoint = None
            if self.parts.written is not None:
                self._keep_best_readable(going_on.path)
            self._load_from_checkpoint(str(going_on.path))
        prepared = super()._prepare_for_training(max_steps, loader, checkpoint)  # type: ignore[misc]
        if is_universal:
            self._part_groups(groups)
        if going_on is not None and (going_on.weights_only or going_on.is_universal):
            self._set_schedule(going_on.path)
        if self.parts.average is not None:
            self.parts.average.share_out()
        return prepared

    def _keep_best_readable(self: Any, checkpoint: Path) -> None:
        """Put the whole weights into the best checkpoint while the model is whole and can still read it."""
        step = read_json(checkpoint / STATE_FILE, what="record of a checkpoint")["best_global_step"]
        best = checkpoint.parent / checkpoint_name(step) if step else checkpoint
        if self.args.should_save and best.is_dir() and not (best / WEIGHTS_FILE).is_file():
            self._load_from_checkpoint(str(best))
            write_weights(self.model, best / WEIGHTS_FILE, {})
        self.accelerator.wait_for_everyone()

    def _optimizer_groups(self: Any) -> list[dict[str, Any]]:
        optimizer = self.create_optimizer()
        self.optimizer = None
        return [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]

    def _part_groups(self: Any, groups: list[dict[str, Any]]) -> None:
        """Mend what DeepSpeed 0.19 loads under ZeRO 3 from parts that were joined.

        It gives all groups of the optimizer the settings of the first one, so that norms decay too, and all tensors
        one step counter, which AdamW then raises once for each of them.
        """
        for group, settings in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        for state in self.optimizer.optimizer.optimizer.state.values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()

    def _set_schedule(self: Any, folder: Path) -> None:
        """Take up the schedule without the optimizer that it belonged to; at the step alone where nothing is kept."""
        file = folder / SCHEDULER_FILE
        if file.is_file():
            state = torch.load(file, weights_only=True)
        else:
            step = read_json(folder / STATE_FILE, what="record of a checkpoint")["global_step"]
            rates = zip(self.lr_scheduler.base_lrs, self.lr_scheduler.lr_lambdas, strict=True)
            last = [base * factor(step) for base, factor in rates]
            state = self.lr_scheduler.state_dict()
            state |= {"last_epoch": step, "_step_count": step + 1, "_last_lr": last}
        self.lr_scheduler.load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _write_parts(self: Any, folder: Path) -> None:
        """Write this worker's part of a checkpoint; the main one writes what they all share, too."""
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        if self.parts.average is not None:
            self.parts.average.save(folder / AVERAGE_FILE, is_main=self.args.should_save)
        sums = self.running_loss.sums() if self.parts.stopping.is_extra else None
        if self.args.should_save:
            write_json(folder / RECOVERY_FILE, self.parts.recovery.state())
            if sums is not None:
                torch.save(sums, folder / RUNNING_LOSS_FILE)

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, whole, by the main worker."""
        if self.parts.written is None:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
            return
        folder = Path(output_dir or self.args.output_dir)
        save_weights(self.model, folder / WEIGHTS_FILE, {}, is_main=self.args.should_save)
        if self.args.should_save:
            self.parts.written.write(folder)

    def _load_from_checkpoint(self: Any, folder: str, model: Any = None) -> None:
        """Load the weights of a checkpoint into the model, however either is shared out."""
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file():
            load_weights(self.model, path)
        else:
            super()._load_from_checkpoint(folder, model)  # type: ignore[misc]
            hint = f"move {path.parent.name} out of the run's folder, and --resume takes the checkpoint before it"
            check_finite(dict(self.model.named_parameters()), str(path.parent), hint)

    def _load_best_model(self: Any) -> None:
        """Load the weights of the best checkpoint, which other workers may have written."""
        best = Path(self.state.best_model_checkpoint)
        if self.parts.written is None and not (best / WEIGHTS_FILE).is_file():
            super()._load_best_model()  # type: ignore[misc]
        else:
            self._load_from_checkpoint(str(best))

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict and score all rows; a model that was never trained here is shared out under ZeRO 3 only."""
        is_plain = self.parts.written is not None and self.deepspeed is None and self.parts.written.stage < 3
        is_shared = self.parts.written is not None and not is_plain
        # DeepSpeed's autocast is only around passes through its engine, and text is generated beside it.
        is_bf16 = self.parts.written is not None and self.parts.written.precision == "bf16"
        cast = torch.autocast(self.args.device.type, torch.bfloat16) if is_bf16 else nullcontext()
        with replaced(self, "is_deepspeed_enabled", is_shared), cast:
            return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]

    def stop_sharing(self: Any) -> None:
        """Take DeepSpeed's hooks off the model, which then no longer gathers weights; nothing is trained after."""
        optimizer = getattr(self.deepspeed, "optimizer", None)
        # Of a model that only predicts here this stands in the place of the optimizer.
        offload = getattr(optimizer, "parameter_offload", optimizer)
        if offload is not None and hasattr(offload, "_remove_module_hooks"):
            offload._remove_module_hooks()
