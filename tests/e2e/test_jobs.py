"""Jobs on a real cluster: submit, logs, jobs, stop, the dashboard's API, `ray job submit`, and the background."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dure.jobs.background_records import records
from dure.jobs.job_server import find_server, token_headers
from dure.jobs.keeper import free_ports
from dure.jobs.upload import max_upload_bytes
from dure.runs.lock import LOCK
from dure.runtime.guard import MARK, end_processes

from .conftest import REPOSITORY, TINY, call, environment, program
from .test_wrong_input import check_message

KEY = "0123456789abcdef-of-nobody"
WITNESS = """
import os
from pathlib import Path

from trainables.summarization import Summarization


class Witness(Summarization):
    '''Leaves word of every process that imports it.'''


with Path(__file__).with_name("seen").open("a") as file:
    file.write(f"{os.getpid()} {os.environ['WANDB_API_KEY']}\\n")
"""
LONG = (
    *TINY, "rehearsal.max_steps=900", "rehearsal.num_evaluations=300", "training.epochs=5000",
    "training.early_stopping_patience=2000",
)  # fmt: skip


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 120) -> object:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


@dataclass(frozen=True)
class Head:
    """A cluster that was started as people start one: its dashboard, its own address, and its mark."""

    url: str
    address: str
    mark: str

    def api(self, path: str):
        request = urllib.request.Request(self.url + path, headers=token_headers("127.0.0.1"))
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """`ray start --head` on free ports; at its end none of its processes may be left."""
    port, dashboard, agent, client = free_ports(4)
    mark = f"test-{os.getpid()}-{port}"
    # Ray's sockets need a short path.
    folder = tempfile.mkdtemp(prefix="dt-", dir="/tmp")
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    # Nothing of this tree is on the path of the cluster: a job has to bring it.
    own = {
        name: value
        for name, value in environment().items()
        if not name.startswith(("PYTHONPATH", "RAY_AUTH"))
    }
    own |= {MARK: mark, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if not token_headers("127.0.0.1"):
        subprocess.run([*ray, "get-auth-token", "--generate"], env=own, stdout=subprocess.DEVNULL, check=True)
    with Path(folder, "start.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(*ray, "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"),
                *("--port", str(port), "--dashboard-port", str(dashboard), "--ray-client-server-port", str(client)),
                *("--dashboard-agent-listen-port", str(agent), "--min-worker-port", "0", "--max-worker-port", "0"),
                *("--temp-dir", folder, "--object-store-memory", "100000000"),
            ],
            cwd=tmp_path_factory.mktemp("head"), env=own, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{dashboard}"

    def answers() -> bool:
        assert process.poll() is None, Path(folder, "start.log").read_text()
        return Path(folder, "ray_current_cluster").exists() and call("jobs", "--address", url).code == 0

    try:
        wait_for(answers)
        gcs = Path(folder, "ray_current_cluster").read_text(encoding="utf-8").strip()
        yield Head(url, gcs, mark)
        process.terminate()
        process.wait(timeout=60)
        _, alive = psutil.wait_procs(marked(mark), timeout=15)
        assert alive == []
    finally:
        end_processes(mark, str(Path(folder, "session_latest").resolve()))
        process.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout of someone who changed the engine, and added an experiment and data."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("platform", "trainables", "search_spaces", "cluster"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "platform" / "dure" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("\nprint('the engine of', __file__)\n")
    mine = folder / "search_spaces" / "experiments" / "only_mine.yaml"
    mine.write_text("extends: kobart_baseline\nexperiment: {name: only_mine}\n", encoding="utf-8")
    with (folder / "huge.csv").open("wb") as file:
        file.truncate(200 * 1024**2)
    return folder


def submit(head: Head, project: Path, *words: object, **more: str):
    return program("submit", "--address", head.url, "--json", *words, cwd=project, **more)


CASES = {
    # words, what the message must say
    "no verb": (["submit", "--", "bach", "seven"], ["'bach'", "batch", "dure submit"]),
    "itself": (["submit", "--", "submit"], ["'submit'", "-- VERB"]),
    "no cluster": (["submit", "--", "list"], ["no cluster is named", "ray start --head", "--background"]),
    "nobody there": (
        ["submit", "--address", "127.0.0.1:1", "--", "list"],
        ["--address 127.0.0.1:1", "refused"],
    ),
    "no address": (["jobs", "--address", "x"], ["--address x", "http://HOST:PORT"]),
    "no job": (["logs", "dure-1"], ["'dure-1'", "dure jobs"]),
    "nothing to stop": (["stop", "dure-1"], ["'dure-1'", "dure jobs"]),
    "no folder": (["stop", "./none"], ["none", "--background"]),
    "a negative limit": (
        ["submit", "--max-file-mb", "-1", "--", "list"],
        ["--max-file-mb", "greater than or equal to 0"],
    ),
    "not by itself": (["--background", "list"], ["--background", "'list'", "progressive"]),
    "nothing by itself": (["--background"], ["--background", "progressive"]),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_words_are_named(case, tmp_path, monkeypatch):
    words, said = CASES[case]
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    check_message(call(*words), *said)


def test_no_jobs_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    assert call("jobs", "--json").value == {"jobs": []}
    assert call("jobs").out == "no jobs\n"


@pytest.mark.slow
def test_what_was_submitted_runs_and_can_be_seen_followed_and_stopped(head, project):
    done = submit(
        head, project, "--pass-env", "WANDB_API_KEY", "--", "list", WANDB_API_KEY=KEY, HF_TOKEN=f"{KEY}-2"
    )
    assert done.code == 0, done.err
    assert "only_mine" in done.err, "the job sees the experiments of the folder"
    engine = next(line for line in done.err.splitlines() if line.startswith("the engine of"))
    assert "py_modules_files" in engine, "and its engine, not the installed one"
    assert "huge.csv (200.0 MiB)" in done.err
    assert "sending" in done.err
    assert "HF_TOKEN stays here" in done.err
    job = done.value
    assert (job["state"], job["verb"], job["exit_code"]) == ("succeeded", "list", 0)

    # A folder that was sent is not sent again, and a command that is wrong ends with its message.
    wrong = submit(head, project, "--", "train", "only_mein", "--rehearse")
    assert wrong.code == 1
    assert wrong.value["state"] == "failed"
    assert wrong.value["exit_code"] == 2
    assert "there is no experiment 'only_mein'" in wrong.err

    # By the cluster's own address, too. A job that someone else submitted is one as well.
    server = find_server(head.address)
    assert server.url == head.url
    slept = {"entrypoint": "sleep 300", "submission_id": "somebodys"}
    assert server.ask("/api/jobs/", slept)["submission_id"] == "somebodys"
    wait_for(lambda: call("jobs", "--address", head.url, "--json").value["jobs"][-1]["state"] == "running")
    stopped = call("stop", "somebodys", "--address", head.url, "--json")
    assert (stopped.code, stopped.value["state"]) == (0, "stopped")

    listed = call("jobs", "--address", head.url, "--json")
    states = {each["id"]: each["state"] for each in listed.value["jobs"]}
    assert states == {job["id"]: "succeeded", wrong.value["id"]: "failed", "somebodys": "stopped"}
    assert states == {each["submission_id"]: each["status"].lower() for each in head.api("/api/jobs/")}
    assert "sleep 300" in call("jobs", "--address", head.url).out
    logs = call("logs", job["id"], "--address", head.url)
    assert "only_mine" in logs.out
    check_message(call("logs", f"{job['id']}x", "--address", head.url), job["id"], "dure jobs")

    # Ray shows a variable that was handed on to whoever asks; dure shows it nowhere, and the other went nowhere.
    assert head.api(f"/api/jobs/{job['id']}")["runtime_env"]["env_vars"]["WANDB_API_KEY"] == KEY
    token = token_headers("127.0.0.1").get("Authorization", "Bearer nothing").removeprefix("Bearer ")
    shown = done.err + done.out + listed.out + logs.out
    assert KEY not in shown
    assert token not in shown + json.dumps(head.api("/api/jobs/"))
    assert f"{KEY}-2" not in json.dumps(head.api("/api/jobs/"))


def test_a_cluster_that_asks_for_a_token_says_so(head, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_message(call("jobs", "--address", head.url), head.url, "RAY_AUTH_MODE=token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", KEY)
    outcome = call("submit", "--address", head.url, "--", "list")
    check_message(outcome, head.url, "token is wrong")
    assert KEY not in outcome.err


@pytest.mark.slow
def test_the_limit_of_an_upload_is_the_clusters_own(head):
    def taken(size: int) -> bool:
        request = urllib.request.Request(
            f"{head.url}/api/packages/gcs/_ray_pkg_{size}.zip",
            data=bytes(size), headers=token_headers("127.0.0.1"), method="PUT",
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status == 200
        except (urllib.error.HTTPError, ConnectionError, urllib.error.URLError):
            return False

    assert taken(max_upload_bytes() - 1024**2)
    assert not taken(max_upload_bytes() + 1024**2)


@pytest.mark.slow
def test_ray_job_submit_runs_a_batch_and_loses_no_result(head, project, tmp_path):
    (project / "huge.csv").unlink()  # Ray would send it, and the cluster refuse it
    ended = subprocess.run(
        [
            *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
            *("job", "submit", "--address", head.url, "--working-dir", ".", "--runtime-env", "cluster/runtime_env.yaml"),
            *("--", "env", f"DURE_OUTPUTS={tmp_path}", "dure", "batch", "seven", "--only", "4", "--rehearse", *TINY),
        ],
        cwd=project, env=environment(RAY_AUTH_MODE="token"), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the engine of" in ended.stdout
    (study,) = (tmp_path / "seven").iterdir()
    summary = json.loads((study / "experiment_summary.json").read_text(encoding="utf-8"))
    assert summary["state"] == "completed"
    assert f"Ray dashboard: {head.url}" in ended.stdout, "it used the cluster that ran it"


@pytest.mark.slow
def test_a_run_that_is_stopped_keeps_its_checkpoint_and_is_resumed(head, project):
    started = submit(
        head, project, "--no-wait", "--", "train", "only_mine", "--rehearse", "--output", "run", *LONG
    )
    assert started.code == 0, started.err
    run = project / "outputs" / "run"
    wait_for(lambda: list(run.glob("checkpoint-*")))
    stopped = call("stop", started.value["id"], "--address", head.url, "--json")
    assert stopped.value["state"] == "stopped"
    before = {path.name for path in run.glob("checkpoint-*")}
    assert before
    again = submit(
        head,
        project,
        "--no-wait",
        "--",
        "train",
        "only_mine",
        "--rehearse",
        "--output",
        "run",
        "--resume",
        *LONG,
    )
    wait_for(lambda: {path.name for path in run.glob("checkpoint-*")} - before)
    steps = [
        json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert steps == sorted(steps), "it went on where it was"
    assert call("stop", again.value["id"], "--address", head.url).code == 0


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_stop_it(head, project):
    words = [
        "submit",
        "--address",
        head.url,
        "--",
        "train",
        "only_mine",
        "--rehearse",
        "--output",
        "left",
        *LONG,
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "dure", *words],
        cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: list((project / "outputs" / "left").glob("*")))
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "goes on" in err
    job = call("jobs", "--address", head.url, "--json").value["jobs"][-1]
    assert job["state"] == "running"
    assert f"dure stop {job['id']} --address {head.url}" in err
    assert call("stop", job["id"], "--address", head.url, "--json").value["state"] == "stopped"


@pytest.fixture
def background(tmp_path, monkeypatch):
    """The folder in which this test's background jobs are recorded."""
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    folder = records().path
    yield folder
    if (folder / "keeper.json").exists():
        left = json.loads((folder / "keeper.json").read_text(encoding="utf-8"))
        if psutil.pid_exists(left["pid"]):
            keeper = psutil.Process(left["pid"])
            keeper.terminate()
            psutil.wait_procs([keeper], timeout=60)
        shutil.rmtree(left["temporary"], ignore_errors=True)


