"""Storage: files arrive whole or not at all, failures are named, and no secret is shown."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from dure.config import load_profile
from dure.config.storage import StorageConfig
from dure.errors import UserError
from dure.storage.remote import Storage, StorageError, joined, require_storage, shown

AT_ONCE = ()
"""No further attempts."""


@pytest.fixture(params=["s3", "file"])
def storage(request, tmp_path):
    """Storage of each kind."""
    if request.param == "file":
        return Storage(f"file://{tmp_path}/far/away", waits=AT_ONCE)
    return Storage(request.getfixturevalue("s3").url, waits=AT_ONCE)


def test_what_is_sent_comes_back(storage, tmp_path):
    assert storage.sizes() == {}
    content = bytes(range(256)) * 50_000  # more than one part
    (tmp_path / "here").write_bytes(content)
    (tmp_path / "empty").touch()
    assert storage.upload(tmp_path / "here", "한글/a b") == len(content)
    storage.upload(tmp_path / "empty", "none")
    assert storage.sizes() == {"한글/a b": len(content), "none": 0}
    storage.download("한글/a b", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == content
    storage.delete("한글/a b")
    storage.delete("한글/a b")
    assert storage.sizes() == {"none": 0}
    with pytest.raises(FileNotFoundError):
        storage.download("한글/a b", tmp_path / "never")
    assert not list(tmp_path.glob("*never*"))


def test_a_failure_is_attempted_again_and_then_named_without_secrets(s3, tmp_path):
    (tmp_path / "a").write_text("1")
    left = [2]

    def twice(method, key):
        left[0] -= 1
        return left[0] >= 0

    s3.fails = twice
    Storage(s3.url, waits=(0.0, 0.0)).upload(tmp_path / "a", "a")
    s3.fails = lambda method, key: True
    with pytest.raises(StorageError) as caught:
        Storage(s3.url, waits=(0.0,)).upload(tmp_path / "a", "b")
    assert "cannot write b to s3://bucket/team: " in str(caught.value)
    assert "ACCESS_DENIED" in str(caught.value)
    assert "not-a-secret" not in str(caught.value)


def test_a_name_that_storage_cannot_have_is_told_as_a_failure_of_storage(tmp_path):
    source = tmp_path / os.fsdecode("한글".encode("cp949"))
    source.touch()
    with pytest.raises(StorageError, match=r"cannot write .* to file"):
        Storage(f"file://{tmp_path}/far", waits=AT_ONCE).upload(source, source.name)


@pytest.mark.parametrize("name", ["결과 1", "lr#1", "wd?2", "a%20b", "[x]", 'a"b'])
def test_what_lies_in_a_folder_of_any_name_is_stored_at_that_name(name, storage, tmp_path):
    (tmp_path / "here").write_text("1")
    Storage(joined(storage._url, f"{name}/run"), waits=AT_ONCE).upload(tmp_path / "here", "a")
    assert storage.sizes() == {f"{name}/run/a": 1}
    if "?" not in storage._url:
        assert shown(joined(storage._url, name)) == f"{storage.shown}/{name}"


def test_a_url_may_have_names_as_they_are(tmp_path):
    (tmp_path / "here").touch()
    Storage(f"file://{tmp_path}/공유 폴더", waits=AT_ONCE).upload(tmp_path / "here", "a")
    assert (tmp_path / "공유 폴더" / "a").is_file()


def test_a_wrong_bucket_is_a_mistake_before_anything_starts(s3):
    with pytest.raises(UserError, match="there is no bucket of s3://other/team") as caught:
        require_storage(s3.url.replace("bucket", "other"), waits=AT_ONCE)
    assert caught.value.where == "storage.url"


def test_a_url_is_shown_and_joined_without_its_options():
    url = "s3://bucket/prefix/?endpoint_override=localhost:9000&scheme=http"
    assert joined(url, "run/a") == "s3://bucket/prefix/run/a?endpoint_override=localhost:9000&scheme=http"
    assert shown(url) == "s3://bucket/prefix/"
    assert shown("s3://me:pass@bucket/x") == "s3://bucket/x"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://me:hunter2@bucket/x", "password or key"),
        ("s3://bucket/x?secret_key=hunter2", "password or key"),
        ("ftp://hunter2/x", "begins with 'ftp:'"),
        ("/mnt/runs", "file:///folder"),
        ("file://mnt/runs", "three /"),
        ("s3:///x", "no bucket"),
    ],
)
def test_a_wrong_url_is_named_and_never_shown_with_what_it_holds(url, says, tmp_path):
    with pytest.raises(ValidationError, match=says):
        StorageConfig(url=url)
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: cpu\nname: mine\nstorage: {{url: '{url}'}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=says) as caught:
        load_profile(str(file))
    assert "hunter2" not in str(caught.value)
    assert "mine.yaml" in caught.value.where
