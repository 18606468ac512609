"""Inject faults into real studies and check that each ends as an undisturbed one: ``make faults``.

    python -m tests.faults [--only TEXT …] [--keep DIR] [--list]

Each study runs once undisturbed. Then it is run anew for every fault, disturbed at the moment that the fault needs, and
seen to its end, by itself or with ``--resume``. On a CPU in fp32 every loss, score and weight must then be the same, bit
for bit, no process may be left, and at most two checkpoint intervals of work may have been done twice: a checkpoint is
written while training goes on, and the last step before the next one waits for it (three, when the newest checkpoint
itself is what broke). The table goes to stderr and the JSON to stdout; exit 1 when a fault was not survived.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.results import difference, results_of
from tests.faults.scene import FaultError, Scene
from tests.faults.studies import STUDIES, write_files
from tests.faults.suite import FAULTS, Fault


def main() -> int:
    """Run the faults that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="faults whose name holds one of these texts")
    parser.add_argument("--keep", type=Path, help="folder in which everything stays, for the next call too")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    options = parser.parse_args()
    chosen = [
        fault
        for fault in FAULTS
        if not options.only or any(text in f"{fault.study}: {fault.name}" for text in options.only)
    ]
    if options.list:
        print("\n".join(f"{fault.study}: {fault.name}" for fault in chosen))
        return 0
    screen = Console(stderr=True, width=130)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="dure-faults-"))
    environment = {"DURE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    references: dict[str, Any] = {}
    rows = []
    for number, fault in enumerate(chosen, start=1):
        if fault.study not in references:
            references[fault.study] = undisturbed(fault.study, folder, environment, screen)
        scene_folder = folder / f"{FAULTS.index(fault) + 1:02d}"
        row = disturbed(fault, references[fault.study], scene_folder, environment)
        rows.append(row)
        screen.print(f"{number}/{len(chosen)} {_line(row)}", highlight=False, markup=False)
    screen.print(_table(rows))
    print(json.dumps(rows, ensure_ascii=False, indent=2))
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(row["survived"] for row in rows) else 1


def undisturbed(study: str, folder: Path, environment: dict[str, str], screen: Console) -> dict[str, Any]:
    """Run a study without a fault and return what it left; one that was kept is not run again."""
    scene = Scene(STUDIES[study], folder / study, dict(environment))
    if (folder / f"{study}.whole").exists():
        return results_of(scene.output)
    write_files(scene.folder)
    began = time.monotonic()
    scene.start()
    scene.finish()
    (folder / f"{study}.whole").touch()
    screen.print(f"{study}: {time.monotonic() - began:.0f} s undisturbed", highlight=False)
    return results_of(scene.output)


def disturbed(
    fault: Fault, expected: dict[str, Any], folder: Path, environment: dict[str, str]
) -> dict[str, Any]:
    """Run a study with a fault and return its row of the table."""
    shutil.rmtree(folder, ignore_errors=True)
    scene = Scene(STUDIES[fault.study], folder, dict(environment))
    write_files(scene.folder)
    began = time.monotonic()
    wrong: str | None = None
    try:
        fault.happen(scene)
        wrong = difference(expected, results_of(scene.output))
        if wrong is None and scene.recovery.steps_again > (fault.intervals + 1) * scene.study.interval:
            wrong = f"{scene.recovery.steps_again} steps were done again"
    except FaultError as error:
        wrong = str(error)
    finally:
        scene.clean_up()
    return {
        "study": fault.study,
        "fault": fault.name,
        "survived": wrong is None,
        "recovery_seconds": None if scene.recovery.seconds is None else round(scene.recovery.seconds, 1),
        "steps_again": scene.recovery.steps_again,
        "seconds": round(time.monotonic() - began, 1),
        "wrong": wrong,
    }


def _line(row: dict[str, Any]) -> str:
    said = "survived" if row["survived"] else f"NOT SURVIVED: {row['wrong']}"
    return f"{row['study']}: {row['fault']}: {said} ({row['seconds']:.0f} s)"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{sum(row['survived'] for row in rows)} of {len(rows)} faults survived")
    for name in ("study", "fault", "result"):
        table.add_column(name)
    for name in ("until it goes on", "steps again", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        seconds = row["recovery_seconds"]
        table.add_row(
            row["study"],
            row["fault"],
            "identical" if row["survived"] else "WRONG",
            "–" if seconds is None else f"{seconds:.1f} s",
            str(row["steps_again"]),
            f"{row['seconds']:.0f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
