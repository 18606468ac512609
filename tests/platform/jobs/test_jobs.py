"""Jobs before and beside a cluster: what is sent, where it goes, what is never shown."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dure import proxies
from dure.errors import RunError, UserError
from dure.jobs import job_server, jobs
from dure.jobs.job_server import JobServer, find_server, token_headers
from dure.jobs.upload import check_size, max_upload_bytes, plan_upload
from dure.outputs import output_folder, outputs
from dure.runtime.cluster import cluster_of_job
from dure.secrets import SECRETS, redacted

REPOSITORY = Path(__file__).parents[3]
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
KEY = "0123456789abcdef-of-nobody"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """An environment that names no cluster and holds no token or secret."""
    names = (
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
    )
    proxy_names = [name for name in os.environ if name.lower().endswith("_proxy")]
    monkeypatch.setenv(proxies.NO_PROXY, "")  # so that it is gone after a test that sets it
    for name in (*names, *SECRETS, JOB, "DURE_OUTPUTS", *proxy_names, proxies.NO_PROXY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server that gives every path the answer of its server: a status and a text."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(self.server.answer[0])
        self.end_headers()
        self.wfile.write(self.server.answer[1].encode())

    def log_message(self, *arguments):
        """Keep the output clean."""


@pytest.fixture
def web():
    """Start a web server with one answer, and return its URL and what it was asked."""
    servers = []

    def start(status: int, text: str):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.answer, server.asked = (status, text), []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})


def said_by(error: pytest.ExceptionInfo) -> str:
    return str(error.value)


@pytest.mark.parametrize("kind", [RunError, RuntimeError])
def test_a_job_is_sent_again_as_long_as_its_cluster_has_no_agent(kind, monkeypatch):
    monkeypatch.setattr(job_server, "_SECONDS_BETWEEN_TRIES", 0.0)
    sent = []

    def send():
        sent.append(len(sent))
        if len(sent) < 3:
            raise kind("failed (500): No available agent to submit job, please try again later.")
        return "taken"

    assert job_server.once_it_can(send) == "taken"
    assert len(sent) == 3
    monkeypatch.setattr(job_server, "_SECONDS_FOR_AN_AGENT", -1.0)
    sent.clear()
    with pytest.raises(kind, match="No available agent"):
        job_server.once_it_can(send)
    assert len(sent) == 1


def test_another_failure_of_a_job_server_is_told_at_once(web):
    url, asked = web(500, "no room")
    server = JobServer(url, "here")
    with pytest.raises(RunError, match="no room"):
        job_server.once_it_can(lambda: server.ask("/api/jobs/"))
    assert len(asked) == 1


# where a job goes


def test_an_address_where_nothing_listens_is_named_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for form in (address, f"http://{address}"):
            with pytest.raises(UserError) as error:
                find_server(form)
            assert f"--address {form}" in said_by(error)
            assert "refused" in said_by(error)
            assert "8265" in said_by(error)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "host:port",
        "http://",
        "http://[::1",
        ":8265",
        "127.0.0.1:99999",
        "ftp://a:1",
        "ray://a:1",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError) as error:
        find_server(address)
    assert f"--address {address}" in said_by(error)
    assert "http://HOST:PORT" in said_by(error)


@pytest.mark.parametrize("answer", [(200, "<html>"), (200, "{}"), (404, ""), (200, "[]")])
def test_another_web_server_is_told_from_a_cluster(web, answer):
    url, _ = web(*answer)
    with pytest.raises(UserError, match="no job server"):
        find_server(url)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_no_proxy_gets_what_is_asked_of_this_machine_and_its_token(web, name, monkeypatch):
    monkeypatch.setattr(urllib.request, "_opener", None)  # that of an earlier test
    proxy, asked = web(502, "a proxy")
    monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "corp.example, .local")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token")
    url, _ = web(200, VERSION)
    with pytest.raises(RunError, match="502"):
        find_server(url)
    assert len(asked) == 1
    proxies.ask_here_directly()
    assert find_server(url).url == url
    assert len(asked) == 1
    assert os.environ["no_proxy"] == "corp.example,.local,localhost,127.0.0.1"


def test_without_a_proxy_none_is_spoken_of():
    proxies.ask_here_directly()
    assert "no_proxy" not in os.environ


def test_no_cluster_at_all_is_said_with_what_to_do():
    with pytest.raises(UserError) as error:
        find_server()
    assert "ray start --head" in said_by(error)
    assert "--background" in said_by(error)


def test_the_address_is_the_options_before_the_environments_before_that_of_this_machine(
    web, monkeypatch, tmp_path
):
    (option, _), (api, _), (ray, _), (here, _) = (web(200, VERSION) for _ in range(4))
    started = tmp_path / "ray" / "ray" / "ray_current_cluster"
    started.parent.mkdir(parents=True)
    started.write_text(here.removeprefix("http://"), encoding="utf-8")
    assert find_server().url == here
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert find_server().url == here
    monkeypatch.setenv("RAY_ADDRESS", ray)
    assert find_server().url == find_server("auto").url == ray
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"{api}/")
    assert find_server().url == api
    assert find_server(option.removeprefix("http://")).url == option


# who is let in


@pytest.mark.parametrize("status", [401, 403])
def test_a_cluster_that_refuses_says_what_to_set(web, status, monkeypatch):
    url, _ = web(status, "no")
    with pytest.raises(UserError) as error:
        find_server(url)
    assert "none was sent" in said_by(error)
    for name in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN", "~/.ray/auth_token"):
        assert name in said_by(error)
    monkeypatch.setenv("RAY_AUTH_TOKEN", KEY)
    with pytest.raises(UserError) as error:
        find_server(url)
    assert "the token is wrong" in said_by(error)
    assert KEY not in said_by(error)


def test_a_token_is_found_where_ray_finds_it_and_leaves_this_machine_only_when_asked(tmp_path, monkeypatch):
    assert token_headers("127.0.0.1") == {}
    file = Path.home() / ".ray" / "auth_token"
    file.parent.mkdir(parents=True)
    file.write_text("of-the-home\n", encoding="utf-8")
    assert token_headers("localhost") == {"Authorization": "Bearer of-the-home"}
    (tmp_path / "token").write_text("of-the-file", encoding="utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert token_headers("127.0.0.1") == {"Authorization": "Bearer of-the-file"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", KEY)
    assert token_headers("::1") == {"Authorization": f"Bearer {KEY}"}
    assert token_headers("ray.example.org") == {}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert token_headers("ray.example.org") == {"Authorization": f"Bearer {KEY}"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_headers("127.0.0.1") == {}


def test_a_token_is_sent_and_never_shown(web, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", KEY)
    url, asked = web(200, VERSION)
    server = find_server(url)
    assert asked[-1][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(server)


# what is shown of jobs


def record(**values):
    return {
        "submission_id": "dure-1", "status": "RUNNING", "entrypoint": "exec python -m dure batch seven",
        "start_time": 1_800_000_000_000, "end_time": None, "metadata": {jobs.COMMAND: "batch seven"},
        "driver_exit_code": None, "message": "", **values,
    }  # fmt: skip


def listed(web, *records):
    url, _ = web(200, json.dumps(list(records)))
    return jobs.jobs(JobServer(url, "here"))


def test_jobs_are_shown_without_environment_and_without_secrets(web, monkeypatch):
    secret = record(
        runtime_env={"env_vars": {"WANDB_API_KEY": KEY, "OTHER": "x"}},
        entrypoint=f"dure train x key={KEY}",
        metadata=None,
        message=f"failed with {KEY}",
    )
    (job,) = listed(web, secret, {**record(), "submission_id": None})
    assert KEY not in json.dumps(job.as_record())
    assert job.verb == "dure"
    monkeypatch.setenv("HF_TOKEN", "x-in-the-shell")
    (job,) = listed(web, record(metadata={jobs.COMMAND: "train x-in-the-shell"}))
    assert job.command == "train <hidden>"
    assert job.verb == "train"


def test_a_command_that_was_ended_in_order_is_stopped_and_not_failed(web):
    states = [
        listed(web, record(status=status, end_time=1_800_000_010_000, driver_exit_code=code))[0]
        for status, code in (("SUCCEEDED", 0), ("FAILED", 1), ("FAILED", 130), ("STOPPED", None))
    ]
    assert [each.state for each in states] == ["succeeded", "failed", "stopped", "stopped"]
    assert {each.seconds for each in states} == {10.0}
    assert states[0].started == "2027-01-15T08:00:00+00:00"


def test_a_server_that_fails_is_an_error_of_the_run(web):
    url, _ = web(500, "it burns")
    with pytest.raises(RunError, match="it burns"):
        jobs.jobs(JobServer(url, "here"))


@given(st.text(), st.text(), st.text(min_size=6))
def test_no_secret_is_left_in_a_text(before, after, secret):
    shown = redacted(before + secret + after, [secret])
    assert secret in "<hidden>" or secret not in shown.replace("<hidden>", "")


class Tailing:
    """A client whose connection breaks after each of its pieces, and that then does not find its server for a while."""

    def __init__(self, *pieces: str, out_of_reach: int = 0):
        self.pieces, self.num_told, self.out_of_reach, self.left = pieces, 0, out_of_reach, 0

    def __call__(self, server):
        if self.left:
            self.left -= 1
            raise RunError("the cluster does not answer")
        return self

    async def tail_job_logs(self, job_id):
        self.num_told += 1
        yield "".join(self.pieces[: self.num_told])
        if self.num_told < len(self.pieces):
            self.left = self.out_of_reach
            raise RuntimeError("websocket closed")


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(jobs.time, "sleep", slept.append)
    return slept


def test_a_job_is_followed_through_any_number_of_breaks_as_long_as_it_says_something(web, waits, monkeypatch):
    url, _ = web(200, json.dumps(record(status="SUCCEEDED")))
    said = [f"line {number}\n" for number in range(12)]
    monkeypatch.setattr(jobs, "_client", Tailing(*said, out_of_reach=3))
    told = []
    assert jobs.follow(JobServer(url, "here"), "dure-1", told.append).state == "succeeded"
    assert told == said
    assert len(waits) == 11 * 4


def test_a_connection_that_does_not_come_back_is_told_and_that_the_job_goes_on(web, waits, monkeypatch):
    url, _ = web(200, json.dumps(record(status="RUNNING")))
    monkeypatch.setattr(jobs, "_client", Tailing("a", "b", out_of_reach=99))
    with pytest.raises(RunError, match=r"does not answer\); the job goes on"):
        jobs.follow(JobServer(url, "here"), "dure-1", lambda text: None)
    assert sum(waits) >= 30


# what is sent


@pytest.fixture
def project(tmp_path):
    """A folder with what people have in theirs."""
    folder = tmp_path / "project"
    sizes = {
        "trainables/mine.py": 100, "data/train.csv": 3_000_000, "data/small.csv": 1000, "data/a b[1]#!.csv": 2_500_000,
        "outputs/run/model.bin": 5000, ".git/objects/x": 500, ".venv/lib/y.py": 500, "wandb/z": 10, "notes.txt": 10,
        "trainables/__pycache__/mine.pyc": 10, "kept/outputs/table.csv": 10, "secret.txt": 5, "old.txt": 5,
    }  # fmt: skip
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    (folder / ".gitignore").write_text("secret.txt\n", encoding="utf-8")
    (folder / ".rayignore").write_text("old.txt\n", encoding="utf-8")
    return folder


def packed(folder, excludes):
    """What Ray itself sends."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    target = folder.parent / "package.zip"
    create_package(
        str(folder), target, include_gitignore=True, excludes=[*get_runtime_env_default_excludes(), *excludes]
    )
    with zipfile.ZipFile(target) as package:
        return {each.filename for each in package.infolist() if not each.is_dir()}, target.stat().st_size


