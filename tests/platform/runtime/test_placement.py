"""As many trials side by side as the nodes hold: never one that would starve another, never more than there is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dure.config.schema import Profile
from dure.errors import UserError
from dure.files import append_json_line, read_json_lines
from dure.runtime.placement import (
    fitting_trials,
    fitting_workers,
    require_room,
    trial_bundle,
    worker_resources,
    workers_on,
)

UNITS = 10_000
"""Ray's own: it counts in ten-thousandths."""


def units(amount: float) -> int:
    return round(amount * UNITS)


@dataclass
class Node:
    """What is free on a node, its GPUs one by one."""

    cpu: int
    gpus: list[int]

    def fits(self, worker: dict[str, float]) -> bool:
        gpu = units(worker.get("GPU", 0))
        enough = (
            sum(free == UNITS for free in self.gpus) * UNITS >= gpu
            if gpu >= UNITS
            else gpu == 0 or any(free >= gpu for free in self.gpus)
        )
        return self.cpu >= units(worker.get("CPU", 0)) and enough

    def take(self, worker: dict[str, float]) -> tuple[int, dict[int, int]]:
        gpu, taken = units(worker.get("GPU", 0)), {}
        if gpu >= UNITS:
            taken = dict.fromkeys(
                [place for place, free in enumerate(self.gpus) if free == UNITS][: gpu // UNITS], UNITS
            )
        elif gpu:
            # Ray fills up the GPU with the least room that is enough.
            taken = {
                min(
                    (place for place, free in enumerate(self.gpus) if free >= gpu),
                    key=lambda place: self.gpus[place],
                ): gpu
            }
        self.give((-units(worker.get("CPU", 0)), {place: -amount for place, amount in taken.items()}))
        return units(worker.get("CPU", 0)), taken

    def give(self, back: tuple[int, dict[int, int]]) -> None:
        self.cpu += back[0]
        for place, amount in back[1].items():
            self.gpus[place] += amount
        assert self.cpu >= 0, "over-commit"
        assert all(0 <= free <= UNITS for free in self.gpus), "over-commit"


@dataclass
class Model:
    """Ray's placement: groups of bundles are reserved whole or not at all, packed onto as few nodes as possible."""

    nodes: list[Node]
    held: dict[str, list[tuple[Node, tuple[int, dict[int, int]]]]] = field(default_factory=dict)

    def reserve(self, name: str, bundles: list[dict[str, float]], order: list[int]) -> bool:
        got = []
        for bundle in bundles:
            used = [node for node, _ in got]
            places = sorted(order, key=lambda place: self.nodes[place] not in used)
            node = next((self.nodes[place] for place in places if self.nodes[place].fits(bundle)), None)
            if node is None:
                for each, back in got:
                    each.give(back)
                return False
            got.append((node, node.take(bundle)))
        self.held.setdefault(name, []).extend(got)
        return True

    def release(self, name: str) -> None:
        for node, back in self.held.pop(name, []):
            node.give(back)


def run_all(
    model: Model,
    *,
    trials: int,
    side_by_side: int,
    holder: dict[str, float],
    workers: list[dict[str, float]],
    choice,
) -> int:
    """Run trials to their end, their starts and ends in any order; return the most that ran at once.

    As in Tune, a trial starts when what it holds itself is free, and then asks for its workers.
    """
    pending, started, running, most = list(range(trials)), [], [], 0
    while pending or started or running:
        moved = False
        while pending and len(started) + len(running) < side_by_side:
            if not model.reserve(f"trial {pending[0]}", [holder], choice.order(len(model.nodes))):
                break
            started.append(pending.pop(0))
            moved = True
        for trial in list(started):
            if model.reserve(f"trial {trial}", workers, choice.order(len(model.nodes))):
                started.remove(trial)
                running.append(trial)
                moved = True
        most = max(most, len(running))
        if running:
            ended = running.pop(choice.index(len(running)))
            model.release(f"trial {ended}")
            moved = True
        assert moved, f"deadlock: {started} wait for workers, {pending} to start"
    return most


class Choice:
    """Orders that hypothesis chooses."""

    def __init__(self, data):
        self.data = data

    def order(self, count: int) -> list[int]:
        return self.data.draw(st.permutations(range(count)))

    def index(self, count: int) -> int:
        return self.data.draw(st.integers(0, count - 1))


def profile(workers: int = 1, cpus: float = 1, gpus: float = 0, **more) -> Profile:
    return Profile(
        name="any", device="cuda" if gpus else "cpu", num_workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus, **more
    )  # fmt: skip


def node(cpu: float, gpu: int = 0) -> dict[str, float]:
    return {"CPU": cpu, "GPU": float(gpu), "memory": 1e9, "node:10.0.0.1": 1.0}


NODES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=4)
CPUS = st.sampled_from([0.1, 0.3, 0.5, 1, 1.5, 2, 3, 4])
GPUS = st.sampled_from([0, 0, 0.1, 0.25, 0.3, 0.4, 0.5, 0.6, 1, 2])