def keeper_and_all(background: Path) -> list[psutil.Process]:
    keeper = psutil.Process(json.loads((background / "keeper.json").read_text(encoding="utf-8"))["pid"])
    return [keeper, *keeper.children(recursive=True)]


@pytest.mark.slow
def test_a_background_run_is_a_job_that_leaves_nothing_but_its_results(background, tmp_path):
    (tmp_path / "witness.py").write_text(WITNESS, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("extends: kobart_baseline\nfamily: witness\n", encoding="utf-8")
    words = ("train", "mine.yaml", "--rehearse", "--output", "run", "--background", "--json")
    started = program(*words, *LONG, cwd=tmp_path, WANDB_API_KEY=KEY)
    assert started.code == 0, started.err
    job, run = started.value["job"], Path(started.value["path"])
    assert run == (tmp_path / "run").resolve()
    named = json.loads((run / LOCK).read_text(encoding="utf-8"))
    assert (named["pid"], named["job"]) == (started.value["pid"], job)
    everything = keeper_and_all(background)
    wait_for(lambda: list(run.glob("checkpoint-*")))
    (listed,) = (each for each in call("jobs", "--json").value["jobs"] if each["id"] == job)
    assert listed["state"] == "running"
    # Its command and its workers have the folder and the secrets of the shell, and the cluster shows them to nobody.
    seen = dict(line.split() for line in (tmp_path / "seen").read_text(encoding="utf-8").splitlines())
    assert str(started.value["pid"]) in seen
    assert len(seen) > 1
    assert set(seen.values()) == {KEY}
    assert KEY not in json.dumps(find_server(listed["server"]).ask("/api/jobs/"))
    assert (background / f"{job}.environment").stat().st_mode & 0o777 == 0o600

    # A second cluster is not started, and a wrong command ends here with its message.
    wrong = program("train", "kobart_baselin", "--background", cwd=tmp_path)
    check_message(wrong, "kobart_baselin", "kobart_baseline")
    check_message(call("score", "a", "b", "--background"), "--background", "'score'")
    assert keeper_and_all(background)[0] == everything[0]

    assert call("stop", job, "--json").value["state"] == "stopped"
    _, alive = psutil.wait_procs(everything, timeout=120)
    assert alive == []
    assert not (run / LOCK).exists()
    assert list(background.glob("*.environment")) == []
    # What is known of it outlives the cluster.
    after = {each["id"]: each["state"] for each in call("jobs", "--json").value["jobs"]}
    assert after[job] == "stopped"
    assert "step" in call("logs", job).out


@pytest.mark.slow
def test_a_killed_keeper_leaves_no_process(background, tmp_path):
    started = program("train", "kobart_baseline", "--rehearse", "--background", "--json", *LONG, cwd=tmp_path)
    assert started.code == 0, started.err
    everything = [*keeper_and_all(background), psutil.Process(started.value["pid"])]
    assert len(everything) > 5
    everything[0].kill()
    _, alive = psutil.wait_procs(everything, timeout=120)
    assert alive == []
    state = {each["id"]: each["state"] for each in call("jobs", "--json").value["jobs"]}[started.value["job"]]
    assert state == "failed"
