"""What is wrong in a file or an override is told with its place, its key, its value and the remedy."""

from pathlib import Path

import pytest

from dure.config import Experiment, load_experiment, load_profile
from dure.errors import UserError
from dure.studies.study import load_study

MINIMAL = "family: f\nexperiment: {name: a}\nmodel: {checkpoint: c}\n"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str | bytes, *overrides: str) -> Experiment:
    Path("e.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_experiment("e.yaml", overrides)


def message_of(text: str | bytes, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # keys
        (
            "training: {learning_rat: 1e-5}",
            "e.yaml:4: unknown key 'training.learning_rat'\n  try: 'training.learning_rate'",
        ),
        ("learning_rate: 1e-5", "e.yaml:4: unknown key 'learning_rate'\n  try: 'training.learning_rate'"),
        ("qlora: {}", "e.yaml:4: unknown key 'qlora'\n  try: 'lora'"),
        (
            "wandb: {xyz: 1}",
            "e.yaml:4: unknown key 'wandb.xyz'\n  expected: one of: enabled, project, entity",
        ),
        ("model: {checkpoint: d}", "e.yaml:4: key 'model' is given twice"),
        (
            "lora: {rank: 8, alpha: 16}",
            "e.yaml:4: key 'lora.targets' is missing\n  expected: Names of the layers that get an adapter, "
            "each of at least one layer, or 'all-linear': all but the output layer",
        ),
        ("1: x", "e.yaml:4: key 1 is not text; put it in quotes"),
        ("? [a]\n: x", "e.yaml:4: a list or mapping cannot be a key"),
        # types
        (
            "training: {learning_rate: fast}",
            "e.yaml:4: 'training.learning_rate' is \"fast\"\n  expected: a number",
        ),
        (
            "training: {learning_rate: true}",
            "e.yaml:4: 'training.learning_rate' is true\n  expected: a number",
        ),
        ("training: {epochs: true}", "e.yaml:4: 'training.epochs' is true\n  expected: a whole number"),
        ("training: {epochs: 2.5}", "e.yaml:4: 'training.epochs' is 2.5\n  expected: a whole number"),
        ("training: {epochs: }", "e.yaml:4: 'training.epochs' is null\n  expected: a whole number"),
        ("wandb: {enabled: 1}", "e.yaml:4: 'wandb.enabled' is 1\n  expected: true or false"),
        ("wandb: {enabled: yes}", "e.yaml:4: 'wandb.enabled' is \"yes\"\n  expected: true or false"),
        ("wandb: on", "e.yaml:4: 'wandb' is \"on\"\n  expected: keys and values"),
        ("training: [1]", "e.yaml:4: 'training' is [1]\n  expected: keys and values"),
        (
            "tokenizer: {special_tokens: [a, 1]}",
            "e.yaml:4: 'tokenizer.special_tokens[1]' is 1\n  expected: text\n  try: \"1\", in quotes",
        ),
        (
            "lora: {rank: 8, alpha: 16, targets: q}",
            "e.yaml:4: 'lora.targets' is \"q\"\n  expected: a list\n  try: [q]",
        ),
        # values
        ("training: {epochs: 0}", "e.yaml:4: 'training.epochs' is 0\n  expected: at least 1"),
        ("training: {max_steps: 0}", "e.yaml:4: 'training.max_steps' is 0\n  expected: at least 1"),
        ("training: {learning_rate: 0}", "e.yaml:4: 'training.learning_rate' is 0\n  expected: more than 0"),
        (
            "training: {eval_every: 0}",
            "e.yaml:4: 'training.eval_every' is 0\n  expected: at least 1, or epoch",
        ),
        (
            "training: {eval_every: epohc}",
            "e.yaml:4: 'training.eval_every' is \"epohc\"\n  expected: a whole number, or epoch",
        ),
        (
            "training: {scheduler: cosin}",
            "e.yaml:4: 'training.scheduler' is \"cosin\"\n  expected: linear, cosine, cosine_with_restarts, "
            "polynomial, constant or constant_with_warmup\n  try: cosine",
        ),
        (
            "training: {learning_rate: 1e999}",
            "e.yaml:4: this number is beyond all bounds; a text of digits stands in quotes",
        ),
        (
            "training: {learning_rate: .inf}",
            "e.yaml:4: 'training.learning_rate' is \".inf\"\n  expected: a number",
        ),
        (
            "data: {encoding: klingon}",
            "e.yaml:4: 'data.encoding' is \"klingon\"\n  expected: an encoding that Python knows, such as utf-8 or cp949",
        ),
        (
            "training: {warmup_steps: 5, warmup_ratio: 0.1}",
            "e.yaml:4: 'training': give warmup_steps or warmup_ratio, not both",
        ),
        (
            "training: {scheduler_options: {num_cycles: 2}}",
            "e.yaml:4: 'training': scheduler_options has 'num_cycles', but linear takes none",
        ),
        (
            "training: {scheduler: polynomial, learning_rate: 1e-8}",
            "e.yaml:4: 'training': polynomial ends at lr_end 1e-07, which is not below 1e-08",
        ),
        (
            "training: {scheduler: polynomial, scheduler_options: {lr_end: -1e-3}}",
            "e.yaml:4: 'training.scheduler_options.lr_end' is -0.001\n  expected: at least 0",
        ),
        ("generation: {min_length: 300}", "e.yaml:4: 'generation': min_length 300 is above max_length 128"),
        (
            "rehearsal: {hidden_size: 30}",
            "e.yaml:4: 'rehearsal': hidden_size 30 is not a multiple of num_heads 4",
        ),
        # YAML
        ("training:\n\tepochs: 3", "e.yaml:5: this is a tab; YAML is indented with spaces"),
        ("a: &x 1", "e.yaml:4: anchors (&) and aliases (*) are not read; share values with 'extends:'"),
        ("a: *x", "e.yaml:4: anchors (&) and aliases (*) are not read; share values with 'extends:'"),
        (
            "training: {<<: {epochs: 3}}",
            "e.yaml:4: merge keys (<<) are not read; share values with 'extends:'",
        ),
        ("data: !!python/name:os.system x", "e.yaml:4: tags (!!python/name:os.system) are not read"),
        ("x: " + "[" * 100_000, "e.yaml:4: nested more than 32 deep"),
        ("x: " + "{a: " * 100_000, "e.yaml:4: nested more than 32 deep"),
        ("x: \x00", "e.yaml:4: character U+0000 is not allowed in YAML"),
        ('x: "\\ud800"', "e.yaml:4: half of a surrogate pair is no character"),
        (
            "a: b: c",
            "e.yaml:4: this is not valid YAML: no colon can stand here: correct the indentation, add the colon that the "
            "line above lacks, or put a text with a colon in quotes",
        ),
    ],
)
def test_a_wrong_line_is_told_with_its_remedy(line: str, message: str) -> None:
    assert message_of(MINIMAL + line + "\n") == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "e.yaml: the file is empty\n  expected: keys and values, such as 'name: …'"),
        (b"# only a comment\n", "e.yaml: the file is empty\n  expected: keys and values, such as 'name: …'"),
        (b"- a\n- b\n", "e.yaml: the file holds a list\n  expected: keys and values, such as 'name: …'"),
        (b"hello\n", "e.yaml: the file holds one value\n  expected: keys and values, such as 'name: …'"),
        (b"a: 1\nb: \xb0\xa1\n", "e.yaml:2: byte 0xb0 is not UTF-8\n  try: save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "e.yaml:1: byte 0xff is not UTF-8\n  try: save the file as UTF-8"),
    ],
)
def test_a_file_that_holds_no_keys_is_told_as_what_it_is(content: bytes, message: str) -> None:
    assert message_of(content) == message


