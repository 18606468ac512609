"""What must not be shown: values of secret environment variables, and passwords in URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables that runs read and nobody else should."""
CLOUD_SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"),
    *("GOOGLE_APPLICATION_CREDENTIALS_JSON", "GOOGLE_API_KEY"),
    *(
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_SECRET",
    ),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "MYSQL_PWD"),
)
"""Environment variables that cloud providers, trackers and databases are reached by."""
_LOOKS_SECRET = re.compile(
    r"(^|_)(SECRETS?|(SSH)?PASS(WORD|WD|PHRASE)?|TOKEN|PAT|JWT|BEARER|(API|ACCESS)?KEY|(?<!APPLICATION_)CREDENTIALS"
    r"|CONNECTION_STRING|WEBHOOK_URL|AUTH_CONFIG)(_ID|_KEY|_JSON)?(_?\d+)?$"
)
"""Names by which people call secrets of their own."""
_SHORTEST = 6
"""A shorter value is no secret, and would be found in the middle of words."""
_HIDDEN_VALUE = "<hidden>"
HIDDEN = "***"
"""What stands in a URL in place of a password."""
_PASSWORD = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://[^\s:/@'\"]*):(?:[^\s'\"]|['\"](?=[^\s'\",;:)\]}]))*@", re.IGNORECASE
)
"""Up to the last ``@``, since a password may hold one; a quote belongs to it where no list or sentence goes on."""
_TOKEN_AS_USER = re.compile(r"(\bhttps?://)[^\s:/@'\"]+@", re.IGNORECASE)
_OPTION = re.compile(
    r"((?:[?&;#]|\b(?=passw))[\w.-]*(?:password|passwd|pwd|secret|token|key|signature|sig|credential)[\w.-]*=)"
    r"[^&;\s#'\"]+",
    re.IGNORECASE,
)
"""An option of a URL, and one of the ``name=value`` lists by which databases and storage accounts are reached."""


def is_secret(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret."""
    return name in (*SECRETS, *CLOUD_SECRETS) or _LOOKS_SECRET.search(name.upper()) is not None


def without_passwords(text: str) -> str:
    """Return a text in which no URL, and no list of options, shows a password, a token or a key."""
    if "://" in text:
        text = _PASSWORD.sub(rf"\1:{HIDDEN}@", text)
        text = _TOKEN_AS_USER.sub(rf"\1{HIDDEN}@", text)
    return _OPTION.sub(rf"\1{HIDDEN}", text)


def redacted(text: str, more: Iterable[str] = ()) -> str:
    """Return a text without the values of this environment's secrets, and without passwords in URLs."""
    values = {value for name, value in os.environ.items() if is_secret(name)} | set(more)
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN_VALUE)
    return without_passwords(text)
