"""The token that clusters of this user ask for: in a file that nobody else can read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_NOBODY_ELSE = 0o600


def keep_token_private() -> None:
    """Make the token file of this user readable for its owner alone, or write it so before Ray does: that lets all read it.

    Nothing is written where a token is given by other means, or none is asked for.
    """
    file = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # where the home cannot be written to, Ray says what that means
        if file.is_file():
            if file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
                file.chmod(_NOBODY_ELSE)
        elif _is_wanted():
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NOBODY_ELSE)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(32))


def _is_wanted() -> bool:
    is_given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return not is_given and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
