"""Writing files so that a kill at any moment leaves either the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from dure.errors import DureError, UserError

MAX_RECORD_BYTES = 256 * 1024**2
"""Largest record that is read as one JSON object, or as one line; the largest that dure writes has a hundredth."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("no space left", "os error 28", "quota exceeded", "os error 122")
_CUT_WORDS = ("pytorchstreamwriter", "inline_container", "iostream error", "unexpected pos")
"""Torch's writer says no more of a write that the disk did not take than that it was cut."""
_LONGEST_NAME = 255
"""Bytes of a name in a folder, on all usual file systems."""
_TAIL_BYTES = 4096
"""How much of a file's end is looked at at once."""


def make_folder(path: Path, *, where: str) -> None:
    """Make a folder, and those above it, unless it is there; ``where`` says who asked for it.

    Raises:
        UserError: It cannot be made, or files cannot be written into it.
    """
    expected = "a folder that files can be written to"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"folder '{path}' cannot be made ({error.strerror})", where=where, expected=expected
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"folder '{path}' cannot be written to", where=where, expected=expected)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def in_bytes(size: float) -> str:
    """Return a number of bytes as people read it: ``3.1 MB``, ``1.2 GB``; a GB is 10⁹ bytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def is_disk_full(error: BaseException) -> bool:
    """Return whether a write failed because the disk, or the quota on it, was full."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if getattr(seen, "errno", None) in _FULL or any(word in text for word in _FULL_WORDS):
            return True
        if isinstance(seen, RuntimeError) and any(word in text for word in _CUT_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; they keep the order of renames by themselves.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(descriptor)


def hash_of(path: Path) -> str:
    """Return the XXH3 of a file's content in hexadecimal."""
    # A quarter of a MiB at a time: eight threads hash the files of a checkpoint beside training, and memory stays theirs.
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


@contextmanager
def failures_named(path: Path, beside: Path) -> Iterator[None]:
    """Tell what ``beside`` could not take with the name of ``path``, and a full disk too, whichever library met it.

    Raises:
        OSError: It could not be written.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, DureError) and is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if isinstance(error, OSError) and error.errno is not None and str(error.filename) == str(beside):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file or folder to, then rename it into place.

    A file is on the disk itself before it gets its name, so that not even a power cut leaves an empty one there.
    An existing folder at ``path`` is replaced, but none that a link leads to; when the body raises, or the new one
    cannot have its name, ``path`` is left as it was. What a process that is no more left of writing ``path`` goes first.

    Raises:
        OSError: It cannot be written; told with ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_by_dead(path)
    beside = _beside(path, "part")
    try:
        with failures_named(path, beside):
            yield beside
        give_usual_permissions(beside)
        if path.is_dir() and beside.is_dir() and not path.is_symlink():
            _replace_folder(path, beside)
        else:
            if beside.is_file():
                flush(beside)
            beside.replace(path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def _replace_folder(path: Path, beside: Path) -> None:
    """Give a folder the name of another one, which goes; what cannot go, as it is in use or not ours, stays hidden."""
    old = _beside(path, "old")
    try:
        path.rename(old)
        beside.rename(path)
    finally:
        if old.exists():
            _take_back(old, path, "old")


def process_space() -> str:
    """Return in what the numbers of processes are unique; machines of one name may differ in it."""
    try:
        session = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{session} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_exists(pid: int) -> bool:
    """Return whether this machine has a process of a number, also one of another user that is hidden from us."""
    try:
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # it is more than a number can be
        return False
    return True


def _beside(path: Path, kind: str) -> Path:
    """Return a hidden name beside ``path`` that no other write has, and that says which process gave it."""
    end = f".{_machine()}{os.getpid():08x}{uuid.uuid4().hex[:8]}.{kind}"
    return path.parent / f"{_start(path)}{end}"


def _start(path: Path) -> str:
    """Return what the hidden names beside ``path`` begin with; a name of the full length has no room for an ending."""
    return f".{_shortened(path.name, _LONGEST_NAME - _NUM_ADDED)}"


@functools.cache
def _machine() -> str:
    """Return eight digits for this machine, its session and container."""
    return xxhash.xxh3_64_hexdigest(f"{socket.gethostname()} {process_space()}".encode())[:8]


def _remove_left_by_dead(path: Path) -> None:
    """Remove what processes of this machine that are no more left beside ``path``; the old content gets its name again.

    What another machine left, or a process whose number is in use again, stays: somebody may be writing there.
    """
    start = _start(path)
    for left in path.parent.iterdir():
        match = _BESIDE.fullmatch(left.name) if left.name.startswith(start) else None
        if match is None or f".{match[1]}" != start or match["machine"] != _machine():
            continue
        if not process_exists(int(match["pid"], 16)):
            with contextlib.suppress(OSError):  # another process does the same
                _take_back(left, path, match["kind"])


def _take_back(left: Path, path: Path, kind: str) -> None:
    """Give the old content of ``path`` its name again if nothing has it; remove what was left otherwise."""
    if kind == "old" and not path.exists():
        left.rename(path)
    elif left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _shortened(name: str, num_bytes: int) -> str:
    """Return as much of a file's name as takes so many bytes."""
    return (
        name
        if len(os.fsencode(name)) <= num_bytes
        else os.fsencode(name)[:num_bytes].decode("utf-8", "ignore")
    )


_BESIDE = re.compile(
    r"\.(.+)\.(?P<machine>[0-9a-f]{8})(?P<pid>[0-9a-f]{8})[0-9a-f]{8}\.(?P<kind>part|old)", re.DOTALL
)
_NUM_ADDED = 31
"""Bytes of two dots, 24 digits and an ending."""


def is_half_written(path: Path) -> bool:
    """Return whether this is what :func:`written_beside` had begun to write when it was killed."""
    match = _BESIDE.fullmatch(path.name)
    return match is not None and match["kind"] == "part"


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill left of :func:`written_beside` in a folder that nobody else works in.

    What it left between two renames gets its name again: then the old content has none, and the new one may be cut.
    """
    found = [(path, match) for path in folder.rglob(".*") if (match := _BESIDE.fullmatch(path.name))]
    for path, match in found:
        _take_back(path, path.with_name(match[1]), match["kind"])


def give_usual_permissions(path: Path) -> None:
    """Give what was written the permissions that any new file gets here; safetensors writes for its owner alone.

    The process's umask cannot be read without changing it for a moment in all threads, so a new file is asked.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    closed = [each for each in files if each.is_file() and not each.is_symlink()]
    if not closed:
        return
    probe = path.parent / f".{uuid.uuid4().hex[:8]}.probe"
    probe.touch()
    usual = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in closed:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode | usual != mode:
            file.chmod(mode | usual)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all, and flushed to the disk."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; Korean stays readable."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Append one record to a JSON-lines file, or leave the file as it was when the disk is full.

    A last line that a kill tore is removed first: a reader skips it only while it is the last.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab+", buffering=0) as file:
        end = _end_of_whole_lines(file)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)
        rest = memoryview(line.encode("utf-8"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def _end_of_whole_lines(file: io.FileIO) -> int:
    """Return where the last line that ends in a line break ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _TAIL_BYTES)
        file.seek(begin)
        tail = file.read(end - begin)
        if b"\n" in tail:
            return begin + tail.rindex(b"\n") + 1
        end = begin
    return 0


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON-lines file, which need not be there; a last line torn by a kill is left out.

    One is held at a time, however long the file is.

    Raises:
        UserError: A line before the last is no JSON object; names file and line.
    """
    if not path.exists():
        return
    torn: tuple[int, ValueError] | None = None
    # Cut as bytes: a kill may tear a character, and JSON text may hold what else counts as the end of a line.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if torn is not None:
                raise UserError(
                    f"this is no record ({torn[1]})",
                    where=f"{path}, line {torn[0]}",
                    expected="one JSON object a line",
                    hint="remove that line; the others are of use without it",
                )
            try:
                record = _json_object(line.removesuffix(b"\n"))
            except ValueError as error:
                torn = number, error
            else:
                yield record


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read all records of :func:`json_lines`."""
    return list(json_lines(path))


def read_json(path: Path, *, what: str, hint: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    ``what`` says what it should be, and ``hint`` what to do when it is not.

    Raises:
        UserError: It is no JSON object.
    """
    try:
        with path.open("rb") as file:
            return _json_object(file.read(MAX_RECORD_BYTES + 1))
    except ValueError as error:
        raise UserError(f"this is no {what} ({error})", where=str(path), hint=hint) from None


def json_or_none(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file; None where there is no such file, or it holds none."""
    try:
        return _json_object(path.read_bytes())
    except (OSError, ValueError):
        return None


def parse_json(data: bytes | str, of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON text that a file or a line of one holds.

    Args:
        data: The text.
        of_pairs: Makes an object of its pairs; where it is not given the last value of a key counts.

    Raises:
        ValueError: It is no JSON, too large, or nested so deeply that it would exhaust the stack.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError(f"it is larger than {in_bytes(MAX_RECORD_BYTES)}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=of_pairs)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def _json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")
    return value
