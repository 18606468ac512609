"""What is sent to a cluster with a job: measured before anything is sent."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dure.config.tree import is_torn
from dure.errors import UserError

EXCLUDES = (
    *("/outputs", "/wandb", "/dist", "/build", ".ray_tune", ".ray_train", "*.egg-info", ".ipynb_checkpoints"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".tox", "node_modules"),
)
"""Never sent, in the language of .gitignore; beside what Ray, .gitignore and .rayignore leave out."""
_NUM_SHOWN = 6


@dataclass(frozen=True)
class Upload:
    """What a folder sends."""

    folder: Path
    """The folder."""
    files: dict[str, int]
    """Path in the folder and bytes of every file that is sent."""
    left_out: dict[str, int]
    """The same of the files that are not sent because they are large."""
    excludes: list[str]
    """Patterns that make Ray send just this."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files; Ray packs without compression."""
        return sum(self.files.values())


def plan_upload(folder: Path, *, excludes: Sequence[str] = (), max_file_mb: float | None = None) -> Upload:
    """Find out what of a folder is to be sent, by the rules by which Ray will pack it.

    What matches ``excludes`` or :data:`EXCLUDES` is not sent, nor what is larger than ``max_file_mb``.

    Raises:
        UserError: There is no such folder, or it cannot be read.
    """
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env import packaging

    if not folder.is_dir():
        raise UserError("there is no such folder", where=f"--working-dir {folder}")
    folder = folder.resolve()
    patterns = [*EXCLUDES, *excludes]
    found: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size

    try:
        packaging._dir_travel(
            folder,
            [packaging._get_excludes(folder, [*get_runtime_env_default_excludes(), *patterns])],
            add,
            include_gitignore=True,
            # Ray logs while it looks through a folder, once for every ignore file.
            logger=logging.Logger("upload", logging.CRITICAL),
        )
    except OSError as error:
        raise UserError(
            f"'{error.filename}' cannot be read ({error.strerror})", where=f"--working-dir {folder}"
        ) from None
    if torn := next((name for name in found if is_torn(name)), None):
        raise UserError(
            f"the name of '{torn}' is no UTF-8, and Ray packs no such file",
            where=f"--working-dir {folder}",
            hint="rename it, or name its folder in .rayignore (as in .gitignore)",
        )
    large = {
        name: size for name, size in found.items() if max_file_mb is not None and size > max_file_mb * 1024**2
    }
    return Upload(
        folder=folder,
        files={name: size for name, size in found.items() if name not in large},
        left_out=large,
        # A pattern that means one file, whatever signs its name holds.
        excludes=[*patterns, *("/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", name) for name in large)],
    )


def check_size(upload: Upload) -> None:
    """Check that a cluster takes what is to be sent.

    Raises:
        UserError: It is too much; names what is large.
    """
    limit = max_upload_bytes()
    if upload.num_bytes < limit:
        return
    folders: Counter[str] = Counter()
    for name, size in upload.files.items():
        for parent in Path(name).parents[:-1]:
            folders[f"{parent.as_posix()}/"] += size
    largest = (folders + Counter(upload.files)).most_common(_NUM_SHOWN)
    shown = ", ".join(f"{name} ({megabytes(size)})" for name, size in largest)
    raise UserError(
        f"{megabytes(upload.num_bytes)} in {len(upload.files):,} files are to be sent, and a cluster takes less than "
        f"{megabytes(limit)}; the largest: {shown}",
        where=f"--working-dir {upload.folder}",
        hint=f"name what is not needed there in .rayignore (as in .gitignore), such as '{largest[0][0]}', or give "
        "--max-file-mb; large data belongs on storage that the nodes see, named by its absolute path",
    )


def max_upload_bytes() -> int:
    """Return how much a cluster takes in one package: what its dashboard and what its store takes."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    return int(min(DASHBOARD_CLIENT_MAX_SIZE, GCS_STORAGE_MAX_SIZE))


def megabytes(num_bytes: int) -> str:
    """Return a size for people."""
    return f"{num_bytes / 1024**2:,.1f} MiB"
