"""What --background does: the command goes on as a job of a cluster that dure keeps on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dure.cli.app import VERBS
from dure.cli.printing import print_result
from dure.errors import UserError


def run_in_background(words: Sequence[str]) -> int:
    """Run a command as a job of a cluster that dure keeps on this machine; what --background does.

    Returns once the command works in its folder, with the exit code of the terminal's command.
    """
    from dure.jobs.starting import start

    verb = next((word for word in words if not word.startswith("-")), "")
    able = [name for name, each in VERBS.items() if each.background]
    if verb not in able:
        raise UserError(
            f"'{verb}' runs in the terminal only",
            where="--background",
            expected=f"one of: {', '.join(able)}",
        )
    started = start(words)
    job = started.job
    holder = started.holder
    if holder is None:
        # It ended before it began to work: what it said, after what Ray says of every job, is the answer.
        said = started.log.read_text(encoding="utf-8", errors="replace")
        show(said.partition("Running entrypoint for job")[2].partition("\n")[2] or said)
        return 1 if job.exit_code is None else job.exit_code
    print_result(
        {"job": job.id, "pid": holder.pid, "path": holder.path, "log": str(started.log)},
        f"job {job.id}, process {holder.pid}, works in {holder.path}\n  follow: dure logs {job.id} --follow\n"
        f"  log:    {started.log}\n  stop:   dure stop {job.id}",
        as_json="--json" in words,
    )
    return 0


def show(text: str) -> None:
    """Show what a job has printed."""
    print(text, end="", file=sys.stderr, flush=True)