def test_all_problems_are_told_at_once_each_with_its_line() -> None:
    text = MINIMAL + "training:\n  epochs: 0\n  batch_sizes: 3\nlora: {rank: 8, alpha: 16}\n"
    message = message_of(text)
    assert message.startswith("e.yaml: 3 things are wrong\n")
    assert "e.yaml:5: 'training.epochs' is 0" in message
    assert "e.yaml:6: unknown key 'training.batch_sizes'\n  try: 'training.batch_size'" in message
    assert "e.yaml:7: key 'lora.targets' is missing" in message


def test_what_is_missing_altogether_is_described() -> None:
    message = message_of("experiment: {name: a}\n")
    assert "key 'family' is missing\n  expected: Model family by the dotted name of its module" in message
    assert "key 'model' is missing\n  expected: Which weights it starts from" in message


def test_a_name_that_is_no_folder_name_is_told_what_it_may_hold() -> None:
    message = message_of("family: f\nexperiment: {name: ../a}\nmodel: {checkpoint: c}\n")
    assert message.startswith(
        "e.yaml:2: 'experiment.name' is \"../a\"\n  expected: at most 100 of the characters a-z"
    )


def test_quantised_weights_without_adapters_are_refused() -> None:
    message = message_of("family: f\nexperiment: {name: a}\nmodel: {checkpoint: c, quantization: {}}\n")
    assert (
        message
        == "e.yaml: model.quantization needs a lora section: 4-bit weights cannot be trained themselves"
    )


