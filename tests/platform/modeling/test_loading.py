"""What loading tells, and how it fails: in words that name the checkpoint and a way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BertConfig
from transformers.utils import logging

from dure.config.schema import Profile
from dure.errors import UserError
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.task import SEQ2SEQ
from dure.modeling.tokens import add_special_tokens
from tests.platform.modeling.tiny_models import CPU, SPECIAL, TARGETS, TEXTS, experiment_of


def no_texts():
    return iter(())


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_tokenizer(experiment_of("t5", tmp_path), no_texts)


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        load_tokenizer(experiment_of("t5", tmp_path / "nothing"), no_texts)


def test_an_unreachable_hub_names_the_checkpoint_and_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load_tokenizer(experiment_of("t5", "nobody/no-such-model"), no_texts)
    assert "nobody/no-such-model" in caught.value.problem
    assert caught.value.hint is not None
    assert "--rehearse" in caught.value.hint
    assert "model.checkpoint=" in caught.value.hint


def test_a_model_that_writes_nothing_is_refused(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    for file in checkpoints["t5"].glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    BertConfig().save_pretrained(tmp_path)
    experiment = experiment_of("t5", tmp_path)
    with pytest.raises(UserError, match="bert model, which is no encoder-decoder"):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)


def test_a_torn_checkpoint_is_the_users_error(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(checkpoints["bart"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    experiment = experiment_of("bart", folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)


def test_without_4_bit_loading_lora_goes_on_and_says_so_once(checkpoints: dict[str, Path]) -> None:
    experiment = experiment_of(
        "bart",
        checkpoints["bart"],
        model={"checkpoint": str(checkpoints["bart"]), "quantization": {}, "use_unsloth": True},
        lora={"rank": 2, "alpha": 4, "targets": TARGETS["bart"]},
    )
    told: list[str] = []
    machine = Profile(name="m4", device="mps", precision="bf16", quantization=False)
    load_model(SEQ2SEQ, experiment, machine, load_tokenizer(experiment, no_texts), told.append)
    assert len(told) == 2
    assert "Unsloth" in told[0]
    assert "no 4-bit weights on m4: LoRA on bf16 weights instead" in told[1]


@pytest.mark.parametrize("kind", TARGETS)
def test_fp4_loads_too(kind: str, checkpoints: dict[str, Path]) -> None:
    experiment = experiment_of(
        kind,
        checkpoints[kind],
        model={"checkpoint": str(checkpoints[kind]), "quantization": {"type": "fp4", "double": False}},
        lora={"rank": 2, "alpha": 4, "targets": TARGETS[kind]},
    )
    model = load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)
    assert any(type(module).__name__ == "Linear4bit" for module in model.modules())


def test_special_tokens_stay_whole_beside_particles_and_survive_decoding(
    checkpoints: dict[str, Path],
) -> None:
    tokenizer = load_tokenizer(experiment_of("bart", checkpoints["bart"]), no_texts)
    text = "#Person1#: 지훈은\n#Person2#은 집에"
    ids = tokenizer(text)["input_ids"]
    assert [t for t in tokenizer.convert_ids_to_tokens(ids) if t in SPECIAL] == ["#Person1#", "#Person2#"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_only_unknown_tokens_are_new(checkpoints: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(experiment_of("t5", checkpoints["t5"]), no_texts)
    size = len(tokenizer)
    for _ in range(2):
        add_special_tokens(tokenizer, ["#Person1#", "<결론>", "<결론>"])
        assert len(tokenizer) == size + 1
        assert tokenizer.convert_tokens_to_ids("<결론>") == size


def test_a_tokenizer_that_forgets_the_end_is_made_to_write_it(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    shutil.copytree(checkpoints["bart"], tmp_path / "kobart")
    forgetful = AutoTokenizer.from_pretrained(tmp_path / "kobart")
    forgetful.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    forgetful.save_pretrained(tmp_path / "kobart")
    assert AutoTokenizer.from_pretrained(tmp_path / "kobart")("책")["input_ids"][-1] != forgetful.eos_token_id
    tokenizer = load_tokenizer(experiment_of("bart", tmp_path / "kobart"), no_texts)
    assert tokenizer(TEXTS[0])["input_ids"][-1] == tokenizer.eos_token_id
    assert (
        tokenizer(text_target=TEXTS[0], truncation=True, max_length=5)["input_ids"][-1]
        == tokenizer.eos_token_id
    )


def test_nothing_of_the_model_is_lost_when_no_token_is_new(checkpoints: dict[str, Path]) -> None:
    experiment = experiment_of("mt5", checkpoints["mt5"], tokenizer={})
    model = load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)
    original = AutoModelForSeq2SeqLM.from_pretrained(checkpoints["mt5"]).state_dict()
    assert all(tensor.equal(original[name]) for name, tensor in model.state_dict().items())


def test_weights_that_a_checkpoint_lacks_are_refused_by_name(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(checkpoints["bart"], folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.encoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    experiment = experiment_of("bart", folder)
    with pytest.raises(UserError, match=r"lacks 1 weights.*model\.encoder\.layers\.0\.fc1\.weight"):
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)


def test_a_checkpoint_whose_weights_are_no_numbers_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    folder = tmp_path / "diverged"
    shutil.copytree(checkpoints["t5"], folder)
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    experiment = experiment_of("t5", folder)
    with pytest.raises(UserError, match="not finite") as error:
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)
    assert "model.checkpoint" in str(error.value.where)


def test_no_bar_of_transformers_is_drawn_and_whoever_uses_it_keeps_theirs(
    checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    had_bars = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        experiment = experiment_of("bart", checkpoints["bart"])
        load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, no_texts), print)
        assert logging.is_progress_bar_enabled()
    finally:
        if not had_bars:
            logging.disable_progress_bar()
    assert "Loading weights" not in capfd.readouterr().err
