"""A run's folder and its copy in storage, so that the run goes on on a machine that sees nothing of this one's disk.

A folder of weights is whole in storage when its last file is there: it is sent after all others and taken away before
them. So a kill between two files, here or there, never leaves half a checkpoint that a later run would take.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dure.config.schema import Profile
from dure.files import write_json, written_beside
from dure.storage import Storage, joined
from dure.training.checkpoints import STATE_FILE
from dure.training.manifest import MANIFEST, described, faults
from dure.training.records import RunFolder

logger = logging.getLogger(__name__)

INDEX = ".mirror.json"
"""Says which files of a folder are in storage as they are here."""
_SEALED = re.compile(r"((?:.*/)?(?:checkpoint-(\d+)|final_model))/(.+)")
_SET_ASIDE = re.compile(r"(?:.*/)?checkpoint-\d+[^/\d][^/]*/.+")
_WEIGHTS = (".pt", ".pth")
_OUTPUTS = "outputs"

Facts = tuple[int, int]
"""Bytes of a file and when it was changed, in nanoseconds."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder of a run or study, and where it is mirrored; travels to workers.

    Attributes:
        folder: The folder, by the path that it has on every machine.
        url: Its place in storage.
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
    by its last part. So the same ``--output`` finds it on another machine.
    """
    if profile.storage.url is None:
        return None
    path, here = path.resolve(), Path.cwd().resolve()
    inner = path.parts[-1:]
    if _OUTPUTS in path.parts[:-1]:
        after = len(path.parts) - path.parts[-2::-1].index(_OUTPUTS) - 1
        inner = path.parts[after:]
    elif path.is_relative_to(here) and path != here:
        inner = path.relative_to(here).parts
    return SharedFolder(path, joined(profile.storage.url, "/".join(inner)))


class Mirror:
    """One folder and its copy in storage. Hidden files, half-written ones among them, stay here.

    Args:
        storage: The copy's place.
        folder: The folder.
        apart: Folders in it that are mirrored by themselves.
    """

    def __init__(self, storage: Storage, folder: Path, *, apart: Collection[str] = ()) -> None:
        self.storage = storage
        self.folder = folder
        self._apart = tuple(f"{name}/" for name in apart)
        self._known = self._read_index()

    def push(self) -> None:
        """Send what is new or changed, and take away in storage what was removed here.

        Records go first, then checkpoints from the oldest on; older checkpoints are taken away after the newest
        is whole, and ``result.json``, which says that a run is over, goes last of all.

        Raises:
            StorageError: Storage does not answer; what was sent until then is remembered, and not sent again.
        """
        here, there = self._facts(), self.storage.sizes()
        self._known = {name: facts for name, facts in self._known.items() if there.get(name) == facts[0]}
        sealed, plain = _parted(here)
        result = RunFolder(self.folder).result.name
        try:
            for name in sorted(plain, key=lambda each: each == result):
                if name != result:
                    self._send(name, here)
            for root in sorted(sealed, key=_age):
                self._send_sealed(root, sealed[root], here, there)
            self._take_away(here, there)
            if result in here:
                self._send(result, here)
        finally:
            self._write_index()

    def pull(self, tell: Callable[[str], None] = logger.info) -> int | None:
        """Bring what is missing here, and return the step of the newest checkpoint that was brought.

        When storage holds a newer checkpoint than this folder, another machine went on with the run: its records
        take the place of these.

        Args:
            tell: Gets a line for each checkpoint that is broken in storage, and so is not taken.

        Raises:
            StorageError: Storage does not answer.
        """
        there = self.storage.sizes()
        sealed, plain = _parted(there)
        whole = {root: names for root, names in sealed.items() if _seal(root) in names}
        is_behind = max(map(_age, whole), default=-1) > max(map(_age, self._whole_here()), default=-1)
        for name in plain:
            if is_behind or not (self.folder / name).exists():
                self._bring(name)
        brought = [
            _age(root)
            for root in sorted(whole, key=_age)
            if not (self.folder / root).exists() and self._bring_sealed(root, whole[root], tell)
        ]
        self._write_index()
        return max((step for step in brought if step >= 0), default=None)

    def pull_records(self) -> None:
        """Bring everything but weights, in place of what is here.

        Raises:
            StorageError: Storage does not answer.
        """
        _, plain = _parted(self.storage.sizes())
        for name in plain:
            if not name.endswith(_WEIGHTS):
                self._bring(name)
        self._write_index()

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
            if is_hidden or name.startswith(self._apart) or _SET_ASIDE.fullmatch(name):
                continue
            try:
                if path.is_file():
                    facts = path.stat()
                    found[name] = (facts.st_size, facts.st_mtime_ns)
            except FileNotFoundError:
                logger.debug("%s went while the folder was read", path)
        return found

    def _whole_here(self) -> list[str]:
        sealed, _ = _parted(self._facts())
        return [root for root, names in sealed.items() if _seal(root) in names]

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

    def _take_away(self, here: Mapping[str, Facts], there: Mapping[str, int]) -> None:
        newest = max(map(_age, self._whole_here()), default=-1)
        sealed, _ = _parted(there)
        gone = {name for name in self._known if name not in here}
        for root, names in sealed.items():
            if root not in _parted(here)[0] and 0 <= _age(root) < newest:
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

    def _bring_sealed(self, root: str, names: list[str], tell: Callable[[str], None]) -> bool:
        """Bring a folder of weights, which gets its name when it is whole and as its manifest says."""
        try:
            with written_beside(self.folder / root) as beside:
                for name in names:
                    self.storage.download(name, beside / name.removeprefix(f"{root}/"))
                if found := faults(beside):
                    raise _BrokenError(described(found))
        except (FileNotFoundError, _BrokenError) as error:
            why = str(error) if isinstance(error, _BrokenError) else "it was removed meanwhile"
            tell(f"{root} in {self.storage.shown} is not taken: {why}")
            return False
        for name in names:
            self._learn(name)
        return True

    def _learn(self, name: str) -> None:
        facts = (self.folder / name).stat()
        self._known[name] = (facts.st_size, facts.st_mtime_ns)

    def _read_index(self) -> dict[str, Facts]:
        try:
            content = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # everything is sent then, which costs time and nothing else
        if content.get("url") != self.storage.shown:
            return {}
        return {name: (size, changed) for name, (size, changed) in content["files"].items()}

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
