"""Dropout from bits drops the asked share by chance, scales the rest, and leaves no trace beside a step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dure.modeling.cpu_layers import CpuLayers
from dure.modeling.dropout import dropout_factors, dropout_from_bits

NUMBER = 2**20


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_each_is_dropped_with_the_probability_and_the_mean_stays(p):
    torch.manual_seed(3)
    factors = dropout_factors(torch.empty(NUMBER), p).double()
    dropped = factors == 0
    share = dropped.double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / NUMBER) + 2**-17
    kept = factors[~dropped].unique()
    assert kept.tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    assert abs(factors.mean().item() - 1) < 5 * math.sqrt(p / (1 - p) / NUMBER)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_what_is_dropped_says_nothing_of_what_else_is(p):
    torch.manual_seed(3)
    dropped = (dropout_factors(torch.empty(NUMBER), p) == 0).double()
    spread = p * (1 - p)
    for apart in (1, 2, 3, 4, 5, 8, 64, 1024):  # four elements share a draw
        together = (dropped[:-apart] - p) * (dropped[apart:] - p)
        assert abs(together.mean().item()) < 5 * spread / math.sqrt(NUMBER), apart
    # By chance every kind of four elements of one draw comes as often as its probabilities say.
    kinds = (dropped.reshape(-1, 4) @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    counts = torch.bincount(kinds, minlength=16).double()
    ones = torch.tensor([bin(kind).count("1") for kind in range(16)])
    expected = NUMBER / 4 * p**ones * (1 - p) ** (4 - ones)
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < 37.7  # the thousandth part of chi squared with 15 degrees of freedom


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 4), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_pass_where_values_pass(shape, dtype):
    given = torch.ones(shape, dtype=dtype, requires_grad=True)
    with dropout_from_bits():
        found = functional.dropout(given, 0.3, True)
    found.sum().backward()
    assert (found.shape, found.dtype) == (given.shape, dtype)
    assert torch.equal(given.grad, found.detach())


def test_the_random_state_decides_and_goes_on():
    layer, given = nn.Dropout(0.2).train(), torch.ones(1000)
    with dropout_from_bits():
        torch.manual_seed(1)
        first, second = layer(given), layer(given)
        torch.manual_seed(1)
        again = layer(given)
        state = torch.get_rng_state()
        third = layer(given)
        torch.set_rng_state(state)
        assert torch.equal(layer(given), third)
    assert torch.equal(first, again)
    assert torch.equal(second, third)
    assert not torch.equal(first, second)


def test_in_its_place_and_where_nothing_is_dropped():
    given = torch.ones(1000)
    with dropout_from_bits():
        assert functional.dropout(given, 0.2, False) is given
        assert torch.equal(functional.dropout(given, 0.0, True), given)
        assert functional.dropout(given, 1.0, True).count_nonzero() == 0
        assert functional.dropout(given, 0.2, True, True) is given
        assert 0 < given.count_nonzero() < 1000
        with pytest.raises(ValueError, match="between 0 and 1"):
            functional.dropout(given, 1.5, True)


def test_it_is_gone_after_a_step_also_after_one_that_fails():
    own = functional.dropout

    def fails():
        assert functional.dropout is not own
        raise MemoryError

    with pytest.raises(MemoryError), CpuLayers(nn.Linear(2, 2)).applied():
        fails()
    assert functional.dropout is own
