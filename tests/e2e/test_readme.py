"""What the README and the pages that it leads to show is true: commands are valid, files load, snippets work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dure.config import dump_yaml, load_experiment, load_profile

from .conftest import REPOSITORY, TINY, call

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
KOREAN = (REPOSITORY / "README.ko.md").read_text(encoding="utf-8")
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs/en").glob("*.md")}


def blocks(text):
    """Return the blocks of a page with their languages."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)


COMMANDS = [
    line.split("#")[0].strip()
    for language, block in blocks(README)
    if language == "bash"
    for line in block.splitlines()
    if line.split("#")[0].strip()
]


def help_of(*verb):
    return call(*verb, "--help").out


@pytest.mark.parametrize("line", [each for each in COMMANDS if each.startswith("dure ")])
def test_a_command_is_valid(line, tmp_path):
    words = shlex.split(line)[1:]
    outcome = call(*words, "--dry-run")
    assert outcome.code == 0, outcome.err
    if "--profile" in words:
        load_profile(words[words.index("--profile") + 1])
    assert list(tmp_path.iterdir()) == []


def test_the_korean_page_has_the_same_commands_and_links():
    assert [block for _, block in blocks(KOREAN)][1:] == [block for _, block in blocks(README)][1:]
    for text, language in ((README, "en"), (KOREAN, "ko")):
        links = re.findall(r"\]\(([^)#]+)\)", text)
        assert links
        assert [link for link in links if not (REPOSITORY / link).exists()] == []
        pages = {link.removeprefix(f"docs/{language}/") for link in links}
        assert {f"{name}.md" for name in PAGES if name != "configuration"} <= pages


@pytest.mark.parametrize("line", [each for each in COMMANDS if each.startswith("make ")])
def test_make_has_the_target(line):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)


def test_the_experiment_that_is_shown_loads(tmp_path):
    (text,) = (
        block for language, block in blocks(PAGES["tables"]) if language == "yaml" and "extends:" in block
    )
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    experiment = load_experiment("mine.yaml")
    assert experiment.name == "mine"
    assert experiment.training.learning_rate == pytest.approx(3e-5)
    assert yaml.safe_load(call("train", "mine.yaml", "--dry-run").out)["lora"]["targets"] == [
        "q_proj",
        "v_proj",
    ]


def test_the_study_that_is_shown_loads(tmp_path):
    (text,) = (
        block for language, block in blocks(PAGES["tables"]) if language == "yaml" and "kind:" in block
    )
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("extends: kobart_baseline\n", encoding="utf-8")
    shown = list(yaml.safe_load_all(call("run", "study.yaml", "--dry-run").out))
    assert [each["name"] for each in shown[0]["metrics"]] == ["eval_rouge_sum", "seconds"]
    assert shown[1]["training"]["epochs"] == 2


def test_the_storage_of_a_profile_that_is_shown_loads(tmp_path):
    (text,) = (block for language, block in blocks(PAGES["machines"]) if language == "yaml")
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndevice: cpu\n{text}", encoding="utf-8")
    assert load_profile("mine.yaml").storage.max_gb == 200


def test_the_tree_of_a_run_is_what_a_run_leaves(trained):
    names = re.findall(r"^    [├└]── ([\w.-]+)", PAGES["runs"], re.MULTILINE)
    assert {"experiment.yaml", "metrics.jsonl", "result.json", "final_model"} <= {
        n.rstrip("/") for n in names
    }
    for name in names:
        pattern = "checkpoint-*" if name.startswith("checkpoint") else name.rstrip("/")
        assert list(trained[1].glob(pattern)), name


def test_the_page_of_the_house_names_every_room():
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| .*? \|", PAGES["house"], re.MULTILINE))))
    rooms = {
        folder.name
        for folder in (REPOSITORY / "platform/dure").iterdir()
        if folder.is_dir() and folder.name != "__pycache__"
    }
    assert named == rooms


ALONE = """
set -e
mount -t tmpfs tmpfs /tmp && ip link set lo up
mkdir /tmp/home /tmp/project
cp -r {repository}/platform {repository}/trainables {repository}/search_spaces {repository}/cluster /tmp/project
cd /tmp/project
exec env -i HOME=/tmp/home PATH={program}:/usr/local/bin:/usr/bin:/bin bash -e -c {lines}
"""


def _is_alone_possible():
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "ip", "link", "set", "lo", "up"],
        capture_output=True, check=False,
    )  # fmt: skip
    return tried.returncode == 0


@pytest.mark.slow
def test_the_recipe_of_a_cluster_runs_line_by_line_where_nothing_is_set():
    """In a network, a /tmp and processes of its own: its ports and `ray stop` are the machine's otherwise."""
    if shutil.which("unshare") is None or shutil.which("ip") is None or not _is_alone_possible():
        pytest.skip("a network of one's own needs unshare, ip and the right to use them")
    if any(Path(each).is_relative_to("/tmp") for each in (REPOSITORY, sys.executable)):
        pytest.skip("the checkout lies in /tmp, in whose place the test puts one of its own")
    (recipe,) = (block for _, block in blocks(PAGES["machines"]) if "ray start --head" in block)
    script = ALONE.format(
        repository=shlex.quote(str(REPOSITORY)),
        program=Path(sys.executable).parent,
        lines=shlex.quote(recipe),
    )
    ended = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "bash", "-c", script],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert (ended.stdout + ended.stderr).count("kobart_baseline: completed") == 2


def test_the_python_snippet_trains(trained, corpus, tmp_path, capsys):
    (code,) = (block for language, block in blocks(PAGES["python"]) if "create_trainer" in block)
    for name in ("train", "dev"):
        text = (
            (corpus / f"{name}.csv").read_text(encoding="utf-8").split("\ntrain_40,")[0].split("\ndev_4,")[0]
        )
        (tmp_path / f"{name}.csv").write_text(text + "\n", encoding="utf-8")
    # In place of the checkpoint of the hub: a saved one of the same architecture, and few steps.
    more = [f"model.checkpoint={trained[1] / 'final_model'}", "training.max_steps=2", "training.eval_every=2",
            "generation.num_beams=2", "generation.max_length=16", "generation.min_length=0",
            "tokenizer.encoder_max_len=64", "tokenizer.decoder_max_len=16", *TINY[-1:]]  # fmt: skip
    call_of_load = re.search(r"load_config\((.*)\[(.*)\]\)", code)
    overrides = call_of_load[2]
    exec(compile(code.replace(overrides, f"{overrides}, *{more!r}"), "documentation", "exec"), {})
    shown = capsys.readouterr().out.split()
    assert shown[-2].endswith("final_model")
    assert 0 <= float(shown[-1]) <= 3


def test_the_check_of_a_family_that_is_shown_takes_a_toy_through_the_contract(tiny, tmp_path):
    (code,) = (block for _, block in blocks(PAGES["models"]) if "check_family" in block)
    toy = tiny("bert", "full", family="tests.platform.family.plain_toy", best_metric="eval_accuracy")
    (tmp_path / "mine.yaml").write_text(dump_yaml(toy), encoding="utf-8")
    names = {}
    exec(compile(code, "documentation", "exec"), names)
    names["test_my_family_keeps_the_contract"](tmp_path / "run")
