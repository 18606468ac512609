"""Files add to other files, and every key keeps the place that set it."""

from pathlib import Path

import pytest

from dure.config import available, load_experiment, load_profile
from dure.config.loading import load_record
from dure.errors import UserError

BASE = """\
family: f
experiment: {name: base, tags: [a, b]}
model: {checkpoint: c, quantization: {type: fp4}}
training: {epochs: 5, learning_rate: 1e-4}
lora: {rank: 8, alpha: 16, targets: [q]}
data: {columns: {text: t}}
"""


@pytest.fixture(autouse=True)
def in_folder_with_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("_base.yaml", BASE)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def message_of(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_experiment(name)
    return str(caught.value)


def test_sections_merge_key_by_key_and_lists_replace() -> None:
    write("a.yaml", "extends: _base.yaml\nexperiment: {name: a, tags: [c]}\ntraining: {epochs: 9}\n")
    experiment = load_experiment("a.yaml")
    assert (experiment.name, experiment.experiment.tags) == ("a", ("c",))
    assert (experiment.training.epochs, experiment.training.learning_rate) == (9, 1e-4)
    assert experiment.lora == load_experiment("_base.yaml").lora


def test_the_later_of_two_parents_wins() -> None:
    write("_more.yaml", "training: {epochs: 7}\n")
    write("a.yaml", "extends: [_base.yaml, _more.yaml]\n")
    assert load_experiment("a.yaml").training.epochs == 7
    write("a.yaml", "extends: [_more.yaml, _base.yaml]\n")
    assert load_experiment("a.yaml").training.epochs == 5


def test_the_later_layer_decides_how_the_warm_up_is_said() -> None:
    write("_ratio.yaml", "extends: _base.yaml\ntraining: {warmup_ratio: 0.1}\n")
    write("_steps.yaml", "extends: _base.yaml\ntraining: {warmup_steps: 500}\n")

    def warmup(*overrides: str, **files: str) -> tuple[float, int | None]:
        for name, text in files.items():
            write(f"{name}.yaml", text)
        training = load_experiment("a.yaml", overrides).training
        return training.warmup_ratio, training.warmup_steps

    assert warmup(a="extends: _ratio.yaml\ntraining: {warmup_steps: 500}\n") == (0, 500)
    assert warmup(a="extends: _steps.yaml\ntraining: {warmup_ratio: 0.2}\n") == (0.2, None)
    assert warmup(a="extends: [_ratio.yaml, _steps.yaml]\n") == (0, 500)
    assert warmup("training.warmup_steps=7", a="extends: _ratio.yaml\n") == (0, 7)
    assert warmup("training.warmup_ratio=0.3", a="extends: _steps.yaml\n") == (0.3, None)
    assert warmup("training.warmup_steps=null", a="extends: _ratio.yaml\n") == (0.1, None)
    assert warmup("training={warmup_steps: 9}", a="extends: _ratio.yaml\n") == (0, 9)


@pytest.mark.parametrize("name", ["_base.yaml", "_ratio.yaml"])
def test_two_ways_of_the_warm_up_in_one_layer_are_an_error(name: str) -> None:
    write("_ratio.yaml", "extends: _base.yaml\ntraining: {warmup_ratio: 0.1}\n")
    write("a.yaml", f"extends: {name}\ntraining: {{warmup_ratio: 0.1, warmup_steps: 5}}\n")
    assert "give warmup_steps or warmup_ratio" in message_of("a.yaml")
    with pytest.raises(UserError, match="give warmup_steps or warmup_ratio"):
        load_experiment(name, ["training.warmup_steps=5", "training.warmup_ratio=0.1"])


def test_a_value_of_a_search_replaces_the_other_way_of_the_warm_up() -> None:
    write("_ratio.yaml", "extends: _base.yaml\ntraining: {warmup_ratio: 0.1}\n")
    tried = load_experiment("_ratio.yaml").with_({"training.warmup_steps": 50}, "the space")
    assert (tried.training.warmup_ratio, tried.training.warmup_steps) == (0, 50)


def test_words_in_another_order_and_old_file_names_are_answered_with_the_name() -> None:
    with pytest.raises(UserError) as caught:
        load_experiment("baseline_kobart")
    assert caught.value.hint == "kobart_baseline"
    for old, name in (
        ("configs/experiments/baseline_kobart.yaml", "kobart_baseline"),
        ("config/experiments/01_mt5_xlsum_optimized_v2.yaml", "mt5_xlsum_optimized_v2"),
        ("config/experiments/02_eenzeenee_t5_rtx3090.yaml", "eenzeenee_t5"),
        ("config/experiments/04_batch_optimization_rtx3090.yaml", "batch_optimization"),
        ("03_high_learning_rate_rtx3090.yaml", "high_learning_rate"),
    ):
        with pytest.raises(UserError) as caught:
            load_experiment(old)
        assert caught.value.hint == f"{name}, which needs no file"


def test_parents_lie_beside_the_file_that_names_them() -> None:
    write("deep/_parent.yaml", "extends: ../_base.yaml\ntraining: {epochs: 6}\n")
    write("a.yaml", "extends: deep/_parent.yaml\n")
    assert load_experiment("a.yaml").training.epochs == 6


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("home/own.yaml", "extends: ../_base.yaml\nmodel: {checkpoint: ~/models/t5}\n")
    assert load_experiment("~/own.yaml").model.checkpoint == str(tmp_path / "home/models/t5")
    write("a.yaml", "extends: ~/own.yaml\ntraining: {epochs: 9}\n")
    assert load_experiment("a.yaml").training.epochs == 9
    write("home/zero.json", '{"zero_optimization": {"stage": 2}}')
    write("p.yaml", "name: p\ndevice: cpu\ndeepspeed: ~/zero.json\n")
    assert load_profile("p.yaml").deepspeed == str(tmp_path / "home/zero.json")


def test_two_ways_to_one_ancestor_are_no_circle() -> None:
    write("_b.yaml", "extends: _base.yaml\ntraining: {epochs: 2}\n")
    write("_c.yaml", "extends: _base.yaml\n")
    write("a.yaml", "extends: [_b.yaml, _c.yaml]\n")
    assert load_experiment("a.yaml").training.epochs == 5


def test_null_removes_a_section_of_a_parent() -> None:
    write(
        "a.yaml",
        "extends: _base.yaml\nmodel: {quantization: null}\nlora: null\ntraining: null\ndata: {columns: ~}\n",
    )
    experiment = load_experiment("a.yaml")
    assert experiment.model.quantization is None
    assert experiment.lora is None
    assert experiment.training.epochs == 3
    assert experiment.data.columns == {}


def test_a_section_removed_and_begun_anew_forgets_the_parents_lines() -> None:
    write("_b.yaml", "extends: _base.yaml\nlora: null\nmodel: {quantization: null}\n")
    write("a.yaml", "extends: _b.yaml\n\nlora: {rank: 4, targets: [q]}\n")
    assert message_of("a.yaml").startswith("a.yaml:3: key 'lora.alpha' is missing")


def test_an_error_names_the_file_that_set_the_value() -> None:
    write("_b.yaml", "extends: _base.yaml\ntraining:\n  epochs: 0\n")
    write("a.yaml", "extends: _b.yaml\ntraining: {batch_size: 0}\n")
    message = message_of("a.yaml")
    assert message.startswith("a.yaml: 2 things are wrong\n")
    assert "_b.yaml:3: 'training.epochs' is 0" in message
    assert "a.yaml:2: 'training.batch_size' is 0" in message


@pytest.mark.parametrize("parents", ["a.yaml", "b.yaml", "[_base.yaml, b.yaml]"])
def test_a_circle_is_told_with_its_way(parents: str) -> None:
    write("a.yaml", f"family: f\nextends: {parents}\n")
    write("b.yaml", "extends: a.yaml\n")
    message = message_of("a.yaml")
    assert "'extends' goes in a circle: a.yaml → " in message
    assert message.endswith("a.yaml")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nowhere.yaml", "a.yaml:2: 'extends': there is no experiment file 'nowhere.yaml'"),
        ("kobart_baselin", "a.yaml:2: 'extends': there is no experiment 'kobart_baselin'"),
        ("", "a.yaml:2: 'extends' names something that is not text"),
        ("3", "a.yaml:2: 'extends' names something that is not text"),
        ("{a: b}", "a.yaml:2: 'extends' names something that is not text"),
        ("[[x]]", "a.yaml:2: 'extends' names something that is not text"),
        ('"\\0.yaml"', "a.yaml:2: 'extends': there is no experiment file"),
        ("x" * 5000 + ".yaml", "a.yaml:2: 'extends': there is no experiment file"),
        (".yaml", "a.yaml:2: 'extends': there is no experiment file '.yaml'"),
    ],
)
def test_a_parent_that_does_not_exist_is_told_at_its_line(value: str, problem: str) -> None:
    write("a.yaml", f"family: f\nextends: {value}\n")
    assert message_of("a.yaml").startswith(problem)


