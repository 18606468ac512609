from __future__ import annotations

import pytest
import torch
from torch import nn

from dure.epochs import mixing
from dure.epochs.mixing import EpochWeights, tied_names
from dure.errors import UserError
from dure.modeling.weights import load_weights, save_weights

MODULES = {"body": ("body.",), "head": ("head.",)}


class Net(nn.Module):
    """A body and a head, a counter, and a constant that no module owns."""

    def __init__(self, value=0.0, *, tied=False):
        super().__init__()
        self.body = nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        self.body.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("constant", torch.tensor([3.0]))
        nn.init.constant_(self.body.weight, value)
        nn.init.constant_(self.head.weight, 10 * value)
        if tied:
            self.head.weight = self.body.weight


def write(folder, nets):
    files = {}
    for epoch, net in nets.items():
        files[epoch] = folder / f"epoch_{epoch}.pt"
        save_weights(net, files[epoch], {"epoch": epoch, "step": epoch})
    return files


@pytest.fixture
def weights(tmp_path):
    return EpochWeights(write(tmp_path, {epoch: Net(epoch) for epoch in (2, 4, 6)}), MODULES)


def figures(state):
    return float(state["body.weight"][0, 0]), float(state["head.weight"][0, 0])


def test_each_module_comes_from_its_own_epoch(weights):
    state = weights.build(mixing.selective({"body": 2, "head": 6}))
    assert figures(state) == (2.0, 60.0)
    assert state["body.count"] == 2
    assert list(state) == list(Net().state_dict())
    Net().load_state_dict(state)


def test_neighbours_count_half(weights):
    state = weights.build(mixing.weighted({"body": 4, "head": 2}, weights.epochs))
    assert figures(state) == pytest.approx((4.0, (20 * 1 + 40 * 0.5) / 1.5))


def test_a_module_lies_between_two_epochs(weights):
    state = weights.build(mixing.interpolated({"body": 2, "head": 6}, 6, 0.25))
    assert figures(state) == pytest.approx((0.75 * 2 + 0.25 * 6, 60.0))


def test_a_soup_is_the_mean_of_its_epochs(weights):
    assert figures(weights.build(mixing.soup(MODULES, [2, 4, 6]))) == pytest.approx((4.0, 40.0))


def test_a_counter_is_never_averaged(weights):
    state = weights.build({"body": {2: 0.5, 4: 0.5}, "head": {2: 1.0}})
    assert state["body.count"].dtype == torch.int64
    assert state["body.count"] == 4
    assert weights.build({"body": {2: 0.6, 4: 0.4}, "head": {2: 1.0}})["body.count"] == 2


def test_half_precision_is_averaged_in_full_and_stays_half(tmp_path):
    nets = {epoch: Net(value).half() for epoch, value in ((1, 1.0), (2, 1.001), (3, 1.002))}
    built = EpochWeights(write(tmp_path, nets), MODULES).build(mixing.soup(MODULES, [1, 2, 3]))
    exact = sum(net.body.weight.double() for net in nets.values()) / 3
    assert built["body.weight"].dtype == torch.float16
    assert torch.equal(built["body.weight"], exact.half())


def test_tied_weights_stay_tied_and_follow_the_first_module(tmp_path):
    files = write(tmp_path, {epoch: Net(epoch, tied=True) for epoch in (1, 2)})
    for recipe in ({"body": {1: 1.0}, "head": {2: 1.0}}, {"body": {1: 0.5, 2: 0.5}, "head": {2: 1.0}}):
        state = EpochWeights(files, MODULES).build(recipe)
        assert state["head.weight"] is state["body.weight"]
        assert figures(state)[0] == recipe["body"].get(1) * 1 + recipe["body"].get(2, 0) * 2
    assert tied_names(Net(tied=True).state_dict()) == [("body.weight", "head.weight")]


def test_ties_that_a_file_does_not_hold_are_kept_when_they_are_named(tmp_path):
    files = write(tmp_path, {epoch: Net(epoch) for epoch in (1, 2)})
    ties = tied_names(Net(tied=True).state_dict())
    state = EpochWeights(files, MODULES, ties=ties).build(mixing.selective({"body": 1, "head": 2}))
    assert state["head.weight"] is state["body.weight"]
    assert figures(state) == (1.0, 1.0)


def test_a_tensor_in_no_module_is_named_unless_no_epoch_changed_it(tmp_path):
    files = write(tmp_path, {epoch: Net(epoch) for epoch in (1, 2)})
    with pytest.raises(UserError, match=r"'head\.weight' changed") as caught:
        EpochWeights(files, {"body": ("body.",)})
    assert "body" in str(caught.value.expected)
    assert EpochWeights(files, MODULES).build(mixing.whole(MODULES, 1))["constant"] == 3


def test_the_longest_prefix_owns_a_tensor(tmp_path):
    files = write(tmp_path, {epoch: Net(epoch) for epoch in (1, 2)})
    weights = EpochWeights(files, {"all": ("",), "head": ("head.",)})
    assert figures(weights.build(mixing.selective({"all": 1, "head": 2}))) == (1.0, 20.0)


def test_files_of_different_models_or_of_nobody_are_refused(tmp_path):
    files = write(tmp_path, {1: Net(1), 2: nn.Linear(2, 2)})
    with pytest.raises(UserError, match=r"another model than those of epoch_1\.pt"):
        EpochWeights(files, MODULES)
    (tmp_path / "epoch_3.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no file of torch\.save"):
        EpochWeights({3: tmp_path / "epoch_3.pt"}, MODULES)
    with pytest.raises(UserError, match="no weights"):
        EpochWeights({}, MODULES)


@pytest.mark.parametrize(
    "recipe",
    [
        {"body": {2: 1.0}},
        {"body": {2: 1.0}, "head": {3: 1.0}},
        {"body": {2: 1.0}, "head": {2: 0.5, 4: 0.4}},
    ],
)
def test_a_recipe_that_does_not_add_up_is_refused(weights, recipe):
    with pytest.raises(ValueError, match=r"modules|weights|add up"):
        weights.build(recipe)


def test_what_is_built_loads_into_a_model_and_reads_nothing_twice(weights, tmp_path):
    state = weights.build(mixing.selective({"body": 2, "head": 6}))
    # Weights of one source are the mapped file itself.
    assert (
        state["body.weight"].data_ptr() == weights.build(mixing.whole(MODULES, 2))["body.weight"].data_ptr()
    )
    net = Net()
    load_weights(net, weights.files[4])
    assert figures(net.state_dict()) == (4.0, 40.0)
