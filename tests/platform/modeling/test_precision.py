"""The table of precisions: what is asked for, on which machine, for which model."""

from __future__ import annotations

import pytest
import torch

from dure.config.schema import Profile
from dure.errors import UserError
from dure.modeling.precision import resolve, weights_dtype


def profile(device: str, precision: str) -> Profile:
    gpus = 1 if device == "cuda" else 0
    return Profile.model_validate(
        {"name": "machine", "device": device, "gpus_per_worker": gpus, "precision": precision}
    )


@pytest.mark.parametrize(
    ("asked", "device", "has", "model", "expected", "lines"),
    [
        ("auto", "cuda", "bf16", "mt5", "bf16", 0),
        ("auto", "cuda", "bf16", "bart", "bf16", 0),
        ("auto", "cuda", "fp16", "bart", "fp16", 0),
        ("auto", "cuda", "fp16", "mt5", "fp32", 1),
        ("auto", "cuda", "fp16", "t5", "fp32", 1),
        ("auto", "cpu", "fp32", "t5", "fp32", 0),
        ("fp32", "cuda", "bf16", "t5", "fp32", 0),
        ("bf16", "cpu", "fp32", "t5", "bf16", 0),
        ("fp16", "cuda", "bf16", "bart", "fp16", 0),
    ],
)
def test_precision_follows_request_machine_and_model(
    asked: str, device: str, has: str, model: str, expected: str, lines: int
) -> None:
    told: list[str] = []
    assert resolve(asked, profile(device, has), model, told.append) == expected  # type: ignore[arg-type]
    assert len(told) == lines


@pytest.mark.parametrize(("device", "model"), [("cuda", "t5"), ("cuda", "mt5"), ("cpu", "bart")])
def test_fp16_is_refused_where_it_cannot_work(device: str, model: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("fp16", profile(device, "fp32"), model, print)
    assert caught.value.where == "training.precision"


def test_trained_weights_are_fp32_and_frozen_ones_in_the_format_of_the_computation() -> None:
    assert weights_dtype("bf16", frozen=False) == torch.float32
    assert weights_dtype("bf16", frozen=True) == torch.bfloat16
    assert weights_dtype("fp16", frozen=True) == torch.float16
