"""What many tests share: a cache of their own, tiny experiments, and the folder of public data."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers with a niceness of 15, by which they wait for whatever else computes: the other half
# of the suite, for one.
os.environ.setdefault("RAY_worker_niceness", "0")

# How long one example takes says how busy the machine is. The default run tries the same examples every time, so that it
# does not fail by chance; the thorough tests, which are slow, try others.
settings.register_profile("dure", deadline=None, derandomize=True)
settings.load_profile("dure")

REPOSITORY = Path(__file__).parents[1]
HEAVY = tuple(
    REPOSITORY / "tests" / name for name in ("e2e", "platform/studies", "platform/runtime", "trainables")
)
"""Where files take half a minute and more."""


LIGHT = (
    "plan",
    "report",
    "results",
    "plot",
    "race",
    "forecast",
    "comparison",
    "verdict",
    "confusion",
    "study",
)
"""What of a kind of study needs neither Ray nor a model, by the names of its tests."""
TRAINING = (
    REPOSITORY / "tests/docs",
    *(
        REPOSITORY / "tests/platform" / name
        for name in (
            "training", "family", "jobs", "events", "exports", "preflight", "resume_check", "test_python.py",
            "epochs/test_driver.py", "modeling/test_hub_lost.py", "modeling/test_rehearsal.py",
            "reporting/test_tracking.py", "runs/test_disk.py", "runs/test_lock.py", "runs/test_manifest.py", "serving",
            "data/test_encoding.py",
        )
    ),
)  # fmt: skip
"""Where most tests train a model or start a process, too."""


def is_heavy(file):
    """Return whether the tests of a file start Ray, a process or a training."""
    if file.is_relative_to(REPOSITORY / "tests/platform/studies"):
        return file.stem.removeprefix("test_") not in LIGHT
    return any(file.is_relative_to(folder) for folder in (*HEAVY, *TRAINING))


def pytest_collection_modifyitems(items):
    """Mark what is heavy, and begin with the heaviest, so that light files fill up the end of two processes."""
    for item in items:
        if is_heavy(item.path):
            item.add_marker(pytest.mark.heavy)
    items.sort(key=lambda item: not any(item.path.is_relative_to(folder) for folder in HEAVY))


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Let the garbage collector, which every run starts, pass over what the files before this one imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def own_sigterm():
    """Take Ray's answer to SIGTERM from the process again, which its forked children would give, and wait."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep tables and encoded rows of the tests apart from the user's."""
    monkeypatch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny():
    """Make a rehearsal of a few steps: ``tiny("t5", "lora", max_steps=2)``."""
    from dure.config import rehearsal_of
    from dure.config.schema import Experiment

    targets = {
        "bart": ["q_proj", "v_proj"],
        "bert": ["query", "value"],
        "distilbert": ["q_lin", "v_lin"],
        "electra": ["query", "value"],
        "roberta": ["query", "value"],
        "deberta-v2": ["query_proj", "value_proj"],
        "modernbert": ["Wqkv"],
    }
    decoders = ("llama", "qwen2", "qwen3", "gemma3_text", "exaone4")
    targets |= {name: ["q_proj", "v_proj"] for name in decoders}
    classifiers = ("bert", "distilbert", "electra", "roberta", "deberta-v2", "modernbert")

    def make(
        architecture: str = "t5",
        kind: str = "lora",
        *,
        family: str | None = None,
        task: dict | None = None,
        objective: dict | None = None,
        **training,
    ) -> Experiment:
        named = dict.fromkeys(classifiers, "transfer") | dict.fromkeys(decoders, "causal")
        lora = {"rank": 4, "alpha": 8, "targets": targets.get(architecture, ["q", "v"])}
        return rehearsal_of(
            Experiment.model_validate(
                {
                    "family": family or f"trainables.{named.get(architecture, 'summarization')}",
                    "experiment": {"name": f"tiny_{architecture}_{kind}"},
                    "model": {
                        "checkpoint": "nowhere/nothing",
                        "architecture": architecture,
                        "quantization": {"type": "nf4", "double": True} if kind == "qlora" else None,
                    },
                    "tokenizer": {
                        "encoder_max_len": 64,
                        "decoder_max_len": 24,
                        "special_tokens": ["#Person1#", "#Person2#", "#Person3#"],
                    },
                    "training": {
                        "batch_size": 4,
                        "learning_rate": 1e-4,
                        "log_every": 1,
                        "warmup_ratio": 0.1,
                        "best_metric": "eval_accuracy" if architecture in classifiers else "eval_rouge_sum",
                        **training,
                    },
                    "objective": objective or {},
                    "generation": {"max_length": 12, "num_beams": 2},
                    "lora": None if kind == "full" else lora,
                    "rehearsal": {
                        "hidden_size": 64,
                        "num_layers": 1,
                        "num_heads": 2,
                        "vocab_size": 400,
                        "max_steps": 6,
                        "num_evaluations": 3,
                        "max_train_rows": 40,
                        "max_dev_rows": 6,
                    },
                    "task": ({} if architecture in classifiers else {"rouge_tokenizer": "character"})
                    if task is None
                    else task,
                }
            )
        )

    return make


@pytest.fixture(scope="session")
def cpu():
    """The profile of a machine without GPU."""
    from dure.config import load_profile

    return load_profile("cpu")


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory):
    """One Ray for the studies of many tests, which join it; a start of their own costs each of them ten seconds."""
    from tests.platform.studies.two_nodes import several_nodes

    with pytest.MonkeyPatch.context() as patch:
        # What its processes inherit.
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        with several_nodes({"CPU": 2}, include_dashboard=True) as nodes:
            yield nodes.address


@pytest.fixture
def shared_data():
    """Real public data beside the repository; tests that need it are skipped where it is not."""
    top = subprocess.run(
        ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    for folder in (REPOSITORY.parent, Path(top).parents[1] if top else REPOSITORY.parent):
        if (folder / "shared" / "data").is_dir():
            return folder / "shared" / "data"
    pytest.skip("shared/data is not beside the repository")
