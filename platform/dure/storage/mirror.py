"""A run's folder and its copy in storage, so that the run goes on on a machine that sees nothing of this one's disk.

A folder of weights is whole in storage when its last file is there: it is sent after all others and taken away before
them. So a kill between two files, here or there, never leaves half a checkpoint that a later run would take.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dure.config.schema import Profile
from dure.events import Notify
from dure.files import parse_json, write_json, written_beside
from dure.runs.checkpoints import STATE_FILE
from dure.runs.folder import RunFolder
from dure.runs.manifest import MANIFEST, described, faults
from dure.storage.remote import Storage, joined

logger = logging.getLogger(__name__)

INDEX = ".mirror.json"
"""Says which files of a folder are in storage as they are here."""
_SEALED = re.compile(r"((?:.*/)?(?:checkpoint-(\d+)|final_model))/(.+)")
_SET_ASIDE = re.compile(r"(?:.*/)?checkpoint-\d+[^/\d][^/]*/.+")
_OUTPUTS = "outputs"
_SAY_FINISHED = ("training_metrics.json", "result.json")
"""Files that say that a stage or a run is finished, in the order in which they are moved: after all others."""

Facts = tuple[int, int]
"""Bytes of a file and when it was changed, in nanoseconds."""
_Facts = TypeVar("_Facts")


@dataclass(frozen=True)
class SharedFolder:
    """A folder of a run or study, and where it is mirrored; travels to workers.

    The folder has one path on every machine.
    """

    folder: Path
    url: str

    def mirror(self, path: Path) -> Mirror:
        """Return the mirror of a folder that is this one or lies in it."""
        inner = path.relative_to(self.folder).as_posix()
        return Mirror(Storage(self.url if inner == "." else joined(self.url, inner)), path)


def shared_folder(profile: Profile, path: Path) -> SharedFolder | None:
    """Return where a run or study is mirrored on a machine, if it is.

    The place is named by what follows the last ``outputs/`` of the path, or by the path from where the command runs, or
    by its last part. So the same ``--output`` finds it on another machine. What lies in a folder that is mirrored
    already, as the sweep of a unified training does, is a part of that.
    """
    if profile.storage.url is None:
        return None
    path, here = path.resolve(), Path.cwd().resolve()
    path = next((outer for outer in reversed(path.parents) if (outer / INDEX).is_file()), path)
    inner = path.parts[-1:]
    if _OUTPUTS in path.parts[:-1]:
        after = len(path.parts) - path.parts[-2::-1].index(_OUTPUTS) - 1
        inner = path.parts[after:]
    elif path.is_relative_to(here) and path != here:
        inner = path.relative_to(here).parts
    return SharedFolder(path, joined(profile.storage.url, "/".join(inner)))


class Mirror:
    """One folder and its copy in storage. Hidden files, half-written ones among them, stay here.

    The folder may hold several runs. Which of two machines is ahead is decided for each run by its checkpoints, and
    for other files by what was changed here since they were moved last: so a driver never sends records that are
    older than those of a trial on another machine.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage = storage
        self.folder = folder
        self._known: dict[str, Facts] = {}

    def push(self, *, apart: Collection[str] = ()) -> None:
        """Send what is new or changed, and take away in storage what was removed here.

        Records go first, then checkpoints from the oldest on; older checkpoints are taken away after the newest is
        whole, and what says that a run is over goes last of all. Somebody else pushes folders that are kept ``apart``.

        Raises:
            StorageError: Storage does not answer; what was sent until then is remembered, and not sent again.
        """
        self._known = self._read_indexes()
        try:
            there = self.storage.sizes()
            self._known = {name: facts for name, facts in self._known.items() if name in there}
            here, there = _without(self._facts(), apart), _without(there, apart)
            sealed, plain = _parted(here)
            ahead = _newest(_whole(_parted(there)[0]))
            newest = _newest(_whole(sealed))
            for name in plain:
                if name.rpartition("/")[2] not in _SAY_FINISHED:
                    self._send(name, here)
            for root in sorted(sealed, key=_age):
                # A copy that another machine went on from is old, whole or not.
                if _age(root) < 0 or ahead.get(_run(root), -1) <= newest.get(_run(root), -1):
                    self._send_sealed(root, sealed[root], here, there)
            self._take_away(here, there, newest)
            for name in _finishing(plain):
                self._send(name, here)
        finally:
            self._write_index()

    def pull(self, notify: Notify = logger.info, *, removed_too: bool = False) -> int | None:
        """Bring what is missing here, and return the step of the newest checkpoint that was brought.

        When storage holds a newer checkpoint of a run than this folder, another machine went on with it: its records
        take the place of these, and so does what changed in storage but not here.

        Args:
            notify: Gets a line for each checkpoint that is broken in storage, and so is not taken.
            removed_too: Whether what was here and in storage, and was removed here, comes back too; the next push
                takes it away in storage otherwise.

        Raises:
            StorageError: Storage does not answer.
        """
        self._known = self._read_indexes()
        try:
            there, here = self.storage.sizes(), self._facts()
            sealed, plain = _parted(there)
            whole, newest = _whole(sealed), _newest(_whole(_parted(here)[0]))
            behind = [run for run, step in _newest(whole).items() if step > newest.get(run, -1)]

            def is_old(name: str) -> bool:
                if name not in here:
                    return removed_too or name not in self._known
                parent = name.rpartition("/")[0]
                if any(not parent or run == parent or run.startswith(f"{parent}/") for run in behind):
                    return True
                return self._known.get(name) == here[name] and here[name][0] != there[name]

            old = [name for name in plain if is_old(name)]
            for name in old:
                if name.rpartition("/")[2] not in _SAY_FINISHED:
                    self._bring(name)
            brought = [
                _age(root)
                for root in sorted(whole, key=_age)
                if not (self.folder / root).exists()
                and (removed_too or _seal(root) not in self._known)
                and self._bring_sealed(root, whole[root], notify)
            ]
            for name in _finishing(old):
                self._bring(name)
        finally:
            self._write_index()
        return max((step for step in brought if step >= 0), default=None)

    def forget_result(self) -> None:
        """Take away the result in storage, since the run is going on.

        Raises:
            StorageError: Storage does not answer.
        """
        self.storage.delete(RunFolder(self.folder).result.name)

    def _facts(self) -> dict[str, Facts]:
        """Return the files here that are mirrored, by their path in the folder."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            is_hidden = any(part.startswith(".") for part in name.split("/"))
            if is_hidden or _SET_ASIDE.fullmatch(name):
                continue
            try:
                if path.is_file():
                    facts = path.stat()
                    found[name] = (facts.st_size, facts.st_mtime_ns)
            except FileNotFoundError:
                logger.debug("%s went while the folder was read", path)
        return found

    def _send(self, name: str, here: Mapping[str, Facts]) -> None:
        if self._known.get(name) == here[name]:
            return
        try:
            size = self.storage.upload(self.folder / name, name)
        except FileNotFoundError:
            logger.debug("%s was removed before it was sent", name)
            return
        # A record that grew meanwhile has other facts by the next push, which sends it again.
        self._known[name] = (size, here[name][1])

    def _send_sealed(
        self, root: str, names: list[str], here: Mapping[str, Facts], there: Mapping[str, int]
    ) -> None:
        """Send a folder of weights, unless it is not whole here or is there already."""
        seal = _seal(root)
        if seal not in names or all(self._known.get(name) == here[name] for name in names):
            return
        if seal in there:
            self.storage.delete(seal)
        for name in sorted(names, key=lambda each: (each == seal, each.endswith(f"/{MANIFEST}"), each)):
            if name == seal and any(not (self.folder / each).is_file() for each in names):
                return  # removed here meanwhile: what was sent is never sealed, and goes with the next push
            self._send(name, here)

    def _take_away(
        self, here: Mapping[str, Facts], there: Mapping[str, int], newest: Mapping[str, int]
    ) -> None:
        # What has another size there was rewritten by another machine.
        gone = {
            name
            for name, size in there.items()
            if name not in here and name in self._known and self._known[name][0] == size
        }
        for root, names in _parted(there)[0].items():
            if root not in _parted(here)[0] and 0 <= _age(root) < newest.get(_run(root), -1):
                gone.update(names)
        for name in sorted(gone, key=lambda each: not _is_seal(each)):
            self.storage.delete(name)
            self._known.pop(name, None)

    def _bring(self, name: str) -> None:
        try:
            self.storage.download(name, self.folder / name)
        except FileNotFoundError:
            logger.debug("%s was removed in storage before it was brought", name)
            return
        self._learn(name)

    def _bring_sealed(self, root: str, names: list[str], notify: Notify) -> bool:
        """Bring a folder of weights, which gets its name when it is whole and as its manifest says."""
        try:
            with written_beside(self.folder / root) as beside:
                for name in names:
                    self.storage.download(name, beside / name.removeprefix(f"{root}/"))
                if found := faults(beside):
                    raise _BrokenError(described(found))
        except (FileNotFoundError, _BrokenError) as error:
            why = str(error) if isinstance(error, _BrokenError) else "it was removed meanwhile"
            notify(f"{root} in {self.storage.shown} is not taken: {why}")
            return False
        for name in names:
            self._learn(name)
        return True

    def _learn(self, name: str) -> None:
        facts = (self.folder / name).stat()
        self._known[name] = (facts.st_size, facts.st_mtime_ns)

    def _read_indexes(self) -> dict[str, Facts]:
        """Return what is known to be in storage, also by the mirrors of folders in this one and around it."""
        found: dict[str, Facts] = {}
        for file in (*(outer / INDEX for outer in self.folder.parents), *self.folder.rglob(INDEX)):
            try:
                content = parse_json(file.read_bytes())
            except (FileNotFoundError, ValueError):
                continue  # everything is sent then, which costs time and nothing else
            if content.get("url") != self._shown_of(file.parent):
                continue
            for inner, facts in content["files"].items():
                path = file.parent / inner
                if path.is_relative_to(self.folder):
                    name = path.relative_to(self.folder).as_posix()
                    found[name] = max(found.get(name, (0, 0)), (facts[0], facts[1]), key=lambda each: each[1])
        return found

    def _shown_of(self, folder: Path) -> str | None:
        """Return the place of a folder in this one or around it."""
        if folder.is_relative_to(self.folder):
            inner = folder.relative_to(self.folder).as_posix()
            return self.storage.shown if inner == "." else f"{self.storage.shown.rstrip('/')}/{inner}"
        inner = self.folder.relative_to(folder).as_posix()
        is_around = self.storage.shown.endswith(f"/{inner}")
        return self.storage.shown.removesuffix(f"/{inner}") if is_around else None

    def _write_index(self) -> None:
        write_json(self.folder / INDEX, {"url": self.storage.shown, "files": self._known})


class _BrokenError(Exception):
    """A folder of weights that came out of storage is not what was written."""


def _parted(names: Collection[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Part paths into those of each folder of weights and all others."""
    sealed: defaultdict[str, list[str]] = defaultdict(list)
    plain = []
    for name in names:
        match = _SEALED.fullmatch(name)
        if match:
            sealed[match[1]].append(name)
        else:
            plain.append(name)
    return dict(sealed), plain


