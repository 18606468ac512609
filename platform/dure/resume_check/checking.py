"""The check: one training undisturbed, the same cut again and again, and what differs between the two."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.events import Notify
from dure.files import write_json, write_text
from dure.resume_check.sessions import drawn_cuts, run_session

TOLERANCE = 1e-3
"""Largest relative difference that passes where kernels add in no fixed order."""
RESULTS = "verify_resume.json"
_EPOCHS, _VALIDATIONS, _DEV_ROWS = 2.5, 4, 64


def shortened(experiment: Experiment, num_steps: int) -> Experiment:
    """Return an experiment as a training of so many steps, with validations and ends of epochs among them.

    Raises:
        UserError: These are too few to be cut.
    """
    if num_steps < 2:
        raise UserError(f"{num_steps} steps cannot be cut", where="--steps", expected="2 or more")
    training, data = experiment.training, experiment.data
    rows = max(1, round(num_steps / _EPOCHS)) * training.effective_batch_size
    warmup = training.warmup_steps
    return experiment.with_(
        {
            "training.epochs": num_steps,
            "training.max_steps": num_steps,
            "training.eval_every": max(2, num_steps // _VALIDATIONS),
            "training.log_every": 1,
            "training.warmup_steps": None if warmup is None else min(warmup, num_steps // 10),
            "data.max_train_rows": min(rows, data.max_train_rows or rows),
            "data.max_dev_rows": min(_DEV_ROWS, data.max_dev_rows or _DEV_ROWS),
            "wandb.enabled": False,
            "tracking": [],
        },
        "--steps",
    )


def verify_resume(
    experiment: Experiment, *, profile: Profile, path: Path, num_kills: int = 3, seed: int = 0, notify: Notify
) -> dict[str, Any]:
    """Train undisturbed, train again with cuts, compare, and say where exactness cannot be promised.

    The folder keeps both runs, the log of their sessions and ``verify_resume.json``. The second training is killed
    ``num_kills`` times, beside one ``SIGTERM``, at steps that are drawn by ``seed``.

    Returns:
        ``is_identical``, ``is_exact_promised``, ``tolerance``, ``passed``, ``cuts``, ``comparisons`` (one entry per
        thing compared), ``caveats`` and ``path``.

    Raises:
        UserError: More cuts are asked for than there are steps between.
        RunError: A session failed by itself.
    """
    from dure.resume_check.comparison import compare_runs

    num_steps = experiment.training.max_steps or 0
    if not 0 <= num_kills <= num_steps - 2:
        raise UserError(
            f"{num_steps} steps cannot be cut {num_kills + 1} times",
            where=f"--kills {num_kills}",
            expected=f"a number from 0 to {num_steps - 2}, or more --steps",
        )
    files = {"experiment": path / "checked.yaml", "profile": path / "profile.yaml"}
    write_text(files["experiment"], dump_yaml(experiment))
    write_text(files["profile"], dump_yaml(profile))
    log, whole, cut_run = path / "sessions.log", path / "undisturbed", path / "cut"

    notify(f"undisturbed: {num_steps} steps (its progress is in {log})")
    run_session(files["experiment"], files["profile"], whole, log, None)
    cuts = drawn_cuts(num_steps, num_kills, seed)
    for number, cut in enumerate(cuts, 1):
        notify(f"session {number} of {len(cuts) + 1}: {cut.number.name} at step {cut.step}")
        if run_session(files["experiment"], files["profile"], cut_run, log, cut):
            notify(f"it came to its end before step {cut.step}")
            break
    else:
        notify(f"session {len(cuts) + 1} of {len(cuts) + 1}: to the end")
        run_session(files["experiment"], files["profile"], cut_run, log, None)

    found = compare_runs(whole, cut_run)
    is_exact_promised = profile.device == "cpu"
    is_identical = all(each.is_equal for each in found)
    is_close = all(
        each.is_equal or (each.difference is not None and each.difference <= TOLERANCE) for each in found
    )
    record = {
        "name": experiment.name,
        "path": str(path),
        "steps": num_steps,
        "seed": seed,
        "is_identical": is_identical,
        "is_exact_promised": is_exact_promised,
        "tolerance": 0.0 if is_exact_promised else TOLERANCE,
        "passed": is_identical if is_exact_promised else is_close,
        "cuts": [{"step": cut.step, "signal": cut.number.name} for cut in cuts],
        "comparisons": [asdict(each) for each in found],
        "caveats": caveats(experiment, profile),
    }
    write_json(path / RESULTS, record)
    return record


def caveats(experiment: Experiment, profile: Profile) -> list[str]:
    """Return where a resumed run of an experiment on a machine is not promised to be exact, and why."""
    training = experiment.training
    found = [
        f"another number of workers than {profile.num_workers}: gradients are added in another order, and dropout "
        "is drawn by each worker for its own rows",
        "another kind of machine, or other versions of torch and its libraries: they round in other places",
    ]
    if profile.device != "cpu":
        found.append(
            f"on {profile.device}: kernels that add by atomics, such as the gradients of embeddings and of "
            f"attention, sum in no fixed order; what differs by less than {TOLERANCE:g} passes here"
        )
    if training.precision == "fp16" or (training.precision == "auto" and profile.precision == "fp16"):
        found.append(
            "fp16: the scaler is kept, but a step that leaves its range on one side only is skipped there"
        )
    if training.num_data_workers:
        found.append(
            "num_data_workers: dure's own collators draw no random numbers; one that does would begin anew"
        )
    if training.on_oom != "error":
        found.append(
            f"on_oom={training.on_oom}: a step that ran out of memory is computed in other pieces, whose dropout "
            "is another"
        )
    if profile.deepspeed is not None:
        found.append(
            "DeepSpeed: the parts of the optimizer on every worker are not compared here, losses and weights are"
        )
    return found
