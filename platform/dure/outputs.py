"""Where runs and studies lie: the folder of a new one, and that of one to continue, here or in storage."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dure.config.schema import Profile
from dure.errors import UserError, shell_word
from dure.events import Notify, RunStart
from dure.events.stream import read_events
from dure.files import is_half_written, make_folder
from dure.runs.folder import RUN_RECORD, STUDY_FILE, RunFolder
from dure.runs.lock import LOCK, held, require_free
from dure.signals import Interrupted

if TYPE_CHECKING:
    from dure.storage.mirror import Mirror

logger = logging.getLogger(__name__)


_RECORDS = frozenset(
    {
        RUN_RECORD,
        "environment.json",
        "events.jsonl",
        "result.json",
        "run.log",
        LOCK,
        ".mirror.json",
    }
)
"""What a run that fails or is killed before it trains leaves in its folder."""

_OF_TRACKERS = ("wandb", "mlruns")


def outputs() -> Path:
    """Return the folder in which runs and studies lie: ``$DURE_OUTPUTS``, or ``outputs`` in the working folder.

    A submitted folder is a copy that the cluster deletes, so there it is ``~/dure/outputs`` of the job's node.
    """
    from dure.runtime.cluster import works_in_copy

    given = os.environ.get("DURE_OUTPUTS")
    if given:
        return Path(given).expanduser().absolute()
    return Path.home() / "dure" / "outputs" if works_in_copy() else Path("outputs")


def output_folder(
    name: str,
    output: Path | None,
    *,
    resume: bool,
    record: str = RUN_RECORD,
    profile: Profile | None = None,
    notify: Notify = logger.info,
) -> Path:
    """Return the folder of a run or study: a new one, or with ``resume`` the one to continue.

    Args:
        name: Name of the experiment or study.
        output: The folder, when the user gave one; ``<name>/<timestamp>`` in :func:`outputs` otherwise. In a copy
            that a job works in, a relative one lies in there too.
        resume: Continue there; without ``output``, in the folder of that name that was worked in last.
        record: The file that is written first, and so marks a folder that can be continued.
        profile: The machine; with ``storage.url``, what there is to continue may be in storage.
        notify: Gets a line when something comes from there.

    Raises:
        UserError: There is nothing to resume; or a new run would land in a folder that holds more than the records of
            a run that failed or was killed before it trained, or in one that cannot be written to; or another process
            works there; or storage does not answer.
    """
    from dure.runtime.cluster import works_in_copy

    parent = outputs() / name
    if output is not None and works_in_copy():
        output = outputs() / output
    if output is not None:
        require_free(output)
        if not resume and _never_trained(output):
            with held(output):
                _empty(output, profile)
    if profile is not None and not resume:
        _require_empty_storage(profile, output)
    if profile is not None and resume and output is not None:
        pull(profile, output, notify)
    if resume:
        folders = [*parent.glob("*/")] if output is None else [output]
        started = [folder for folder in folders if (folder / record).is_file()]
        if not started:
            raise UserError(
                f"there is nothing to resume in {output or parent}",
                where="--resume",
                expected=f"a folder with {record}",
                hint="start without --resume, or give the folder with --output",
            )
        # Names are of the clock of the machine that gave them, and that may be in another time zone.
        newest = max(started, key=lambda folder: ((folder / record).stat().st_mtime_ns, folder.name))
        refuse_links(newest)
        return newest
    if output is None:
        make_folder(parent, where=f"folder of {name}")
        return _new_folder(parent)
    where = f"--output {output}"
    if output.is_file():
        raise UserError("this is a file", where=where, expected="a new or an empty folder")
    if output.is_dir() and any(each.name != LOCK for each in output.iterdir()):
        raise UserError(
            "the folder is not empty",
            where=where,
            hint="--resume to continue what is there, or another folder",
        )
    make_folder(output, where=where)
    return output


def _new_folder(parent: Path) -> Path:
    """Make a folder named after the time, which no other command gets, also one of the same second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("there is always a further number")