@pytest.mark.parametrize("written", ["1e-5", "1E-5", "1.0e-5", ".00001", "'1e-5'", "0.00001", "+1e-05"])
def test_a_number_may_be_written_in_every_usual_way(written: str) -> None:
    assert load(MINIMAL + f"training: {{learning_rate: {written}}}\n").training.learning_rate == 1e-5
    assert load(MINIMAL, f"training.learning_rate={written}").training.learning_rate == 1e-5


@pytest.mark.parametrize("written", ["1000", "1e3", "1000.0", "'1e3'", "01000"])
def test_a_whole_number_may_be_written_in_every_usual_way(written: str) -> None:
    assert load(MINIMAL + f"training: {{max_steps: {written}}}\n").training.max_steps == 1000


def test_words_of_older_yaml_stay_text() -> None:
    experiment = load(MINIMAL + "tokenizer: {special_tokens: [no, on, 1:30]}\n")
    assert experiment.tokenizer.special_tokens == ("no", "on", "1:30")


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert load(b"\xef\xbb\xbf" + MINIMAL.encode()).family == "f"


# overrides


def test_an_override_reaches_any_key_and_the_last_one_wins() -> None:
    experiment = load(MINIMAL, "training.epochs=2", "training.epochs=7", "tokenizer.encoder_max_len=64")
    assert (experiment.training.epochs, experiment.tokenizer.encoder_max_len) == (7, 64)


def test_overrides_take_lists_sections_and_null() -> None:
    experiment = load(
        MINIMAL, "lora={rank: 8, alpha: 16, targets: [x]}", "lora.targets=[q,v]", "data.dev=null"
    )
    assert experiment.lora is not None
    assert experiment.lora.targets == ("q", "v")
    assert experiment.data.dev is None


@pytest.mark.parametrize(
    "text",
    [
        "요약: ",
        "#Person1#",
        "a # b",
        "*x",
        "&x",
        "!x",
        "C:\\data\\train.csv",
        "- a",
        "",
        "  ",
        "a=b",
        "|",
        "@x",
        "{text}",
        "{text}: 요약",
    ],
)
def test_plain_text_in_an_override_is_taken_literally(text: str) -> None:
    assert load(MINIMAL, f"tokenizer.input_prefix={text}").tokenizer.input_prefix == text


def test_quotes_in_an_override_are_those_of_yaml() -> None:
    assert load(MINIMAL, 'tokenizer.input_prefix="1\\n"').tokenizer.input_prefix == "1\n"


def test_null_removes_a_section_and_later_overrides_begin_it_anew() -> None:
    text = MINIMAL + "lora: {rank: 8, alpha: 16, targets: [q]}\n"
    assert load(text, "lora=null").lora is None
    message = message_of(text, "lora=null", "lora.rank=4")
    assert "command line: key 'lora.alpha' is missing" in message
    assert "e.yaml:4" not in message


