"""From what the user typed to the files of a table: patterns, folders, ``~``, and names as macOS writes them."""

from __future__ import annotations

import json
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dure.config.data import source_name
from dure.data.canonical import canonical, composed
from dure.errors import UserError, nearest, shell_word
from dure.files import read_json

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
"""Suffixes of the formats that have an encoding."""
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".xlsx")
"""Suffixes of the formats that a user gives."""
ARROW = ".arrow"
"""Suffix of the files in a folder of ``save_to_disk``."""

_UNPACKING = {
    **dict.fromkeys((".gz", ".gzip"), "gzip -dk"),
    **dict.fromkeys((".tar", ".tgz"), "tar xf"),
    ".zip": "unzip",
    ".bz2": "bzip2 -dk",
    ".xz": "xz -dk",
    ".zst": "zstd -d",
    ".7z": "7z x",
    ".rar": "unrar x",
}
"""Commands that unpack files, by their suffix."""
_READERS = {
    ".feather": "pandas.read_feather",
    ".orc": "pandas.read_orc",
    ".dta": "pandas.read_stata",
    ARROW: "datasets.Dataset.from_file",
}
"""Functions of libraries that are there, which read a file of a suffix."""
_WORKBOOK = re.compile(r"\.(xls[bm]?|ods|hwpx?|numbers)")
_BINARY = re.compile(r"\.(pkl|pickle|np[yz]|h5|hdf5?|sav|rds|avro|db|sqlite3?)")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE | re.DOTALL)
_PATTERN = "*?["
_SPLITS = ("train", "valid", "dev", "test")
"""What names of files begin with that belong to one part of a data set."""


def files_of(source: str | Path | Sequence[str]) -> list[Path]:
    """Return the files of a table, each of a format that can be read, in the order in which they are read.

    Args:
        source: A file, a pattern such as ``data/*.csv``, a folder with Parquet files or of ``save_to_disk``, or
            several of these. ``~`` is the user's home, and a name is found in whichever Unicode form it is written.

    Raises:
        UserError: There is no such file, or it is no table.
    """
    if isinstance(source, str | Path):
        return _files_of_one(source)
    files = [file for each in source for file in _files_of_one(each)]
    seen: dict[Path, Path] = {}
    for file in files:
        other = seen.setdefault(file.resolve(), file)
        if other is not file:
            raise UserError(
                "this file is named twice", where=str(file), expected="different files", hint="name it once"
            )
    return files


def shown_source(source: str | Path | Sequence[str], files: Sequence[Path]) -> str:
    """Return the name of a table in messages: its file, or what the user typed and how many files that is."""
    if len(files) == 1:
        return str(files[0])
    return f"{source_name(source if not isinstance(source, Path) else str(source))} ({len(files)} files)"


def _files_of_one(source: str | Path) -> list[Path]:
    if source == "":
        raise UserError(
            "the name of the table is empty", expected="a file, a folder or a pattern such as data/*.csv"
        )
    if address := _ADDRESS.match(str(source)):
        raise _elsewhere(str(source), *address.groups())
    try:
        path = _existing(Path(source).expanduser())
    except RuntimeError:  # there is no such user
        path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL in the name is a ValueError
        return _matching(path)
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=str(path)) from None
    if stat.S_ISDIR(mode):
        return _in_folder(path)
    if not stat.S_ISREG(mode):
        raise UserError(
            "this is a pipe or a device, not a table",
            where=str(path),
            expected="a file, since it is read more than once",
        )
    _check_suffix(path)
    return [path]


def _existing(path: Path) -> Path:
    """Return the path by the names that its folders really have, which may be in another Unicode form."""
    try:
        if path.exists() or str(path).isascii():
            return path
        found = Path(path.anchor)
        for part in path.parts[1:] if path.anchor else path.parts:
            if not (found / part).exists():
                same = [name for name in found.iterdir() if canonical(name.name) == canonical(part)]
                if len(same) != 1:
                    return path
                part = same[0].name
            found = found / part
        return found
    except (OSError, ValueError):
        return path