@contextlib.contextmanager
def working_folder(
    name: str, output: Path | None, *, continued: Path | None = None, profile: Profile | None = None
) -> Iterator[Path]:
    """Give the folder of a run or study, in which nobody else works while the body runs.

    A new one is taken back when the body finds a mistake of the user, or is interrupted, before a run began. A run that
    fails by a mistake leaves its records. The corrected command may have the same folder either way.

    Raises:
        UserError: As :func:`output_folder`; or another process works there.
        Interrupted: The body was interrupted, and the folder can be resumed.
    """
    is_new = continued is None
    is_made = is_new and (output is None or not output.exists())
    path = continued or output_folder(name, output, resume=False, profile=profile)
    try:
        with held(path):
            try:
                yield path
            except UserError:
                is_new = is_new and _is_untouched(path)
                if is_new:
                    _empty(path, profile)
                raise
            except KeyboardInterrupt:
                if any((path / record).is_file() for record in (RUN_RECORD, STUDY_FILE)):
                    raise Interrupted from None
                raise
    except (UserError, KeyboardInterrupt):
        if is_new and is_made:
            with contextlib.suppress(OSError):  # it holds something after all
                path.rmdir()
                if output is None:
                    path.parent.rmdir()
        raise


def _is_untouched(folder: Path) -> bool:
    """Return whether no run in a new folder trained, or came to a result."""
    return not any(folder.rglob("metrics.jsonl")) and not any(folder.rglob("result.json"))


def _never_trained(folder: Path) -> bool:
    """Return whether a folder holds what a run left that failed or was killed before it trained, and nothing else."""
    if not folder.is_dir() or not all(
        each.is_file() and (each.name in _RECORDS or is_half_written(each)) for each in folder.iterdir()
    ):
        return False
    run = RunFolder(folder)
    try:
        result = run.read_result()
    except UserError:
        return False
    if result is None:  # killed before it wrote what --resume goes on with
        return (folder / LOCK).is_file() and not run.experiment.is_file()
    has_started = any(isinstance(entry.event, RunStart) for entry in read_events(run.events))
    return result.state == "failed" and not has_started


def _empty(folder: Path, profile: Profile | None) -> None:
    """Remove what a command wrote into a folder that was empty, here and in storage."""
    from dure.storage.mirror import INDEX
    from dure.storage.remote import StorageError

    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (LOCK, INDEX):
            path.unlink(missing_ok=True)
    if (folder / INDEX).is_file() and profile is not None:
        with contextlib.suppress(UserError, StorageError):
            mirror = _mirror(profile, folder)
            if mirror is not None:
                mirror.push()
    (folder / INDEX).unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Check that nothing in the folder of a run or study is a symbolic link: what is written there replaces files.

    Hidden folders and those of trackers are left alone; nothing of dure is replaced there.

    Raises:
        UserError: Something is one.
    """
    for place, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = Path(place, name)
            if path.is_symlink() and not name.startswith("."):
                said, copy = shell_word(path), shell_word(f"{path}.copy")
                raise UserError(
                    f"this is a symbolic link to {path.readlink()}, and what it leads to would be replaced or removed",
                    where=str(path),
                    expected="files and folders",
                    hint=f"put a copy in its place: cp -rL {said} {copy} && rm {said} && mv {copy} {said}",
                )
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _OF_TRACKERS]


def pull(profile: Profile, folder: Path, notify: Notify = logger.info) -> None:
    """Bring what storage holds of the folder of a run or study and this machine does not, if there is storage.

    ``notify`` gets a line on the newest checkpoint that comes from there, and one for each that is broken there.

    Raises:
        UserError: Storage does not answer.
    """
    mirror = _mirror(profile, folder)
    if mirror is not None and mirror.storage.sizes():
        step = mirror.pull(notify, removed_too=True)
        if step is not None:
            notify(f"checkpoint-{step} comes from {mirror.storage.shown}")


def _require_empty_storage(profile: Profile, output: Path | None) -> None:
    """Check that storage answers, and that a new run or study would be alone at its place in there."""
    mirror = _mirror(profile, outputs() if output is None else output)
    if output is not None and mirror is not None and mirror.storage.sizes():
        raise UserError(
            f"there is something in {mirror.storage.shown} already",
            where=f"--output {output}",
            hint="--resume to continue it, or another folder",
        )


def _mirror(profile: Profile, folder: Path) -> Mirror | None:
    """Return the mirror of a folder once its storage has answered; None where there is no storage."""
    from dure.storage.mirror import shared_folder
    from dure.storage.remote import require_storage

    if profile.storage.url is None:
        return None
    require_storage(profile.storage.url)
    shared = shared_folder(profile, folder)
    return None if shared is None else shared.mirror(folder.resolve())
