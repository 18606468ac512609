"""Where the files of runs go, what they may take of a machine's disk, and how long a run waits for room on it."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from dure.config.scalars import Float, Text
from dure.config.section import Section
from dure.secrets import without_passwords

SCHEMES = ("s3", "gs", "file")
"""Beginnings of a URL that storage is reached by."""


class StorageConfig(Section):
    """Room for the files of runs.

    A local disk, or a folder that all nodes see under one path (NFS, Lustre), needs no ``url``: give ``--output``
    there. With a ``url``, the folder of a run or study is mirrored there as well, so that it goes on on another
    machine that sees nothing of the first one's disk. Workers that share out one trial still need a common folder.
    """

    max_gb: Float | None = Field(default=None, gt=0.0)
    """Gigabytes (10⁹ bytes) that the folder of a run or study may take; what it no longer needs is deleted then."""
    pause_minutes: Float = Field(default=60.0, ge=0.0)
    """Minutes that a run waits for room for its next checkpoint before it ends, to be resumed later."""
    url: Text | None = None
    """Where runs are mirrored: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///mnt/folder``."""

    @model_validator(mode="after")
    def _url_is_reachable_and_holds_no_secret(self) -> Self:
        # Of the whole section and not of the field: what is said of a field shows its value.
        if self.url is None:
            return self
        try:
            parts = urlsplit(self.url)
        except ValueError:
            raise ValueError("'url' is no URL") from None
        if "@" in parts.netloc or without_passwords(self.url) != self.url:
            raise ValueError(
                "'url' holds a password or key; leave it out and give it by the environment "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS)"
            )
        if parts.scheme not in SCHEMES:
            raise ValueError(
                f"'url' begins with '{parts.scheme}:', but storage is reached by {', '.join(SCHEMES)}"
                if parts.scheme
                else "'url' is a path; say file:///folder, or leave it out where all nodes see the folder"
            )
        if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
            raise ValueError(
                "'url' names no folder; a folder of this machine is file:///mnt/runs, with three /"
            )
        if parts.scheme != "file" and not parts.netloc:
            raise ValueError(f"'url' names no bucket; say {parts.scheme}://bucket/prefix")
        return self