def test_an_override_may_fill_a_section_that_the_file_sets_to_null() -> None:
    overrides = ["lora.rank=8", "lora.alpha=16", "lora.targets=[q]"]
    experiment = load(MINIMAL + "lora: null\n", *overrides)
    assert experiment.lora is not None
    assert experiment.lora.rank == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=1",
            "command line: unknown key 'training.learning_rat'\n  try: training.learning_rate=1",
        ),
        (
            "wandb=true",
            "command line: 'wandb' is true\n  expected: keys and values\n  try: wandb.enabled=true",
        ),
        ("training.epochs=0", "command line: 'training.epochs' is 0\n  expected: at least 1"),
        ("training.epochs.x=0", "command line: 'training.epochs' is {\"x\": 0}\n  expected: a whole number"),
        ("training.epochs=", "command line: 'training.epochs' is \"\"\n  expected: a whole number"),
        (
            "model.quantization={}",
            "command line: model.quantization needs a lora section: 4-bit weights cannot be trained themselves",
        ),
        (
            "experiment.name=123",
            "command line: 'experiment.name' is 123\n  expected: text\n  try: 'experiment.name=\"123\"'",
        ),
        (
            "model.revision=1e10",
            "command line: 'model.revision' is 10000000000.0\n  expected: text\n  try: 'model.revision=\"…\"'",
        ),
        (
            "model.revision=12e4567",
            "command line: 'model.revision=12e4567': this number is beyond all bounds; a text of digits stands in quotes",
        ),
        (
            "generation.min_length=5000",
            "command line: 'generation': min_length 5000 is above max_length 128",
        ),
        (
            "training.epochs",
            "command line: 'training.epochs' is no override\n"
            "  expected: section.key=value, such as training.learning_rate=3e-5",
        ),
        (
            "lora.targets=[q",
            "command line: 'lora.targets=[q': this is not valid YAML: expected ',' or ']', but got "
            "'<stream end>' (while parsing a flow sequence)\n  try: correct its brackets or quotes; where they belong to a "
            "text: 'lora.targets=\"[q\"'",
        ),
    ],
)
def test_a_wrong_override_names_the_command_line(override: str, message: str) -> None:
    assert message_of(MINIMAL, override) == message


@pytest.mark.parametrize("override", ["=1", ".a=1", "a.=1", "a..b=1", " a=1", "a .b=1", ""])
def test_an_override_without_a_proper_key_is_refused(override: str) -> None:
    assert "is no override" in message_of(MINIMAL, override)


# studies and profiles


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: s\nexperiments: [a]\n",
            "s.yaml: key 'kind' is missing\n  expected: one of: batch, sweep, progressive, crossval, unified",
        ),
        (
            "kind: bach\nname: s\nexperiments: [a]\n",
            "s.yaml:1: 'kind' is \"bach\"\n  expected: one of: batch, sweep, progressive, crossval, unified\n  try: batch",
        ),
        (
            "kind: [batch]\nname: s\nexperiments: [a]\n",
            "s.yaml:1: 'kind' is [\"batch\"]\n  expected: one of: batch, sweep, progressive, crossval, unified\n  try: batch",
        ),
        (
            "kind: batch\nname: s\nexperiments: []\n",
            "s.yaml:3: 'experiments' is []\n  expected: a list of at least 1",
        ),
        (
            "kind: batch\nname: s\nexperiments: [a, b, a]\n",
            's.yaml:3: \'experiments\' is ["a", "b", "a"]\n  expected: each experiment once, since each has one folder',
        ),
        (
            "kind: batch\nname: s\nexperimnts: [a]\nexperiments: [a]",
            "s.yaml:3: unknown key 'experimnts'\n  try: 'experiments'",
        ),
    ],
)
def test_a_wrong_study_is_told_with_its_remedy(text: str, message: str) -> None:
    Path("s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_study("s.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device: gpu", "p.yaml:2: 'device' is \"gpu\"\n  expected: cpu, cuda or mps"),
        ("device: cuda", "p.yaml: gpus_per_worker is 0, but device cuda needs more than 0"),
        ("device: cpu\ngpus_per_worker: 1", "p.yaml: gpus_per_worker is 1, but device cpu needs 0"),
        ("device: mps\nnum_workers: 2", "p.yaml: num_workers is 2, but MPS cannot share out a trial"),
        (
            "device: cuda\ngpus_per_worker: 1.5",
            "p.yaml:3: 'gpus_per_worker' is 1.5\n  expected: a whole number of GPUs, or a part of one",
        ),
        (
            "device: cuda\nnum_workers: 2\ngpus_per_worker: 0.5",
            "p.yaml: gpus_per_worker is 0.5, but 2 workers cannot share a GPU",
        ),
    ],
)
def test_a_machine_that_cannot_be_is_refused(text: str, message: str) -> None:
    Path("p.yaml").write_text(f"name: p\n{text}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_profile("p.yaml")
    assert str(caught.value) == message
