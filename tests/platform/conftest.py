"""A stand-in for S3 in this process."""

import pytest

from tests.platform.s3_stand_in import ENVIRONMENT, S3


@pytest.fixture
def s3(monkeypatch):
    """An empty bucket that answers in this process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = S3()
    yield server
    server.close()
