"""The model hub, which may be out of reach: what was fetched before is of use without it."""

from __future__ import annotations

import logging
import ssl
from functools import cache
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Longest wait for the hub's first answer."""


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


def _why_lost(endpoint: str) -> str | None:
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
