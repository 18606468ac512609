"""What is secret is shown nowhere: not in errors, nor in what is printed, nor in what a folder keeps."""

from __future__ import annotations

import logging

import pytest

from dure.config.loading import dump_yaml
from dure.errors import RunError, UserError
from dure.runs.logs import captured_output
from dure.secrets import is_secret, redacted, without_passwords
from dure.studies.batch.planning import plan_batch
from dure.studies.study import stored_study
from dure.studies.sweep.plan import SweepStudy, plan_sweep

DATABASE = "postgresql://alice:pa/s@s-w0rd@db.lab:5432/sweeps"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (DATABASE, "postgresql://alice:***@db.lab:5432/sweeps"),
        ("mysql+pymysql://a:b@h/d?ssl=1", "mysql+pymysql://a:***@h/d?ssl=1"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("https://ghp_0123456789@github.com/a/b", "https://***@github.com/a/b"),
        ("http://h/x?token=abc&page=2", "http://h/x?token=***&page=2"),
        (
            "s3://b/p?endpoint_override=h:9000&secret_key=abc",
            "s3://b/p?endpoint_override=h:9000&secret_key=***",
        ),
        ("mysql://a:it's-s3cret@h/d", "mysql://a:***@h/d"),
        ("https://h/x#access_token=abc", "https://h/x#access_token=***"),
        ("https://h/x?api_key=abc;token=def", "https://h/x?api_key=***;token=***"),
        ("AccountName=a;AccountKey=Zm9vYmFy==;Suffix=net", "AccountName=a;AccountKey=***;Suffix=net"),
        ("host=h user=u password=s3cret dbname=d", "host=h user=u password=*** dbname=d"),
        ("http://h:80/x','a@b'", "http://h:80/x','a@b'"),
        ("sqlite:///sweeps.db", "sqlite:///sweeps.db"),
        ("s3://bucket/prefix and user@host", "s3://bucket/prefix and user@host"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
    ],
)
def test_a_url_is_shown_without_passwords_tokens_and_keys(url, shown):
    assert without_passwords(f"see '{url}' (there)") == f"see '{shown}' (there)"


def test_no_error_quotes_a_password_wherever_it_stands():
    for place in ("problem", "where", "expected", "hint"):
        error = UserError(**{"problem": "wrong", place: f"--storage {DATABASE}"})
        assert "w0rd" not in f"{error} {error!r} {error.args} {error.where} {error.hint}"
    assert "w0rd" not in str(RunError(f"{DATABASE} does not answer"))


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_SECRET", "WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "MY_DB_PASSWORD", "PGPASSWORD",
        "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "SLACK_BOT_TOKEN", "AZURE_OPENAI_KEY", "DB_PASS", "SSHPASS",
        "KAGGLE_KEY", "GITHUB_PAT", "GOOGLE_CREDENTIALS", "OPENAI_API_KEY_2", "SLACK_WEBHOOK_URL", "APP_SECRETS",
    ],
)  # fmt: skip
def test_the_names_of_the_providers_are_known_as_secrets(name, monkeypatch):
    assert is_secret(name)
    monkeypatch.setenv(name, "v3ry-s3cret")
    assert redacted("said v3ry-s3cret twice: v3ry-s3cret") == "said <hidden> twice: <hidden>"
    assert not is_secret("PATH")


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "TOKENIZERS_PARALLELISM",
        "AWS_REGION",
        "RAY_AUTH_TOKEN_PATH",
        "KEYBOARD",
        "PWD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "COMPASS",
        "AWS_SESSION_TOKEN_EXPIRATION",
    ],
)
def test_what_only_sounds_like_a_secret_is_none(name):
    assert not is_secret(name)


def test_a_log_holds_no_secret_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "v3ry-s3cret")
    with captured_output(tmp_path / "run.log"):
        logging.getLogger("library").info("runtime_env v3ry-s3cret, %s", DATABASE)
    text = (tmp_path / "run.log").read_text()
    assert "<hidden>" in text
    assert "s3cret" not in text
    assert "w0rd" not in text


def test_the_folder_of_a_sweep_keeps_no_password_and_resuming_asks_for_it_again(tmp_path):
    study = plan_sweep("transfer_bert", storage=DATABASE).with_values(name="s")
    assert study.storage == DATABASE
    (tmp_path / "study.yaml").write_text(dump_yaml(study), encoding="utf-8")
    before = stored_study(tmp_path, SweepStudy)
    assert before.storage == "postgresql://alice:***@db.lab:5432/sweeps"
    with pytest.raises(UserError, match="--storage URL once more"):
        plan_sweep("transfer_bert").continued(before, "here")
    assert plan_sweep("transfer_bert", storage=DATABASE).continued(before, "here").storage == DATABASE
    other = plan_sweep("transfer_bert", storage="postgresql://alice:x@elsewhere/sweeps")
    with pytest.raises(UserError, match="cannot change"):
        other.continued(before, "here")


def test_the_folder_of_a_study_keeps_no_password_of_its_settings():
    given = ["mlflow.uri=http://team:hunter2@host", "tokenizer.input_prefix=a?token=b "]
    study = plan_batch(["transfer_bert"], overrides=given)
    assert list(study.overrides) == given
    assert study.load()[0].mlflow.uri == "http://team:hunter2@host"
    written = dump_yaml(study)
    assert "hunter2" not in written
    assert "a?token=b " in written


def test_a_sweep_without_a_database_may_say_so_again(tmp_path):
    (tmp_path / "study.yaml").write_text(dump_yaml(plan_sweep("transfer_bert").with_values(name="s")))
    again = plan_sweep("transfer_bert").with_values(storage=None)
    assert again.continued(stored_study(tmp_path, SweepStudy), "here").storage is None


def test_the_hidden_password_of_a_folder_is_not_taken_for_a_password(tmp_path):
    study = plan_sweep("transfer_bert", storage=DATABASE).with_values(name="s")
    (tmp_path / "study.yaml").write_text(dump_yaml(study), encoding="utf-8")
    before = stored_study(tmp_path, SweepStudy)
    with pytest.raises(UserError, match="--storage URL once more"):
        plan_sweep("transfer_bert", storage=before.storage).continued(before, "here")
