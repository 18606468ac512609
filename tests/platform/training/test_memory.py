"""What a run took: the peak of its memory, and how busy the processor was."""

from __future__ import annotations

import threading
import time

import torch

from dure.training import memory


def test_the_peak_holds_what_was_freed_before_the_end():
    with memory.Usage("cpu") as usage:
        before = usage.peak_mb
        assert before > 10
        held = torch.ones(64 * 1024 * 1024)  # 256 MB, written to
        time.sleep(0.5)
        del held
        memory.release()
    assert usage.peak_mb - before > 200
    assert memory.resident_mb() - before < 100


def test_a_busy_process_shows_its_processor_time_and_a_sleeping_one_none():
    with memory.Usage("cpu") as usage:
        time.sleep(0.4)
        idle = usage.cpu_percent
    with memory.Usage("cpu") as usage:
        began = time.process_time()
        while time.process_time() - began < 0.3:
            pass
        busy = usage.cpu_percent
    assert 0 <= idle < busy
    assert idle < 40
    assert busy <= 250


def test_measuring_ends_with_the_body_also_when_it_fails():
    def watchers():
        return [each for each in threading.enumerate() if each.name == "memory"]

    others = len(watchers())
    try:
        with memory.Usage("cpu"):
            assert len(watchers()) == others + 1
            raise ArithmeticError
    except ArithmeticError:
        pass
    assert len(watchers()) == others
