"""What a run took: the peak of its memory, and how busy the processor was."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which memory is of files")
def test_the_pages_that_a_first_step_reads_are_in_the_memory_that_is_forecast():
    program = (
        "import psutil, torch\n"
        "from dure.config import load_experiment, load_profile, rehearsal_of\n"
        "from dure.family import load_family\n"
        "from dure.preflight.foreseeing import foresee\n"
        "of_files = lambda: psutil.Process().memory_info().shared\n"
        "few = {'rehearsal.max_train_rows': 32, 'rehearsal.num_layers': 1}\n"
        "experiment = rehearsal_of(load_experiment('red_heart_tiny').with_(few))\n"
        "foresee(load_family(experiment), load_profile('cpu'))\n"
        "before = of_files()\n"
        "layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64))\n"
        "torch.nn.functional.cross_entropy(layer(torch.ones(8, 64)), torch.ones(8).long()).backward()\n"
        "torch.optim.AdamW(layer.parameters(), fused=True).step()\n"
        "print((of_files() - before) / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) < 3


def test_reading_the_kernels_leaves_the_numbers_of_chance():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    memory.read_kernels.__wrapped__()
    assert torch.equal(torch.rand(2), expected)
