"""Run by a process that is killed: a training whose second checkpoint is never written to its end.

Arguments: the experiment's YAML and the folder of the run. When the model of that checkpoint is written, ``half_written``
appears in the folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dure.config import load_experiment, load_profile
from dure.training.captured import Captured
from dure.training.run import RunRequest, run

FILE = "half_written"


def main() -> None:
    """Train, and stay in the thread that writes."""
    path = Path(sys.argv[2])
    write = Captured.write

    def slow(captured: Captured, folder: Path, write_model) -> None:
        if folder.name != ".checkpoint-4.part":
            write(captured, folder, write_model)
            return
        write_model(str(folder), dict(captured.weights))
        (path / FILE).touch()
        time.sleep(600)

    Captured.write = slow
    run(RunRequest(load_experiment(sys.argv[1]), load_profile("cpu"), path))


if __name__ == "__main__":
    main()
