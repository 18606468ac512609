"""The shipped machine profiles say what the hardware can do."""

from pathlib import Path

import pytest

from dure.config import available, load_profile
from dure.config.deepspeed import deepspeed_settings
from dure.errors import UserError

NAMES = ["cpu", "m4", "rtx2070s", "rtx3080ti", "rtx3090", "dgx"]
SHARED_OUT = {"rtx2070s_offload": ("rtx2070s", "zero2_offload"), "dgx_zero2": ("dgx", "zero2")}


def test_the_six_machines_are_shipped() -> None:
    assert sorted(available("profile")) == sorted([*NAMES, *SHARED_OUT])


@pytest.mark.parametrize("name", SHARED_OUT)
def test_a_profile_with_deepspeed_is_a_machine_that_is_never_recognised_by_itself(name: str) -> None:
    machine, settings = SHARED_OUT[name]
    profile, plain = load_profile(name), load_profile(machine)
    assert (profile.deepspeed, profile.match) == (settings, ())
    assert not profile.trains_in_process
    assert plain.trains_in_process
    assert (profile.device, profile.memory_mb) == (plain.device, plain.memory_mb)


@pytest.mark.parametrize("name", ["zero2", "zero2_offload", "zero3", "zero3_offload"])
def test_deepspeed_settings_say_how_a_model_is_shared_out_and_nothing_else(name: str) -> None:
    settings = deepspeed_settings(name)
    zero = settings.pop("zero_optimization")
    assert zero["stage"] == int(name[4])
    assert ("offload_optimizer" in zero) == name.endswith("_offload")
    assert settings == {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "torch_autocast": {"enabled": "auto", "dtype": "auto"},
        "fp16": {"enabled": "auto"},
    }


def test_an_unknown_name_of_deepspeed_settings_is_an_error_of_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: cpu\nname: mine\ndeepspeed: zero4\n", encoding="utf-8")
    with pytest.raises(UserError, match="zero4") as caught:
        load_profile(str(path))
    assert "mine.yaml" in caught.value.where


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_loads_under_the_name_of_its_file_and_says_why(name: str) -> None:
    file = available("profile")[name]
    assert load_profile(name).name == name
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_no_machine_computes_in_fp16_by_default(name: str) -> None:
    assert load_profile(name).precision != "fp16"  # T5 and mT5 overflow in it


@pytest.mark.parametrize(
    ("name", "device", "memory_mb", "precision", "quantization"),
    [
        ("cpu", "cpu", None, "fp32", True),
        ("m4", "mps", 16384, "fp32", False),
        ("rtx2070s", "cuda", 7800, "fp32", True),
        ("rtx3080ti", "cuda", 12000, "bf16", True),
        ("rtx3090", "cuda", 24000, "bf16", True),
        ("dgx", "cuda", 80000, "bf16", True),
    ],
)
def test_the_hardware_is_described_as_it_is(
    name: str, device: str, memory_mb: int | None, precision: str, quantization: bool
) -> None:
    profile = load_profile(name)
    assert (profile.device, profile.memory_mb) == (device, memory_mb)
    assert (profile.precision, profile.quantization) == (precision, quantization)
    assert profile.num_workers == 1
    assert profile.gpus_per_worker == (1 if device == "cuda" else 0)


@pytest.mark.parametrize(
    ("device_name", "expected"),
    [
        ("NVIDIA GeForce RTX 2070 SUPER", "rtx2070s"),
        ("NVIDIA GeForce RTX 3080 Ti", "rtx3080ti"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA A100-SXM4-80GB", "dgx"),
        ("NVIDIA H100 80GB HBM3", "dgx"),
        ("Apple M4 Pro", "m4"),
        ("NVIDIA GeForce RTX 3080", None),
        ("Tesla V100-SXM2-32GB", None),
    ],
)
def test_a_device_name_leads_to_at_most_one_profile(device_name: str, expected: str | None) -> None:
    matching = [name for name in NAMES if any(text in device_name for text in load_profile(name).match)]
    assert matching == ([expected] if expected else [])


def test_a_dgx_can_give_all_its_gpus_to_one_trial(tmp_path: Path) -> None:
    file = tmp_path / "dgx_together.yaml"
    file.write_text("extends: dgx\nname: dgx_together\nnum_workers: 8\n", encoding="utf-8")
    profile = load_profile(str(file))
    assert (profile.num_workers, profile.gpus_per_worker, profile.precision) == (8, 1, "bf16")
