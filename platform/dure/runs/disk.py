"""Room on the disk: looked for before anything large is written, and waited for when there is none."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate.state import PartialState

from dure.config.storage import StorageConfig
from dure.errors import DureError, RunError, UserError
from dure.files import existing, in_bytes, is_disk_full
from dure.runs.agreement import by_main, first_said
from dure.runs.budget import bytes_in, collect, study_of
from dure.runs.forecast import Forecast

logger = logging.getLogger(__name__)

RESERVE_BYTES = 16_000_000
"""What stays free beside whatever is written, for records and logs."""
_SPARE = 1.1
"""How much larger than the last one the next checkpoint is expected to be at most."""


class DiskRoom:
    """Makes sure that what a run writes finds room: it deletes what may go, waits for more, and writes again.

    A run of several workers looks at the disk by its main worker, and all of them wait together.

    Args:
        folder: Folder of the run.
        storage: The machine's budget and patience.
        notify: Gets one line when the run pauses, once a minute while it does, and when it goes on.
        can_repeat: Whether a write that was cut can be done again; not where workers write parts in step.
        check_stop: Raises what ends the run when a stop was asked for; collective, called while it waits.
    """

    look_seconds = 5.0
    say_seconds = 60.0

    def __init__(
        self,
        folder: Path,
        storage: StorageConfig,
        *,
        notify: Callable[[str], None],
        can_repeat: bool = True,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.storage = storage
        self.study = study_of(folder)
        self._tell = notify
        self._can_repeat = can_repeat
        self._check_stop = check_stop
        self._paused_at: float | None = None
        self._said_at = 0.0

    def check(self, foretold: Forecast, written: int, *, has_trained: bool = False) -> None:
        """Check before a run that what it will keep fits.

        ``written`` bytes of it are there already; after training (``has_trained``) only the final model is still to be
        written.

        Raises:
            UserError: It does not fit onto the disk, or into the budget by any means.
        """
        free, needed = self._free(), foretold.final_model if has_trained else foretold.disk - written
        if needed > free:
            raise UserError(
                f"{in_bytes(free)} are free, and the run needs {in_bytes(needed)}: {foretold.words}",
                where=str(self.folder),
                hint="free some, --output elsewhere, or smaller training.save_total_limit and keep_epochs_limit",
            )
        if self._budget is not None and foretold.least > self._budget:
            raise UserError(
                f"a single run needs {in_bytes(foretold.least)} at least, more than storage.max_gb "
                f"{self.storage.max_gb:g}",
                where="storage.max_gb of the profile",
                expected=f"{foretold.least / 1e9:.3g} or more, for each run side by side",
            )

    def write(
        self,
        what: str,
        num_bytes: int,
        steps: Sequence[Callable[[], None]],
        *,
        clean: Callable[[], None] = lambda: None,
    ) -> None:
        """Write something when there is room for it, and again when the disk got full meanwhile; collective.

        Every worker has ended a step before one begins the next. ``clean`` removes what a step that failed has left;
        the main worker calls it.

        Raises:
            RunError: There was no room for as long as the machine's profile waits.
            KeyboardInterrupt: A stop was asked for meanwhile.
        """
        needed = int(num_bytes * _SPARE) + RESERVE_BYTES
        while True:
            while (lack := by_main(lambda: self._lack(what, needed))) is not None:
                self._pause(lack)
            failures = (first_said(self._attempt(what, step)) for step in steps)
            failure = next((each for each in failures if each is not None), None)
            if failure is None:
                by_main(self._go_on)
                return
            by_main(clean)
            self._pause(failure)

    def try_once(
        self, what: str, num_bytes: int, step: Callable[[], None], *, clean: Callable[[], None]
    ) -> str | None:
        """Write something by one worker, wait for nothing, and return in words how the disk did not suffice, if so."""
        failure = self._lack(what, int(num_bytes * _SPARE) + RESERVE_BYTES)
        if failure is None and (failure := self._attempt(what, step)) is not None:
            clean()
        return failure

    def write_alone(self, what: str, step: Callable[[], None]) -> None:
        """Write something small, by one worker, and again when the disk is full.

        Raises:
            RunError: It stayed full for as long as the machine's profile waits.
        """
        while (failure := self._attempt(what, step)) is not None:
            self._say(failure)
            if PartialState().num_processes == 1:  # the others do not wait here, and would not look too
                self._check_stop()
            time.sleep(self.look_seconds)
        self._go_on()

    def keep_to_budget(self) -> None:
        """Delete what the study no longer needs, as far as it takes more than its budget."""
        if self._budget is not None and (over := bytes_in(self.study) - self._budget) > 0:
            collect(self.study, over, self._tell)

    @property
    def _budget(self) -> int | None:
        return None if self.storage.max_gb is None else int(self.storage.max_gb * 1e9)

    def _free(self) -> int:
        return shutil.disk_usage(existing(self.folder)).free

    def _lack(self, what: str, needed: int) -> str | None:
        """Return in words what is lacking, after deleting what may go."""
        if self._budget is not None:
            over = bytes_in(self.study) + needed - self._budget
            lacking = max(over, needed - self._free())
            if lacking > 0 and collect(self.study, lacking, self._tell) < over:
                return (
                    f"{in_bytes(bytes_in(self.study))} of storage.max_gb {self.storage.max_gb:g} are taken in "
                    f"{self.study} by what may not be deleted, {in_bytes(needed)} needed for {what}"
                )
        free = self._free()
        if free >= needed:
            return None
        return f"{in_bytes(free)} free in {self.folder}, {in_bytes(needed)} needed for {what}"

    def _attempt(self, what: str, step: Callable[[], None]) -> str | None:
        """Do a step, and return in words how the disk did not suffice for it."""
        try:
            step()
        except DureError:
            raise
        except Exception as error:
            if not is_disk_full(error):
                raise
            logger.warning("the disk did not take %s", what, exc_info=error)
            said = (
                f"the disk got full while {what} was written ({in_bytes(self._free())} free in {self.folder})"
            )
            if not self._can_repeat:
                raise RunError(
                    f"{said}; free some, then --resume goes on from the checkpoint before"
                ) from error
            return said
        return None

    def _pause(self, lack: str) -> None:
        by_main(lambda: self._say(lack))
        self._check_stop()
        time.sleep(self.look_seconds)

    def _say(self, lack: str) -> None:
        """Report that the run waits, at most once a minute; a ``RunError`` when it has waited long enough."""
        now = time.monotonic()
        if self._paused_at is None:
            self._paused_at, self._said_at = now, now - self.say_seconds
        if now - self._paused_at >= self.storage.pause_minutes * 60:
            self._paused_at = None
            raise RunError(
                f"{lack}; after {self.storage.pause_minutes:g} minutes the run ended; nothing is lost: free some, "
                "then --resume goes on from the newest checkpoint"
            )
        if now - self._said_at >= self.say_seconds:
            self._said_at = now
            self._tell(f"paused: {lack}; free some or Ctrl-C; nothing is lost")

    def _go_on(self) -> None:
        if self._paused_at is not None:
            self._tell(f"there is room again: going on after {time.monotonic() - self._paused_at:.0f} s")
            self._paused_at = None