def test_a_users_file_extends_a_shipped_one_by_name_from_any_folder() -> None:
    write(
        "mine.yaml", "extends: kobart_baseline\nexperiment: {name: mine}\ntraining: {learning_rate: 1e-4}\n"
    )
    experiment = load_experiment("mine.yaml")
    shipped = load_experiment("kobart_baseline")
    assert (experiment.name, experiment.training.learning_rate) == ("mine", 1e-4)
    assert experiment.tokenizer == shipped.tokenizer
    write("machine.yaml", "extends: cpu\nname: machine\ncpus_per_worker: 2\n")
    assert load_profile("machine.yaml").cpus_per_worker == 2


# finding files


def test_shipped_files_are_found_from_any_folder() -> None:
    assert {"kobart_baseline", "eenzeenee_t5"} <= set(available("experiment"))
    assert "seven" in available("study")
    assert "rtx3090" in available("profile")


def test_a_file_of_the_working_folder_hides_a_shipped_namesake() -> None:
    write("search_spaces/experiments/kobart_baseline.yaml", BASE)
    write("search_spaces/experiments/own.yaml", BASE)
    write("search_spaces/experiments/_parent.yaml", BASE)
    assert load_experiment("kobart_baseline").name == "base"
    assert {"own", "high_learning_rate"} <= set(available("experiment"))
    assert "_parent" not in available("experiment")