@given(NODES, st.integers(1, 4), CPUS, GPUS, st.integers(1, 8), st.data())
def test_all_trials_end_and_nothing_is_given_out_twice(nodes, num_workers, cpus, gpus, trials, data):
    assume(num_workers == 1 or float(gpus).is_integer())
    chosen = profile(num_workers, cpus, gpus)
    try:
        side_by_side = fitting_trials(chosen, [node(*each) for each in nodes])
    except UserError:
        side_by_side = 0
    worker = worker_resources(chosen)
    holder, workers = trial_bundle(chosen), [] if chosen.trains_in_process else [worker] * num_workers

    def model() -> Model:
        return Model([Node(units(cpu), [UNITS] * gpu) for cpu, gpu in nodes])

    choice = Choice(data)
    if side_by_side:
        # Even when they all start first, and their workers are placed in whatever order.
        most = run_all(
            model(), trials=trials, side_by_side=side_by_side, holder=holder, workers=workers, choice=choice
        )
        assert most == min(trials, side_by_side)
    # Not one more would have found room.
    full = model()
    for number in range(side_by_side):
        assert full.reserve(f"{number}", [worker] * num_workers, choice.order(len(nodes)))
    assert not full.reserve("one more", [worker] * num_workers, choice.order(len(nodes)))


def test_trials_that_took_cpus_of_their_workers_would_wait_for_each_other_for_ever():
    """The model finds the deadlock that a trial's own process would cause if it asked for a CPU."""
    both = Model([Node(units(2), [])])
    with pytest.raises(AssertionError, match="deadlock"):
        run_all(
            both, trials=2, side_by_side=2, holder={"CPU": 1}, workers=[{"CPU": 1}, {"CPU": 1}], choice=_First
        )


class _First:
    @staticmethod
    def order(count):
        return list(range(count))

    @staticmethod
    def index(count):
        return 0


def test_a_trial_in_its_own_process_is_on_one_node_and_workers_may_be_on_several():
    two_small = [node(3), node(3)]
    with pytest.raises(UserError) as refused:
        fitting_trials(profile(cpus=4), two_small)
    assert str(refused.value) == (
        "profile any: one trial needs 4 CPU on one node; the largest of its 2 node(s) has 3 CPU\n"
        "  try: another --profile, or a cluster with more"
    )
    assert fitting_trials(profile(workers=2, cpus=2), two_small) == 1
    assert fitting_trials(profile(cpus=2), two_small) == 2
    with pytest.raises(UserError) as refused:
        fitting_trials(profile(workers=3, cpus=2), two_small)
    assert "one trial needs 3 workers of 2 CPU each, and the cluster holds 2" in str(refused.value)


def test_as_many_trials_side_by_side_as_fit_and_never_more_than_the_profile_says():
    assert fitting_trials(profile(), [node(5)]) == 5
    assert fitting_trials(profile(workers=2), [node(5)]) == 2
    assert fitting_trials(profile(max_concurrent_trials=1), [node(5)]) == 1
    assert fitting_trials(profile(cpus=0.1), [node(0.3)]) == 3


