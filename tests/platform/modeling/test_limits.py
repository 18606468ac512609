"""What a checkpoint brings decides nothing, and what its model cannot do is said before the training."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from dure.config import load_experiment, rehearsal_of
from dure.errors import UserError
from dure.family import load_family
from dure.modeling.export import export
from dure.modeling.limits import check_limits, num_positions
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.task import CAUSAL, SEQ2SEQ, classification
from dure.preflight.before import before_run
from dure.preflight.checks import Note
from dure.preflight.model import model_facts, require_limits
from tests.platform.modeling.tiny_models import CPU, POSITIONS, TARGETS, TEXTS, experiment_of

SMALL = {"vocab_size": 50, "pad_token_id": 1}
ENCODER = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 20,
}  # fmt: skip
BOTH = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2,
    "max_position_embeddings": 20,
}  # fmt: skip
CLASSIFIERS: dict[str, tuple[dict[str, Any], int | None]] = {
    "Bert": (ENCODER, 20),
    "Electra": (ENCODER | {"embedding_size": 16}, 20),
    "Albert": (ENCODER | {"embedding_size": 16}, 20),
    "DistilBert": (
        {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 20},
        20,
    ),
    "Roberta": (ENCODER, 18),
    "XLMRoberta": (ENCODER | {"pad_token_id": 3}, 16),
    "Camembert": (ENCODER, 18),
    "MPNet": (ENCODER, 18),
    "DebertaV2": (ENCODER | {"position_biased_input": False, "relative_attention": True}, None),
    "ModernBert": (
        ENCODER
        | {"pad_token_id": 1, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
        None,
    ),
}
WRITERS: dict[str, tuple[dict[str, Any], int | None]] = {
    "Bart": (BOTH, 20),
    "MBart": (BOTH, 20),
    "Pegasus": (BOTH, 20),
    "Blenderbot": (BOTH, 20),
    "Marian": (BOTH, 20),
    "LED": (
        BOTH
        | {
            "max_encoder_position_embeddings": 32,
            "max_decoder_position_embeddings": 20,
            "attention_window": [8],
        },
        20,
    ),
    "M2M100": (BOTH, None),
    "T5": (
        {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 1},
        None,
    ),
}


def made(name: str, settings: dict[str, Any]) -> Any:
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **settings})
    kind = AutoModelForSeq2SeqLM if name in WRITERS else AutoModelForSequenceClassification
    return kind.from_config(config).eval()


def passes(model: Any, length: int, part: str) -> bool:
    """Whether a row of so many tokens goes through a model."""
    ids = torch.full((1, length), 7)
    short = torch.full((1, 3), 7)
    inputs = {"input_ids": ids if part != "decoder" else short}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids if part == "decoder" else short
    try:
        with torch.no_grad():
            model(**inputs)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "") for name in CLASSIFIERS),
        *((name, part) for name in WRITERS for part in ("encoder", "decoder")),
    ],
)
def test_the_limit_is_the_length_that_just_passes(name: str, part: str) -> None:
    settings, limit = (CLASSIFIERS | WRITERS)[name]
    model = made(name, settings)
    if name == "LED" and part == "encoder":
        limit = 32
    assert num_positions(model, part) == limit
    if limit is None:
        assert passes(model, 300, part)
    else:
        assert passes(model, limit, part)
        assert not passes(model, limit + (8 if name == "LED" and part == "encoder" else 1), part)


def test_a_model_without_weights_has_the_same_limit() -> None:
    with torch.device("meta"):
        assert num_positions(made("Roberta", ENCODER)) == 18


HOSTILE = {
    "do_sample": True, "temperature": 0.3, "top_k": 3, "max_new_tokens": 5, "forced_bos_token_id": 9,
    "forced_eos_token_id": 9, "suppress_tokens": [4, 5, 6], "bad_words_ids": [[7]], "repetition_penalty": 9.0,
    "num_beams": 3, "length_penalty": -5.0, "num_return_sequences": 2, "min_length": 12, "eos_token_id": [2, 11],
    "decoder_start_token_id": 8, "no_repeat_ngram_size": 1, "max_length": 7,
}  # fmt: skip


@pytest.fixture(params=["t5", "mt5", "bart"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def hostile(folder: Path, settings: dict[str, Any], file: str = "generation_config.json") -> None:
    path = folder / file
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **settings}))


def texts_of(experiment: Any, tmp_path: Path) -> tuple[Any, list[list[int]], list[list[int]]]:
    """Return the model, what it generates, and what its export generates."""
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    model = load_model(SEQ2SEQ, experiment, CPU, tokenizer, print).eval()
    batch = tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    ids = model.generate(**batch).tolist()
    export(model, tokenizer, tmp_path / "final")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "final").eval()
    return model, ids, plain.generate(**batch).tolist()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("beams", [1, 4])
def test_the_generation_settings_of_a_checkpoint_change_nothing(
    kind: str, lora: bool, beams: int, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"generation": {"max_length": 20, "num_beams": beams, "length_penalty": 0.8}}
    if lora:
        sections["lora"] = {"rank": 4, "alpha": 8, "targets": TARGETS[kind]}
    for name in ("own", "bad"):
        shutil.copytree(checkpoints[kind], tmp_path / name)
    hostile(tmp_path / "bad", HOSTILE)
    _, wanted, _ = texts_of(experiment_of(kind, tmp_path / "own", **sections), tmp_path / "a")
    model, found, exported = texts_of(experiment_of(kind, tmp_path / "bad", **sections), tmp_path / "b")
    assert found == wanted == exported
    settings = model.generation_config
    assert (settings.max_length, settings.num_beams, settings.do_sample) == (20, beams, False)
    assert settings.max_new_tokens is None
    assert settings.forced_eos_token_id is None


def test_a_broken_generation_file_and_old_settings_in_the_configuration_change_nothing_either(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("own", "bad"):
        shutil.copytree(checkpoints[kind], tmp_path / name)
    (tmp_path / "bad/generation_config.json").write_text(
        '{"max_new_tokens": -3, "early_stopping": "perhaps"}'
    )
    old = {"num_beams": 5, "max_length": 9, "no_repeat_ngram_size": 2, "do_sample": True, "temperature": 0.1}
    returned = {"return_dict": False, "output_attentions": True, "task_specific_params": {"x": old}}
    hostile(tmp_path / "bad", old | returned, "config.json")
    _, wanted, _ = texts_of(experiment_of(kind, tmp_path / "own"), tmp_path / "a")
    model, found, exported = texts_of(experiment_of(kind, tmp_path / "bad"), tmp_path / "b")
    assert found == wanted == exported
    assert model(input_ids=torch.tensor([[5]]), labels=torch.tensor([[5]]))["logits"].shape[:2] == (1, 1)


@pytest.mark.parametrize(
    ("sections", "where", "expected"),
    [
        ({"tokenizer": {"encoder_max_len": 65}}, "tokenizer.encoder_max_len", "at most 64"),
        ({"tokenizer": {"decoder_max_len": 65}}, "tokenizer.decoder_max_len", "at most 64"),
        ({"generation": {"max_length": 65}}, "generation.max_length", "at most 64"),
        ({"generation": {"max_length": 64, "num_beams": 100_000}}, "generation.num_beams", "at most"),
    ],
)
def test_what_the_positions_or_the_vocabulary_lack_is_refused(
    sections: dict[str, Any], where: str, expected: str, checkpoints: dict[str, Path]
) -> None:
    experiment = experiment_of("bart", checkpoints["bart"], **sections)
    with pytest.raises(UserError) as caught:
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)
    assert caught.value.where == where
    assert expected in str(caught.value.expected)


def test_relative_positions_have_no_limit(checkpoints: dict[str, Path]) -> None:
    experiment = experiment_of(
        "t5", checkpoints["t5"], tokenizer={"encoder_max_len": 4096}, generation={"max_length": 900}
    )
    assert load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
        ({"decoder_start_token_id": 99_999}, "decoder_start_token_id is 99999"),
        ({"pad_token_id": None}, "pad_token_id is missing"),
    ],
)
def test_a_token_that_is_missing_or_beyond_the_vocabulary_is_refused(
    settings: dict[str, Any], named: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["t5"], tmp_path / "t5")
    hostile(tmp_path / "t5", settings, "config.json")
    experiment = experiment_of("t5", tmp_path / "t5")
    with pytest.raises(UserError, match=named):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)


@pytest.mark.parametrize("token", ["eos_token", "pad_token"])
def test_a_tokenizer_that_cannot_end_or_pad_a_text_is_refused(
    token: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["t5"], tmp_path / "t5")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (tmp_path / "t5" / file).is_file():
            hostile(tmp_path / "t5", {token: None}, file)
    experiment = experiment_of("t5", tmp_path / "t5")
    with pytest.raises(UserError, match="token is missing"):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)


def test_several_limits_are_told_at_once(checkpoints: dict[str, Path]) -> None:
    experiment = experiment_of(
        "bart", checkpoints["bart"], tokenizer={"encoder_max_len": 99}, generation={"max_length": 99}
    )
    with pytest.raises(UserError, match="2 things") as caught:
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)
    assert "tokenizer.encoder_max_len" in str(caught.value)
    assert "generation.max_length" in str(caught.value)


def without(folder: Path, *names: str) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in names:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_untied_model_without_its_output_matrix_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["mt5"], tmp_path / "mt5")
    without(tmp_path / "mt5", "lm_head.weight")
    hostile(tmp_path / "mt5", {"tie_word_embeddings": False}, "config.json")
    experiment = experiment_of("mt5", tmp_path / "mt5")
    with pytest.raises(UserError, match=r"lacks 1 weights.*lm_head"):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), print)


def test_an_encoder_may_lack_its_head_and_its_pooler_and_nothing_else(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for file in checkpoints["bart"].glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    tokenizer = load_tokenizer(experiment_of("bart", checkpoints["bart"]), lambda: iter(()))
    config = transformers.BertConfig(
        **{**ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS}
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    experiment = experiment_of("bert", tmp_path)
    told: list[str] = []
    load_model(classification(("a", "b")), experiment, CPU, tokenizer, told.append)
    assert "lacks 4 weights" in told[0]
    without(tmp_path, "encoder.layer.0.output.dense.weight")
    with pytest.raises(UserError, match=r"lacks 1 weights.*output\.dense"):
        load_model(classification(("a", "b")), experiment, CPU, tokenizer, told.append)


@pytest.mark.parametrize("number_bytes", [4, 10**15], ids=["loaded", "too large to load"])
def test_validation_finds_what_the_start_of_a_run_refuses(
    number_bytes: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dure.preflight.model._FULL", number_bytes)
    experiment = experiment_of("bart", checkpoints["bart"], generation={"max_length": 65})
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    with pytest.raises(UserError) as started:
        load_model(SEQ2SEQ, experiment, CPU, tokenizer, print)
    with pytest.raises(UserError) as validated:
        model_facts(Note(), load_family(experiment), tokenizer)
    assert str(validated.value) == str(started.value)


def test_a_run_or_study_finds_them_before_it_begins(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sound = experiment_of("bart", checkpoints["bart"])
    asks = sound.with_({"generation.max_length": 65})
    check = partial(before_run, files=[], profile=CPU, output=tmp_path / "out", notify=print)
    with pytest.raises(UserError) as started:
        check([sound, asks])
    assert started.value.where == "generation.max_length"
    check([sound])
    # The nodes of a cluster fetch it for themselves.
    check([asks], address="127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "klue/bert-base"}')


def sharded(folder: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")


def shard_lost(folder: Path) -> None:
    sharded(folder)
    next(folder.glob("model-00002-of-*")).unlink()


def index_lost(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(9000)


def smaller(folder: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    model.resize_token_embeddings(7)
    model.save_pretrained(folder)


def encoder(folder: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**ENCODER)).save_pretrained(folder)


def configured(**values: Any):
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("damage", "problem", "remedy"),
    [
        (configured(pad_token_id=[1]), "Field 'pad_token_id'", "copy its config.json again"),
        (configured(dropout="0.1"), "Field 'dropout'", "copy its config.json again"),
        (configured(encoder_attention_heads=5), "divisible by num_heads", "copy its config.json again"),
        (
            configured(quantization_config={"quant_method": "gptq", "bits": 4}),
            "packed in few bits",
            "take the one that it was made of",
        ),
        (adapter, "holds an adapter of klue/bert-base, and no model", "merge_and_unload"),
        (shard_lost, "are missing, such as model-00002-of", "copy the folder again"),
        (index_lost, "parts of weights and no model.safetensors.index.json", "copy the folder again"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "it holds no weights",
            "copy the folder again",
        ),
        (pointer, "a pointer of Git LFS", "git lfs pull"),
        (cut, "cut short", "copy it again"),
        (smaller, "its model rows for 7", "copy the tokenizer's files"),
        (encoder, "is a bert model, which is no encoder-decoder", "dure list"),
    ],
)
def test_a_checkpoint_that_is_not_whole_or_of_another_kind_is_refused_before_a_table_is_read(
    damage, problem: str, remedy: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["bart"], tmp_path / "bart")
    damage(folder)
    experiment = experiment_of("bart", folder, data={"train": "never_read.csv", "dev": None})
    family = load_family(experiment)
    with pytest.raises(UserError) as started:
        require_limits(family)
    assert problem in str(started.value)
    assert remedy in str(started.value)
    # And validation says the same, without a tokenizer of the rows.
    if damage is not smaller:
        with pytest.raises(UserError) as validated:
            model_facts(Note(), family, None)
        assert str(validated.value) == str(started.value)


@pytest.mark.parametrize("rehearsed", [False, True])
def test_a_configuration_whose_values_do_not_go_together_is_named(rehearsed: bool, tmp_path: Path) -> None:
    """Of EXAONE's pattern of layers nothing is left without a window, and transformers divides by it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "exaone4", "sliding_window": None}))
    experiment = load_experiment("causal_exaone").with_({"model.checkpoint": str(tmp_path)})
    family = load_family(rehearsal_of(experiment) if rehearsed else experiment)
    read = (
        partial(family.load_tokenizer, lambda: iter(["한국어"]))
        if rehearsed
        else partial(require_limits, family)
    )
    with pytest.raises(UserError, match=r"config.*cannot be read: ZeroDivisionError") as refused:
        read()
    assert str(tmp_path) in str(refused.value)
    assert "copy its config.json again" in str(refused.value)