def test_what_was_measured_is_what_ray_sends(project):
    upload = plan_upload(project, excludes=["notes.*"], max_file_mb=2)
    assert set(upload.left_out) == {"data/train.csv", "data/a b[1]#!.csv"}
    assert set(upload.files) == {
        "trainables/mine.py", "data/small.csv", "kept/outputs/table.csv", ".gitignore", ".rayignore",
    }  # fmt: skip
    names, size = packed(project, upload.excludes)
    assert {name for name in names if (project / name).is_file()} == set(upload.files)
    assert upload.num_bytes <= size < upload.num_bytes + 2000


def test_too_much_is_refused_with_what_is_large_and_what_to_do(project):
    with (project / "data" / "huge.parquet").open("wb") as file:
        file.truncate(max_upload_bytes())
    with pytest.raises(UserError) as error:
        check_size(plan_upload(project))
    for part in (
        "data/ (105.",
        "data/huge.parquet (100.0 MiB)",
        "data/train.csv (2.9 MiB)",
        ".rayignore",
        "--max-file-mb",
    ):
        assert part in said_by(error)
    check_size(plan_upload(project, max_file_mb=25))


def test_a_name_that_is_no_text_is_told_before_ray_meets_it(project):
    name = os.fsdecode("한글.csv".encode("cp949"))  # as unpacking an archive of Windows leaves it
    (project / "data" / name).touch()
    with pytest.raises(UserError, match=r"(?s)data/.*is no UTF-8.*\.rayignore"):
        plan_upload(project)
    (project / ".rayignore").write_text("data\n")
    plan_upload(project)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--working-dir .*none"):
        plan_upload(tmp_path / "none")


