"""What is predicted of a table so far: blocks of rows in a folder beside the output, so that a killed command goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.errors import UserError
from dure.files import (
    hash_of,
    make_folder,
    read_json,
    read_json_lines,
    remove_leftovers,
    write_json,
    written_beside,
)
from dure.runs.folder import EVENTS_FILE

BLOCK_ROWS = 2048
"""Rows that are predicted by themselves. Batches lie within a block, so that whoever predicts it sees the same ones."""
_PLAN = "prediction.json"
_DONE = "written.json"
_LOCK = ".lock"
_BLOCK = re.compile(r"\d+-\d+\.jsonl")
_REMEDY = "--resume goes on with it, --force begins anew"


class PredictedBlocks:
    """The predictions of every block by every model.

    They lie in a folder beside the output that all of them go into in the end, called like it, with ``.parts``.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.parts")
        self._output = output

    def check(self, *, resume: bool, force: bool) -> None:
        """Check that nothing is lost when the folder is written to.

        Raises:
            UserError: It holds what somebody else wrote, or what an earlier command has begun.
        """
        if not self.folder.exists():
            return
        ours = (_PLAN, _DONE, _LOCK, EVENTS_FILE, self._output.name)
        inside = [file.name for file in self.folder.iterdir()] if self.folder.is_dir() else []
        strange = [name for name in inside if not (name in ours or name[0] == "." or _BLOCK.fullmatch(name))]
        if strange or not self.folder.is_dir() or (self._blocks() and not self._plan.is_file()):
            raise UserError(
                "it is not what dure keeps of a prediction, which would go there",
                where=str(self.folder),
                hint="another --output",
            )
        if self._plan.is_file() and not resume and not force:
            raise UserError(
                f"an earlier command has predicted {len(self._blocks()):,} blocks of it and did not end ({self.folder})",
                where=f"--output {self._output}",
                hint=_REMEDY,
            )

    def finished(self) -> dict[str, Any] | None:
        """Return what an earlier command said that was ended just after it gave the output its name."""
        done = self.folder / _DONE
        if not done.is_file() or not self._output.is_file():
            return None
        said = read_json(done, what="record of a prediction")
        if said["hash"] != hash_of(self._output):
            return None
        self.remove()
        outcome: dict[str, Any] = said["outcome"]
        return outcome

    @contextmanager
    def held(self, facts: Mapping[str, Any], threads: int, *, resume: bool) -> Iterator[int]:
        """Work in the folder; without ``resume`` what is there goes first. An empty folder goes in the end.

        ``facts`` are what decides the predictions, by the words that name it.

        Yields:
            The threads to compute with: those that the blocks that are there were computed with.

        Raises:
            UserError: Another process works there, or what is there was predicted of something else.
        """
        make_folder(self.folder, where=f"--output {self._output}")
        with (self.folder / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another command predicts into this file", where=f"--output {self._output}"
                ) from None
            remove_leftovers(self.folder)
            if not resume:
                self._empty()
            try:
                if self._plan.is_file():
                    threads = self._continued(facts)
                else:
                    write_json(self._plan, {**facts, "threads": threads})
                yield threads
            finally:
                if self.folder.is_dir() and not self._blocks():
                    self.remove()

    def missing(self, model: int, num_blocks: int) -> list[int]:
        """Return the blocks that a model has not predicted."""
        return [block for block in range(num_blocks) if not self._file(model, block).is_file()]

    def write(self, model: int, block: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a model predicts of the rows of a block, in their order."""
        with written_beside(self._file(model, block)) as beside:
            beside.write_text("".join(f"{json.dumps(each)}\n" for each in predictions), encoding="utf-8")

    def read(self, model: int, block: int) -> list[dict[str, Any]]:
        """Return what :meth:`write` kept."""
        return read_json_lines(self._file(model, block))

    @property
    def whole(self) -> Path:
        """Where the output is put together."""
        return self.folder / self._output.name

    def publish(self, outcome: Mapping[str, Any]) -> None:
        """Give the whole output its name, and remove the folder.

        The outcome is what the command says, and says again where it is killed before the folder is gone.
        """
        write_json(self.folder / _DONE, {"hash": hash_of(self.whole), "outcome": outcome})
        self.whole.replace(self._output)
        self.remove()

    def remove(self) -> None:
        """Remove the folder and what dure wrote there."""
        self._empty()
        (self.folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put something there meanwhile
            self.folder.rmdir()

    def __len__(self) -> int:
        return len(self._blocks())

    @property
    def _plan(self) -> Path:
        return self.folder / _PLAN

    def _file(self, model: int, block: int) -> Path:
        return self.folder / f"{model}-{block}.jsonl"

    def _blocks(self) -> list[Path]:
        files = self.folder.glob("*.jsonl") if self.folder.is_dir() else ()
        return [file for file in files if _BLOCK.fullmatch(file.name)]

    def _empty(self) -> None:
        # The plan goes last: without it, blocks are not known for what they are.
        for file in (*self._blocks(), self.whole, *map(self.folder.joinpath, (_DONE, EVENTS_FILE, _PLAN))):
            file.unlink(missing_ok=True)

    def _continued(self, facts: Mapping[str, Any]) -> int:
        before = read_json(self._plan, what="record of a prediction", hint="--force begins anew")
        for name, now in facts.items():
            if before.get(name) != now:
                raise UserError(
                    f"{name} changed since this prediction began",
                    where=f"--output {self._output}",
                    expected="what does not change a prediction: --workers, --address",
                    hint="--force in place of --resume begins anew",
                )
        return int(before["threads"])