def test_weights_of_another_size_are_refused_by_name(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["bart"], tmp_path / "bart")
    configured(vocab_size=100_000)(folder)
    experiment = experiment_of("bart", folder)
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    with pytest.raises(UserError, match=r"lacks 1 weights(?s:.*)model\.shared\.weight"):
        load_model(SEQ2SEQ, experiment, CPU, tokenizer, print)


def test_layers_that_the_configuration_does_not_count_are_told(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["bart"], tmp_path / "bart")
    configured(decoder_layers=0)(folder)
    experiment = experiment_of("bart", folder)
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    told: list[str] = []
    load_model(SEQ2SEQ, experiment, CPU, tokenizer, told.append)
    assert "has no place for 26 weights of its files, which are left out: model.decoder.layers.0" in told[0]


def test_a_writer_without_its_output_matrix_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for file in checkpoints["bart"].glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    tokenizer = load_tokenizer(experiment_of("bart", checkpoints["bart"]), lambda: iter(()))
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=2 * POSITIONS,
        tie_word_embeddings=False,
    )
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 weights(?s:.*)lm_head\.weight"):
        load_model(CAUSAL, experiment_of("gpt2", tmp_path), CPU, tokenizer, print)


def test_a_checkpoint_in_parts_is_loaded_and_one_of_pickled_code_is_not(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["bart"], tmp_path / "bart")
    sharded(folder)
    experiment = experiment_of("bart", folder)
    require_limits(load_family(experiment))
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    whole = load_model(SEQ2SEQ, experiment_of("bart", checkpoints["bart"]), CPU, tokenizer, print)
    parts = load_model(SEQ2SEQ, experiment, CPU, tokenizer, print).state_dict()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.state_dict().items())
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Path.cwd}))
    with pytest.raises(UserError, match="no plain tensors"):
        load_model(SEQ2SEQ, experiment, CPU, tokenizer, print)


