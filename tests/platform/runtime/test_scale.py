"""Processes that die are started again from the last checkpoint, so often and no oftener; errors are not."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerHealthCheckFailedError

from dure.config import load_experiment, rehearsal_of
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import RunListener, StudyListener, follow
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.runs.restarts import Restarts
from dure.runtime.cluster import cluster
from dure.runtime.deaths import Death, LostPeerError, death_of, own_error
from dure.runtime.fit import fit
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.studies.study import load_study
from dure.training.run import RunRequest
from tests.platform.studies.two_nodes import Loses, Steps, nodes_of, recovery, several_nodes

SMALL = (
    *(
        "rehearsal.hidden_size=32",
        "rehearsal.num_layers=1",
        "rehearsal.vocab_size=400",
        "rehearsal.max_steps=6",
    ),
    *("rehearsal.max_train_rows=40", "rehearsal.max_dev_rows=4", "rehearsal.max_decoder_len=16"),
    *("generation.num_beams=1", "training.gradient_accumulation_steps=1", "training.batch_size=4"),
    *("training.log_every=1", "wandb.enabled=false"),
)
TIMED = ("seconds", "_runtime", "_per_second")


class Told(StudyListener):
    def __init__(self):
        self.lines = []

    def notified(self, message):
        self.lines.append(message)


class Dies(RunListener):
    """Kills the process that trains at a step, so many times in all; of several workers the one of a rank."""

    on_every_worker = True

    def __init__(self, notes: Path, *, step: int, times: int = 1, rank: int = 0):
        self.notes, self.step, self.times, self.rank = notes, step, times, rank

    def progressed(self, progress):
        if (
            progress.step == self.step
            and progress.kind == "train"
            and self.rank == int(os.environ.get("RANK", 0))
        ):
            died = self.notes.read_text() if self.notes.exists() else ""
            if len(died) < self.times:
                self.notes.write_text(died + "x")
                os.kill(os.getpid(), signal.SIGKILL)


class Raises(RunListener):
    """Raises what is no error of dure's at a step, and counts the starts."""

    def __init__(self, notes: Path):
        self.notes = notes

    def started(self, start, notify):
        self.notes.write_text((self.notes.read_text() if self.notes.exists() else "") + "x")

    def progressed(self, progress):
        if progress.step == 3:
            raise ZeroDivisionError("not by me")


def named(experiment: Experiment, name: str) -> Experiment:
    tree = experiment.model_dump(mode="json")
    tree["experiment"]["name"] = name
    return Experiment.model_validate(tree)


def numbers(path):
    return [
        {key: value for key, value in record.items() if not key.endswith(TIMED)}
        for record in read_json_lines(RunFolder(path).metrics)
    ]


def by_name(**listeners):
    """Give every trial its listener."""
    return lambda experiment: [listeners[experiment.name]]


def batch(names, experiments, path, **more):
    study = BatchStudy(kind="batch", name="some", experiments=tuple(names))
    return run_study(Batch(study, experiments), path=path, **more)


@pytest.mark.slow
def test_a_trial_whose_process_dies_goes_on_where_it_was_and_one_that_raises_does_not(tiny, cpu, tmp_path):
    names = ("dies", "raises")
    experiments = [named(tiny("t5", "lora"), name) for name in names]
    listener = Told()
    out = tmp_path / "study"
    summary = batch(
        names,
        experiments,
        out,
        profile=cpu.model_copy(update={"max_concurrent_trials": 1}),
        follower=listener,
        listeners=by_name(dies=Dies(tmp_path / "once", step=5), raises=Raises(tmp_path / "raises")),
    )
    dies, raises = summary.experiments
    assert dies.state == "completed"
    assert dies.metrics["num_restarts"] == 1
    # The checkpoint of step 4 may still have been in writing.
    line = "dies: its process died (killed, crashed or out of memory); restart 1 of 3 from checkpoint-"
    assert {f"{line}2", f"{line}4"} & {*listener.lines}
    fit(RunRequest(experiments[0], cpu, tmp_path / "whole"))
    assert numbers(out / "dies") == numbers(tmp_path / "whole")
    assert raises.state == "failed"
    assert "ZeroDivisionError: not by me" in raises.error
    assert (tmp_path / "raises").read_text() == "x"


@pytest.mark.slow
def test_a_trial_whose_process_dies_again_and_again_fails_and_says_why(tiny, cpu, tmp_path):
    summary = batch(
        ["dies"],
        [named(tiny("t5", "lora"), "dies")],
        tmp_path / "study",
        profile=cpu.model_copy(update={"max_restarts": 1}),
        listeners=by_name(dies=Dies(tmp_path / "always", step=3, times=9)),
    )
    dies = summary.experiments[0]
    assert dies.state == "failed"
    # The checkpoint of step 2 may still have been in writing.
    assert re.fullmatch(
        r"its processes died 2 times, the last time after (checkpoint-2|the beginning) \(killed, crashed or out of "
        r"memory\); the profile's max_restarts allows no more",
        dies.error,
    )
    assert RunFolder(tmp_path / "study" / "dies").read_result().error == dies.error


