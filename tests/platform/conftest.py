"""A stand-in for S3 in this process, and a disk that is soon full."""

import pytest

from tests.platform.s3_stand_in import ENVIRONMENT, S3
from tests.platform.small_disk import disks


@pytest.fixture
def s3(monkeypatch):
    """An empty bucket that answers in this process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = S3()
    yield server
    server.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own: ``small_disk(24)`` gives a folder with 24 MB of room."""
    with disks(tmp_path) as mount:
        yield mount
