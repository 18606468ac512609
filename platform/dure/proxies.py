"""What is asked of this machine by HTTP, as Ray's dashboard is with the cluster's token, and no proxy should be asked for."""

from __future__ import annotations

import os
import urllib.request

NO_PROXY = "no_proxy"
"""Environment variable: what is not asked for through a proxy."""
_HERE = ("localhost", "127.0.0.1")


def ask_here_directly() -> None:
    """Leave this machine out of what a proxy of the environment is asked for, here and in processes that start from now on.

    Does nothing without a proxy: on macOS the variable alone would hide those of the system.
    """
    proxies = urllib.request.getproxies_environment()
    names = [name.strip() for name in proxies.get("no", "").split(",") if name.strip()]
    if proxies.keys() - {"no"} and "*" not in names:
        os.environ[NO_PROXY] = ",".join(dict.fromkeys((*names, *_HERE)))