# what goes along


def prepared(project, *, is_here=True, **options):
    told: list[str] = []
    made = jobs.prepare(
        ["batch", "seven"], is_here=is_here, working_dir=project, notify=told.append, **options
    )
    assert made.entrypoint.endswith("-m dure batch seven")
    return made.runtime_env, "\n".join(told)


def test_results_go_where_they_outlive_the_job(project, tmp_path):
    assert prepared(project)[0]["env_vars"]["DURE_OUTPUTS"] == str(project / "outputs")
    environment, told = prepared(project, is_here=False)
    assert "DURE_OUTPUTS" not in environment["env_vars"]
    assert "~/dure/outputs" in told
    shared = prepared(project, is_here=False, outputs=tmp_path / "shared")
    assert shared[0]["env_vars"]["DURE_OUTPUTS"] == str(tmp_path / "shared")


def test_secrets_stay_here_unless_asked_for_and_their_values_are_never_told(project, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    environment, told = prepared(project)
    assert KEY not in json.dumps(environment)
    assert "WANDB_API_KEY stays here" in told
    environment, told = prepared(project, pass_env=["WANDB_API_KEY"])
    assert environment["env_vars"]["WANDB_API_KEY"] == KEY
    assert "WANDB_API_KEY" in told
    assert KEY not in told
    with pytest.raises(UserError, match="--pass-env NOT_SET"):
        prepared(project, pass_env=["NOT_SET"])


def test_the_shipped_file_sends_the_engine_and_leaves_time_to_stop():
    environment, _ = prepared(REPOSITORY)
    assert environment["py_modules"] == [str(REPOSITORY / "platform" / "dure")]
    assert environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    shipped = yaml.safe_load((REPOSITORY / jobs.RUNTIME_ENV).read_text(encoding="utf-8"))
    from ray.runtime_env import RuntimeEnv

    RuntimeEnv(**{**shipped, "py_modules": []})
    upload = plan_upload(REPOSITORY, excludes=shipped["excludes"], max_file_mb=25)
    tops = {name.split("/")[0] for name in upload.files}
    assert {"platform", "trainables", "search_spaces", "cluster"} <= tops
    assert not {"tests", "outputs", ".git", ".venv"} & tops
    assert upload.num_bytes < 10_000_000


WRONG_FILES = {
    "nothing": (None, "cannot be read"),
    "no YAML": ("a: [", "no YAML"),
    "no mapping": ("- a", "no mapping"),
    "no module": ("py_modules: [src/none]", "src/none"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_runtime_environment_is_named(project, case):
    text, said = WRONG_FILES[case]
    file = project / "env.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        prepared(project, runtime_env=file)
    assert f"--runtime-env {file}" in said_by(error)
    assert said in said_by(error)


# inside of a job


def test_only_a_job_joins_the_cluster_of_its_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_of_job() is None
    monkeypatch.setenv(JOB, "{}")
    assert cluster_of_job() == "10.0.0.1:6379"


def test_results_of_a_job_never_lie_in_its_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert outputs() == Path("outputs")
    assert output_folder("x", Path("mine"), resume=False) == Path("mine")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(JOB, '{"runtime_env": {"env_vars": {}}}')  # as in the background of this machine
    assert outputs() == Path("outputs")
    monkeypatch.setenv(JOB, '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}')
    assert outputs() == Path.home() / "dure" / "outputs"
    monkeypatch.setenv("DURE_OUTPUTS", str(tmp_path / "shared"))
    assert output_folder("x", None, resume=False).is_relative_to(tmp_path / "shared" / "x")
    assert output_folder("x", Path("mine"), resume=False) == tmp_path / "shared" / "mine"
    assert output_folder("x", tmp_path / "absolute", resume=False) == tmp_path / "absolute"


def test_a_host_of_this_machine_is_known():
    assert all(job_server.is_here(host) for host in ("localhost", "127.0.0.1", "::1", socket.gethostname()))
    assert not any(job_server.is_here(host) for host in ("ray.example.org", "198.51.100.7", ""))