@pytest.mark.slow
def test_workers_are_started_again_when_one_of_them_dies(tiny, cpu, tmp_path):
    experiment, two = (
        named(tiny("t5", "lora"), "dies"),
        cpu.model_copy(update={"num_workers": 2, "max_restarts": 1}),
    )
    with cluster():
        whole = fit(RunRequest(experiment, two, tmp_path / "whole"))
    listener = Told()
    summary = batch(
        ["dies"],
        [experiment],
        tmp_path / "study",
        profile=two,
        follower=listener,
        listeners=by_name(dies=Dies(tmp_path / "once", step=5, rank=1)),
    )
    assert numbers(tmp_path / "study" / "dies") == numbers(tmp_path / "whole")
    assert whole.metrics["num_restarts"] == 0
    assert summary.experiments[0].metrics["num_restarts"] == 1
    (line,) = (line for line in listener.lines if "died" in line)
    words = (
        "dies: a worker died (worker 1: killed, crashed or out of memory); restart 1 of 1 from checkpoint-"
    )
    assert line in (f"{words}2", f"{words}4")


@pytest.mark.slow
def test_a_lost_node_costs_none_of_the_seven_and_changes_no_number(cpu, tmp_path):
    names = load_study("seven").sources
    experiments = [rehearsal_of(load_experiment(name, SMALL)) for name in names]
    with several_nodes({"CPU": 1}, {"CPU": 1}) as nodes:

        def run(seconds_per_step, path, **more):
            listeners = by_name(**{name: Steps(seconds_per_step) for name in names})
            return batch(
                names, experiments, path, profile=cpu, listeners=listeners, address=nodes.address, **more
            )

        calm = run(0.1, tmp_path / "calm")
        assert {node for name in names for node in nodes_of(tmp_path / "calm" / name)} == set(nodes.ids)
        loses = Loses(nodes, after_step=3)
        lost = run(0.4, tmp_path / "lost", follower=loses)
    assert calm.state == lost.state == "completed"
    for name in names:
        assert numbers(tmp_path / "lost" / name) == numbers(tmp_path / "calm" / name)
    assert nodes_of(tmp_path / "lost" / loses.trial) == [nodes.ids[1], nodes.ids[0]]
    (line,) = (line for line in loses.lines if "died" in line)
    assert line.startswith(f"{loses.trial}: its process died (")
    assert "node is" in line
    assert re.search(r"; restart 1 of 3 from (checkpoint-2|the beginning)$", line)
    cost = recovery(tmp_path / "lost" / loses.trial, loses.at)
    print(cost)
    assert cost.steps_repeated <= 2
    assert cost.seconds < 90


class LosesAt(RunListener):
    """Takes away the node beside the head when the run that is followed has come to a step, and keeps its words."""

    def __init__(self, step, loses):
        self.step, self.loses = step, loses
        self.lines = []

    def notified(self, message):
        self.lines.append(message)

    def progressed(self, progress):
        if self.loses is not None and progress.step >= self.step:
            self.loses()
            self.loses = None


@pytest.mark.slow
@pytest.mark.parametrize("on_notice", [False, True])
def test_a_trial_goes_on_with_fewer_workers_when_a_node_is_lost(on_notice, tiny, cpu, tmp_path):
    experiment = tiny("t5", "lora")
    elastic = cpu.model_copy(update={"num_workers": 2, "min_workers": 1})
    lost_at: list[float] = []
    with several_nodes({"CPU": 1}, {"CPU": 1}, include_dashboard=True) as nodes, cluster(nodes.address):

        def loses():
            lost_at.append(time.time())
            nodes.take_away(nodes.ids[1], seconds=2) if on_notice else nodes.kill(nodes.ids[1])

        follower = LosesAt(3, loses)
        with follow(RunFolder(tmp_path / "lost").events, follower):
            request = RunRequest(experiment, elastic, tmp_path / "lost", listeners=(Steps(5.0),))
            result = fit(request)
    told = [line for line in follower.lines if "worker" in line and not line.startswith("forecast: ")]
    print(told, recovery(tmp_path / "lost", lost_at[0]))
    assert result.state == "completed"
    assert result.metrics["num_restarts"] == 1
    assert told[0].startswith("a worker died (")
    assert ("taken away); restart, not counted," if on_notice else "restart 1 of 3") in told[0]
    assert "from checkpoint-" in told[0]
    assert told[-1] == "trains with 1 of 2 workers, 4 rows each"
    assert [each["step"] for each in numbers(tmp_path / "lost") if each["kind"] == "train"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_an_error_is_told_from_the_death_of_a_process():
    killed = WorkerHealthCheckFailedError("of worker 1", ActorDiedError())
    lost, taken = LostPeerError("connection closed"), RayActorError(preempted=True)
    wrong = UserError("no such layer")

    def group(**failures):
        return WorkerGroupError("text", {int(rank[1:]): failure for rank, failure in failures.items()})

    assert own_error(group(w0=lost, w1=killed)) is None
    assert death_of(group(w0=lost, w1=killed)) == Death("worker 1: killed, crashed or out of memory")
    assert death_of(group(w0=lost)) == Death("the connection to a worker broke")
    assert death_of(group(w0=killed, w1=taken)) == Death("worker 1: its node is taken away", counts=False)
    assert own_error(group(w0=lost, w1=wrong)) is wrong
    assert death_of(ControllerError(WorkerGroupStartupFailedError("x"))) == Death("a worker did not start")
    assert death_of(ActorDiedError()) == Death("killed, crashed or out of memory")
    raised = group(w0=ZeroDivisionError())
    assert own_error(raised) is None
    assert death_of(raised) is None


def test_restarts_of_all_layers_and_sessions_are_counted_in_one_place(tmp_path):
    first, second = Restarts(tmp_path, "monday"), Restarts(tmp_path, "tuesday")
    first.add("killed")
    assert first.num_counted == 1
    first.add("taken away", counts=False)
    assert first.num_counted == 1
    Restarts(tmp_path, "monday").add("killed again")
    assert first.num_counted == 2
    assert (second.num_counted, second.num, second.last_reason) == (0, 3, "killed again")
