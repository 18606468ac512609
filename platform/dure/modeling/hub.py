"""The model hub, which may be out of reach: what was fetched before is of use without it."""

from __future__ import annotations

import logging
import ssl
import threading
from functools import cache
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, try_to_load_from_cache

from dure.config.schema import ModelConfig
from dure.errors import UserError

logger = logging.getLogger(__name__)

SECONDS = 3.0
"""Longest wait for the hub's first answer: names are looked up and addresses tried one by one within it."""
TOKEN_HINT = "a private or gated model needs HF_TOKEN in the environment or in .env"


def is_hub_name(checkpoint: str) -> bool:
    """Return whether a checkpoint is named as the hub names models, ``model`` or ``owner/model``."""
    return not checkpoint.startswith((".", "/")) and checkpoint.count("/") <= 1


@cache
def go_on_without_hub() -> None:
    """Take models from this machine for the rest of this process when the hub does not answer; asks it once.

    The hub's own client asks again and again for every file of a model before it takes the one that it has: more than
    a minute for a model of nine files, measured with a hub that refuses connections.
    """
    if constants.HF_HUB_OFFLINE:
        return
    lost = _why_lost(constants.ENDPOINT)
    if lost is not None:
        constants.HF_HUB_OFFLINE = True
        logger.warning(
            "the model hub %s is out of reach (%s): models are taken from this machine, where they were fetched before",
            constants.ENDPOINT,
            lost,
        )


def is_on_hub(settings: ModelConfig) -> bool:
    """Return whether a checkpoint is one of the hub, by its name."""
    named = settings.checkpoint
    if Path(named).exists() or not is_hub_name(named):
        return False
    # A word may be the family's own, as Red Heart's for random weights.
    return "/" in named or settings.architecture is not None


def require_checkpoint(settings: ModelConfig) -> None:
    """Check that a checkpoint of the hub was fetched before, or that the hub answers; folders are not looked at.

    Raises:
        UserError: Neither.
    """
    named = settings.checkpoint
    if not is_on_hub(settings):
        return
    try:
        found = try_to_load_from_cache(named, "config.json", revision=settings.revision or "main")
    except ValueError:  # no name of the hub, which loading says
        return
    if isinstance(found, str):
        return
    go_on_without_hub()
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"'{named}' is not on this machine, and the model hub {constants.ENDPOINT} is out of reach",
            where="model.checkpoint",
            hint=f"model.checkpoint=FOLDER of a saved copy, or --rehearse; {TOKEN_HINT}",
        )


def _why_lost(endpoint: str) -> str | None:
    """Return why the hub is out of reach, or None; no answer within :data:`SECONDS` is a reason too."""
    answers: list[str | None] = []
    asking = threading.Thread(target=lambda: answers.append(_ask(endpoint)), name="hub", daemon=True)
    asking.start()
    asking.join(SECONDS)
    return answers[0] if answers else f"no answer in {SECONDS:g} seconds"


def _ask(endpoint: str) -> str | None:
    try:
        with urlopen(Request(endpoint, method="HEAD"), timeout=SECONDS):
            return None
    except HTTPError as error:
        # Whatever else it answers, it is there.
        return f"HTTP {error.code}" if error.code in (502, 503, 504) else None
    except URLError as error:
        # Certificates are the client's own affair, which may know others.
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except OSError as error:
        return str(error)