def _without(files: Mapping[str, _Facts], folders: Collection[str]) -> dict[str, _Facts]:
    """Return the files that lie in none of some folders."""
    begins = tuple(f"{folder}/" for folder in folders)
    return {name: facts for name, facts in files.items() if not name.startswith(begins)}


def _finishing(names: Collection[str]) -> list[str]:
    """Return the files that say that something is finished, in the order in which they are moved."""
    found = [name for name in names if name.rpartition("/")[2] in _SAY_FINISHED]
    # Those of a stage before those of the run that it belongs to.
    return sorted(found, key=lambda name: (-name.count("/"), _SAY_FINISHED.index(name.rpartition("/")[2])))


def _whole(sealed: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {root: names for root, names in sealed.items() if _seal(root) in names}


def _newest(roots: Collection[str]) -> dict[str, int]:
    """Return the step of the newest checkpoint of every run, by the folder that its checkpoints lie in."""
    found: dict[str, int] = {}
    for root in roots:
        if _age(root) >= 0:
            found[_run(root)] = max(found.get(_run(root), -1), _age(root))
    return found


def _run(root: str) -> str:
    return root.rpartition("/")[0]


def _age(root: str) -> int:
    """Return the step of a checkpoint; -1 for a final model."""
    match = _SEALED.fullmatch(f"{root}/.")
    return -1 if match is None or match[2] is None else int(match[2])


def _seal(root: str) -> str:
    """Return the file that is sent last."""
    return f"{root}/{MANIFEST if _age(root) < 0 else STATE_FILE}"


def _is_seal(name: str) -> bool:
    match = _SEALED.fullmatch(name)
    return match is not None and name == _seal(match[1])