def test_one_gpu_a_trial_or_all_gpus_on_one_trial_or_parts_of_a_gpu():
    dgx = [node(128, 8)]
    assert fitting_trials(profile(cpus=8, gpus=1), dgx) == 8
    assert fitting_trials(profile(workers=8, cpus=8, gpus=1), dgx) == 1
    assert fitting_trials(profile(cpus=2, gpus=0.5), [node(8, 2)]) == 4
    # A part of a GPU is a part of one: nothing is made of the 0.4 that two GPUs have left each.
    assert fitting_trials(profile(gpus=0.6), [node(8, 2)]) == 2
    assert workers_on(node(8, 3), {"CPU": 1, "GPU": 2}) == 1
    # The node without GPUs is the largest by CPUs, but it is GPUs that are missing.
    with pytest.raises(UserError, match=r"largest of its 2 node\(s\) has 4 CPU and 1 GPU"):
        fitting_trials(profile(gpus=2), [node(64), node(4, 1)])


def test_workers_are_as_many_as_there_is_room_for_and_as_share_the_batch_out_evenly():
    elastic = profile(workers=4, min_workers=1)
    assert fitting_workers(elastic, [node(4)], batch_size=8) == 4
    assert fitting_workers(elastic, [node(2), node(1)], batch_size=8) == 2
    assert fitting_workers(elastic, [node(2), node(1)], batch_size=6) == 3
    assert fitting_workers(profile(workers=4, min_workers=2), [node(1)], batch_size=8) is None
    assert fitting_workers(profile(workers=4), [node(2)], batch_size=8) is None
    assert fitting_trials(elastic, [node(3)]) == 1
    with pytest.raises(UserError, match="shared out evenly"):
        fitting_workers(profile(workers=4, min_workers=3), [node(4)], batch_size=10)
    with pytest.raises(UserError, match="among 4 workers, and the cluster holds 3"):
        require_room(profile(workers=4, min_workers=3), [node(3)], batch_size=8)


def test_more_least_workers_than_workers_are_refused():
    with pytest.raises(ValueError, match="min_workers 3 is above num_workers 2"):
        profile(workers=2, min_workers=3)


@pytest.mark.slow
def test_ray_places_what_the_model_places(tmp_path):
    """On real raylets, with GPUs that exist for the scheduler only."""
    from ray import tune

    from dure.runtime.cluster import cluster
    from tests.platform.studies.two_nodes import several_nodes

    chosen = (
        profile(cpus=2),
        profile(cpus=0.5, gpus=0.6),
        profile(workers=2, cpus=2),
        profile(workers=3, cpus=1),
        profile(workers=3, cpus=1, gpus=1),
    )
    found = []
    with (
        several_nodes({"CPU": 3}, {"CPU": 3, "GPU": 2}, {"CPU": 1, "GPU": 1}) as nodes,
        cluster(nodes.address) as joined,
    ):
        for number, each in enumerate(chosen):
            notes = tmp_path / f"{number}.jsonl"
            side_by_side = fitting_trials(each, joined.nodes)
            run = partial(
                held,
                notes=notes,
                together=side_by_side,
                workers=[] if each.trains_in_process else [worker_resources(each)] * each.num_workers,
            )
            results = tune.Tuner(
                tune.with_resources(run, tune.PlacementGroupFactory([trial_bundle(each)])),
                tune_config=tune.TuneConfig(num_samples=side_by_side + 2, max_concurrent_trials=side_by_side),
                run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
            ).fit()
            assert not results.errors
            found.append((side_by_side, most_at_once(notes)))
    assert found == [(2, 2), (3, 3), (1, 1), (2, 2), (1, 1)]


def held(config, *, notes, together, workers):
    """A trial that waits for its workers, holds them until as many as fit have theirs, and notes when."""
    import ray
    from ray.util import placement_group, remove_placement_group

    group = placement_group(workers, strategy="PACK") if workers else None
    if group is not None:
        ray.get(group.ready(), timeout=60)
    began = time.time()
    all_began = notes.with_suffix(".began")
    append_json_line(all_began, {"began": began})
    while len(read_json_lines(all_began)) < together and time.time() - began < 30:
        time.sleep(0.1)
    time.sleep(1.0)
    append_json_line(notes, {"began": began, "ended": time.time()})
    if group is not None:
        remove_placement_group(group)


def most_at_once(notes) -> int:
    spans = [(each["began"], each["ended"]) for each in read_json_lines(notes)]
    return max(sum(began <= at < ended for began, ended in spans) for at, _ in spans)
