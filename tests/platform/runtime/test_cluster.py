"""A cluster of one's own, and what is left of it in the process that had it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, sys

def answer(number, frame):
    print("answered", flush=True)

signal.signal(signal.SIGTERM, answer)
from dure.runtime.cluster import cluster
with cluster():
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_answers_sigterm_itself_beside_a_cluster_and_after_it():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout.split() == ["answered", "answered"], ended.stderr
    assert ended.returncode == 0