def _matching(path: Path) -> list[Path]:
    """Return the files that a pattern matches, by name; without a pattern there is no such file."""
    if path.is_symlink():
        raise UserError(
            f"this is a link to '{path.readlink()}', which is not there",
            where=str(path),
            expected="a link to a file that exists",
            hint="name the file itself",
        )
    if not any(sign in str(path) for sign in _PATTERN):
        raise UserError("there is no such file", where=str(path), hint=_meant(path))
    parts = path.parts[1:] if path.anchor else path.parts
    try:
        files = [file for file in _matches(Path(path.anchor), parts) if file.is_file()]
    except (OSError, ValueError):
        files = []
    if not files:
        raise UserError("no file matches this pattern", where=str(path), expected="files such as data/*.csv")
    for file in files:
        _check_suffix(file)
    return files


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Give the paths below a folder that match the parts of a pattern, by name, in whichever Unicode form."""
    if not parts:
        yield folder
        return
    first, *rest = parts
    if first == "**":
        yield from _matches(folder, rest)
        inside = (
            each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")
        )
        for each in inside:
            yield from _matches(each, parts)
    elif not any(sign in first for sign in _PATTERN):
        yield from _matches(_existing(folder / first), rest)
    elif folder.is_dir():
        for each in sorted(folder.iterdir()):
            is_hidden = each.name.startswith(".") and not first.startswith(".")
            if not is_hidden and fnmatchcase(composed(each.name), composed(first)):
                yield from _matches(each, rest)


def _in_folder(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, or the Arrow files of a data set that ``save_to_disk`` wrote."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(each.parent.name for each in folder.glob("*/state.json"))
        raise UserError(
            "this folder holds several splits of a data set",
            where=str(folder),
            expected="the folder of one split",
            hint=" or ".join(str(folder / split) for split in splits) or None,
        )
    if (folder / "state.json").is_file():
        return _saved_dataset(folder)
    files = sorted(
        file
        for file in folder.rglob("*.parquet")
        if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    )
    places = {split: place for file in files for split, place in _split_of(file, folder)}
    if len(places) > 1:
        raise UserError(
            f"this folder holds rows of {' and '.join(sorted(places))}, which would become one table",
            where=str(folder),
            expected="the files of one split",
            hint=" or ".join(places[split] for split in sorted(places)),
        )
    others = _tables_inside(folder)
    if not files:
        raise UserError(
            "this is a folder, not a table",
            where=str(folder),
            expected="a file, or a folder with Parquet files or of save_to_disk",
            hint=f"all its files together: {others[0]}" if others else None,
        )
    if others:
        raise UserError(
            "this folder holds tables of several formats, and only Parquet would be read of it",
            where=str(folder),
            expected="the files of one table",
            hint=" or ".join((f"{folder}/**/*.parquet", *others)),
        )
    return files


def _split_of(file: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Give the splits that a file or a folder around it, such as ``split=train``, is named after, and what names its files."""
    for path in (file, *file.relative_to(folder).parents[:-1]):
        name = path.name.rpartition("=")[2].lower()
        for split in _SPLITS:
            if name.startswith(split):
                yield split, f"{folder}/**/{split}*.parquet" if path is file else str(folder / path)


def _saved_dataset(folder: Path) -> list[Path]:
    state = read_json(folder / "state.json", what="record of save_to_disk")
    names = [str(each.get("filename")) for each in state.get("_data_files") or [] if isinstance(each, dict)]
    files = [folder / Path(name).name for name in names]
    if state.get("_indices_files") or not files or not all(file.is_file() for file in files):
        raise UserError(
            "this folder of save_to_disk is not whole",
            where=str(folder),
            expected="state.json and the Arrow files that it names",
            hint=f"datasets.load_from_disk('{folder}').to_parquet('{folder.name}.parquet') writes one table of it",
        )
    return files


def _tables_inside(folder: Path) -> list[str]:
    """Return a pattern for the tables of each further format in a folder; data sets bring .json and .txt that are none."""
    found = {file.suffix.lower() for file in folder.iterdir() if file.is_file()}
    return [f"{folder}/*{suffix}" for suffix in SUFFIXES if suffix in found - {".json", ".txt", ".parquet"}]


def _check_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return
    if suffix in _UNPACKING:
        hint = f"{_UNPACKING[suffix]} {shell_word(str(path))} unpacks it"
    elif suffix == ARROW and (path.parent / "state.json").is_file():
        hint = f"the folder that save_to_disk wrote: {path.parent}"
    elif suffix in _READERS:
        hint = f"{to_parquet(_READERS[suffix], path)} writes one"
    elif _WORKBOOK.fullmatch(suffix):
        hint = "save it as .xlsx or .csv"
    elif _BINARY.fullmatch(suffix):
        hint = "write a table of it as .parquet or .csv"
    else:
        name = path.name.strip()
        inner = next((each for each in SUFFIXES if f"{each}." in f"{name.lower()}."), None)
        renamed = name[: name.lower().rindex(inner)] + inner if inner else f"{name}.csv"
        hint = f"rename it, such as to {renamed}, if that is what it holds"
    raise UserError(
        f"tables with the suffix '{path.suffix}' cannot be read"
        if suffix
        else "its name has no suffix, which says the format",
        where=str(path),
        expected=f"one of {', '.join(SUFFIXES)}",
        hint=hint,
    )


def _elsewhere(name: str, scheme: str, rest: str) -> UserError:
    """Return the error for an address, with what brings the table here."""
    parts = [part for part in rest.split("/") if part]
    hint = f"copy it here, and name the copy: {parts[-1] if parts else 'FILE'}"
    if scheme == "hf":
        repository = "/".join(parts[1:3] if parts[:1] == ["datasets"] else parts[:2]) or "OWNER/NAME"
        folder = f"data/{repository.rpartition('/')[2]}"
        hint = f"hf download {repository} --repo-type dataset --local-dir {folder}, and then the files in {folder}"
    elif scheme == "file":
        hint = f"/{rest}"
    elif scheme in ("http", "https"):
        hint = f"curl -LO '{scheme}://{rest}', and then the file that it writes"
    return UserError(
        "tables are read from this machine's files only", where=name, expected="a file or a folder", hint=hint
    )


def _meant(path: Path) -> str | None:
    """Return a hint at the file beside a missing one that is most like it."""
    try:
        like = nearest(path.name, [file.name for file in path.parent.iterdir()])
    except (OSError, ValueError):
        return None
    return f"is {path.parent / like} meant?" if like else None


def to_parquet(reader: str, path: Path, *options: str) -> str:
    """Return the shell command that converts a file to Parquet beside it, by a reader such as ``pandas.read_orc``.

    ``options`` are further arguments of the reader, as Python writes them.
    """
    source, target = (literal(str(each)) for each in (path, path.with_suffix(".parquet")))
    call = f"{reader}({', '.join((source, *options))}).to_parquet({target})"
    code = f"import {reader.partition('.')[0]}; {call}"
    return f"python -c {shlex.quote(code)}"


def literal(text: str) -> str:
    """Return a text as Python has it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