def test_a_name_that_nothing_has_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UserError) as caught:
        load_profile("rtx390")
    assert str(caught.value).startswith(
        "there is no profile 'rtx390'\n  expected: one of: cpu, dgx, dgx_zero2, m4"
    )
    assert caught.value.hint == "rtx3090"


@pytest.mark.parametrize(
    "name", ["nowhere.yaml", "nowhere/at/all", "..", "", "\0", "x" * 5000, "/", "a" * 5000 + ".yaml"]
)
def test_a_path_without_a_file_is_told(name: str) -> None:
    assert message_of(name).startswith("there is no experiment")


def test_a_folder_named_like_a_file_is_told() -> None:
    Path("folder.yaml").mkdir()
    assert message_of("folder.yaml").startswith("there is no experiment file 'folder.yaml'")


# files of others


def test_a_parent_from_elsewhere_that_is_no_experiment_is_not_quoted(tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    secrets = elsewhere / "secrets.yaml"
    secrets.write_text("database_password: hunter2\ndata: {root_token: s}\n", encoding="utf-8")
    said = message_of(write("a.yaml", f"extends: {secrets}\n"))
    assert "is no experiment" in said
    for word in ("database_password", "hunter2", "root_token"):
        assert word not in said
    # Through a link of one's own folder it is no nearer.
    Path("linked.yaml").symlink_to(secrets)
    assert "database_password" not in message_of(write("b.yaml", "extends: linked.yaml\n"))
    base = elsewhere / "base.yaml"
    base.write_text(BASE, encoding="utf-8")
    assert load_experiment(write("c.yaml", f"extends: {base}\nexperiment: {{name: c}}\n")).name == "c"


def test_the_record_of_a_run_leads_to_no_other_file() -> None:
    write("experiment.yaml", "extends: _base.yaml\n")
    with pytest.raises(UserError, match="'extends' stands in the record") as error:
        load_record(Path("experiment.yaml"))
    assert error.value.where == "experiment.yaml:1"