def test_a_decoder_below_a_head_is_told_what_pads(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for file in checkpoints["bart"].glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    tokenizer = load_tokenizer(experiment_of("bart", checkpoints["bart"]), lambda: iter(()))
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=POSITIONS
    )
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    model = load_model(classification(("a", "b")), experiment_of("gpt2", tmp_path), CPU, tokenizer, print)
    rows = tokenizer(["a", "a b c"], padding=True, return_tensors="pt")
    assert model(rows["input_ids"], attention_mask=rows["attention_mask"]).logits.shape == (2, 2)


@pytest.mark.parametrize(
    ("positions", "hint"), [(59, "tokenizer.encoder_max_len=19"), (40, "generation.max_length=10")]
)
def test_a_prompt_and_its_answer_need_positions_together(
    positions: int, hint: str, checkpoints: dict[str, Path]
) -> None:
    experiment = experiment_of(
        "bart",
        checkpoints["bart"],
        tokenizer={"encoder_max_len": 20, "decoder_max_len": 30},
        generation={"max_length": 40},
    )
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = partial(transformers.OPTConfig, vocab_size=len(tokenizer), **sizes)
    enough = transformers.OPTForCausalLM(made(max_position_embeddings=60, word_embed_proj_dim=16))
    check_limits(experiment, enough, tokenizer)
    short = transformers.OPTForCausalLM(made(max_position_embeddings=positions, word_embed_proj_dim=16))
    with pytest.raises(UserError, match=r"20 tokens with generation\.max_length=40 behind them") as caught:
        check_limits(experiment, short, tokenizer)
    assert caught.value.hint == hint
