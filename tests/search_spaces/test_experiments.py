"""The seven experiments hold the values of their table, typed here once more from the table itself."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dure.config import Experiment, available, load_experiment, rehearsal_of
from dure.family import load_family
from dure.metrics.metric import Metric
from dure.studies.study import load_study

FOLDER = Path(__file__).parents[2] / "search_spaces"

MT5, T5, BART = (
    ("csebuetnlp/mT5_multilingual_XLSum", "mt5"),
    ("eenzeenee/t5-base-korean-summarization", "t5"),
    ("digit82/kobart-summarization", "bart"),
)
MT5_LAYERS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")  # the table's `wi` is two layers in mT5
BART_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
NF4, NF4_DOUBLE = {"type": "nf4", "double": False}, {"type": "nf4", "double": True}

# checkpoint, enc/dec len, batch × accum, epochs, LR, schedule, warm-up, wd, patience, eval_every,
# (beams, max, min, length penalty, no-repeat), (r, alpha, dropout), targets, 4-bit, checkpointing, prefix
TABLE: dict[str, tuple[Any, ...]] = {
    "mt5_xlsum_optimized_v2": (
        *(MT5, (512, 128), (6, 3), 4, 0.00006, "cosine_with_restarts", 0.03, 0.005, 5, 200),
        *((6, 128, 10, 1.0, 0), (48, 96, 0.05), MT5_LAYERS, NF4_DOUBLE, False, "요약: "),
    ),
    "mt5_xlsum_korean_adapted": (
        *(MT5, (768, 150), (5, 4), 6, 0.00009, "polynomial", 0.05, 0.001, 8, 150),
        *((8, 150, 15, 0.8, 3), (64, 128, 0.03), (*MT5_LAYERS, "lm_head"), NF4, False),
        "한국어 대화를 요약하세요: ",
    ),
    "mt5_xlsum_ultimate": (
        *(MT5, (1024, 200), (4, 4), 8, 0.00012, "cosine_with_restarts", 0.02, 0.0001, 12, 100),
        *((10, 200, 20, 0.6, 4), (96, 192, 0.01), (*MT5_LAYERS, "lm_head", "shared"), NF4, False),
        "dialogue summarization in korean: ",
    ),
    "eenzeenee_t5": (
        *(T5, (768, 150), (12, 2), 4, 0.00005, "cosine_with_restarts", 0.05, 0.01, 5, 200),
        *((6, 150, 20, 0.8, 3), (64, 128, 0.1), ("q", "k", "v", "o"), None, False, "summarize: "),
    ),
    "kobart_baseline": (
        *(BART, (768, 150), (8, 3), 4, 0.00003, "linear", 0.1, 0.01, 5, 200),
        *((8, 150, 20, 1.0, 3), (64, 128, 0.1), BART_LAYERS, NF4, True, ""),
    ),
    "high_learning_rate": (
        *(BART, (1024, 200), (6, 4), 5, 0.00008, "cosine_with_restarts", 0.02, 0.005, 8, 150),
        *((10, 200, 25, 0.6, 4), (96, 192, 0.05), (*BART_LAYERS, "fc1", "fc2"), NF4, True, ""),
    ),
    "batch_optimization": (
        *(BART, (1024, 256), (4, 8), 6, 0.00004, "polynomial", 0.06, 0.01, 10, 100),
        *((12, 256, 30, 0.8, 4), (128, 256, 0.02), (*BART_LAYERS, "fc1", "fc2", "lm_head"), NF4, True, ""),
    ),
}
SPECIAL_TOKENS = [
    *("#Person1#", "#Person2#", "#Person3#", "#PhoneNumber#", "#Address#", "#PassportNumber#"),
    *("#DateOfBirth#", "#SSN#", "#CardNumber#", "#CarNumber#", "#Email#"),
]
EXTRA_SPECIAL_TOKENS = {
    "mt5_xlsum_korean_adapted": ["<대화시작>", "<대화종료>", "<중요>", "<결론>"],
    "mt5_xlsum_ultimate": ["<summary>", "</summary>", "<dialogue>", "</dialogue>"],
}


CAUSAL = {
    "causal_qwen": ("Qwen/Qwen3-4B-Instruct-2507", "qwen3"),
    "causal_gemma": ("google/gemma-3-1b-it", "gemma3_text"),
    "causal_exaone": ("LGAI-EXAONE/EXAONE-4.0-1.2B", "exaone4"),
}
CLASSIFIERS = {
    "transfer_distilbert": ("distilbert-base-uncased", "distilbert", 5e-5),
    "transfer_bert": ("klue/bert-base", "bert", 3e-5),
}

# checkpoint, columns of a pair, what the labels are, best metric
PAIRS: dict[str, tuple[Any, ...]] = {
    "klue_nli": ("klue/roberta-base", ("premise", "hypothesis", "gold_label"), None, "eval_accuracy"),
    "klue_sts": ("klue/roberta-base", ("sentence1", "sentence2", "label"), "number", "eval_pearson"),
}

DECODERS = ("causal_qwen", "causal_gemma", "causal_exaone")
PREFERENCES = ("preference_qwen",)
RED_HEARTS = ("red_heart_730m", "red_heart_800m", "red_heart_320m", "red_heart_tiny")
# epochs, accumulation, warm-up ratio, smoothing, class weights, patience, data workers
EMOTIONS: dict[str, tuple[Any, ...]] = {
    "kobert_emotion": (15, 2, 0.1, 0.1, "balanced", 4, 4),
    "kobert_emotion_baseline": (5, 1, 0.0, 0.0, None, 2, 0),
}


def row_of(experiment: Experiment) -> tuple[Any, ...]:
    model, tokenizer, training = experiment.model, experiment.tokenizer, experiment.training
    generation, lora = experiment.generation, experiment.lora
    assert lora is not None
    return (
        (model.checkpoint, model.architecture),
        (tokenizer.encoder_max_len, tokenizer.decoder_max_len),
        (training.batch_size, training.gradient_accumulation_steps),
        training.epochs,
        training.learning_rate,
        training.scheduler,
        training.warmup_ratio,
        training.weight_decay,
        training.early_stopping_patience,
        training.eval_every,
        (
            generation.num_beams,
            generation.max_length,
            generation.min_length,
            generation.length_penalty,
            generation.no_repeat_ngram_size,
        ),
        (lora.rank, lora.alpha, lora.dropout),
        lora.targets,
        model.quantization and model.quantization.model_dump(),
        training.gradient_checkpointing,
        tokenizer.input_prefix,
    )


@pytest.mark.parametrize("name", TABLE)
def test_every_number_is_that_of_the_table(name: str) -> None:
    assert row_of(load_experiment(name)) == TABLE[name]


@pytest.mark.parametrize("name", TABLE)
def test_what_all_seven_share_is_the_same_in_each(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.family == "trainables.summarization"
    assert experiment.experiment.seed == 42
    assert experiment.model.use_unsloth
    assert experiment.training.precision == "auto"
    assert experiment.training.best_metric == "eval_rouge_sum"
    assert experiment.training.warmup_steps is None
    assert experiment.training.evaluate_untrained  # so that the table has the gain
    assert experiment.training.scheduler_options == {}
    assert (experiment.data.train, experiment.data.dev, experiment.data.test) == ("sample", "sample", None)
    assert (experiment.wandb.enabled, experiment.wandb.project) == (True, "dure")
    assert not experiment.rehearsal.enabled


@pytest.mark.parametrize("name", TABLE)
def test_special_tokens_are_the_common_ones_and_the_experiments_own(name: str) -> None:
    tokens = load_experiment(name).tokenizer.all_special_tokens
    assert list(tokens) == SPECIAL_TOKENS + EXTRA_SPECIAL_TOKENS.get(name, [])


def test_the_batch_runs_the_seven_in_the_order_of_the_table() -> None:
    assert load_study("seven").sources == tuple(TABLE)


def test_ten_are_the_seven_and_three_decoder_only_models_on_the_same_rows_by_the_same_metric() -> None:
    assert load_study("ten").sources == (*TABLE, *CAUSAL)
    seven = load_experiment("kobart_baseline")
    for name, (checkpoint, architecture) in CAUSAL.items():
        experiment = load_experiment(name)
        family = load_family(experiment)
        assert (experiment.model.checkpoint, experiment.model.architecture) == (checkpoint, architecture)
        assert experiment.data == seven.data
        assert experiment.training.best_metric == seven.training.best_metric
        assert list(family.options.rouge_markers) == SPECIAL_TOKENS
        assert family.options.rouge_tokenizer == load_family(seven).options.rouge_tokenizer
        assert [role.column for role in family.roles] == [role.column for role in load_family(seven).roles]
        assert experiment.training.effective_batch_size == 16
        assert experiment.model.quantization is not None
        assert experiment.lora is not None


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_fully_fine_tuned_and_chosen_by_macro_f1(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.family == "trainables.transfer"
    model, training = experiment.model, experiment.training
    assert (model.checkpoint, model.architecture, training.learning_rate) == CLASSIFIERS[name]
    assert (training.batch_size, training.epochs, training.best_metric) == (16, 3, "eval_macro_f1")
    assert experiment.lora is None


@pytest.mark.parametrize("name", PAIRS)
def test_an_experiment_on_pairs_reads_the_columns_of_klue(name: str) -> None:
    experiment = load_experiment(name)
    columns = tuple(experiment.data.columns[role] for role in ("text", "text_pair", "label"))
    target = experiment.task.get("target")
    assert (experiment.model.checkpoint, columns, target, experiment.training.best_metric) == PAIRS[name]
    assert load_family(experiment).best_metric.higher_is_better


@pytest.mark.parametrize("name", PREFERENCES)
def test_preferences_are_learned_with_adapters_and_chosen_by_reward_accuracy(name: str) -> None:
    experiment = load_experiment(name)
    assert (experiment.family, experiment.task["method"]) == ("trainables.preference", "dpo")
    assert experiment.lora is not None
    assert load_family(experiment).best_metric == Metric("eval_reward_accuracy", "max", "share")
    assert experiment.training.effective_batch_size == 32


@pytest.mark.parametrize("name", EMOTIONS)
def test_an_emotion_experiment_holds_the_numbers_of_its_table(name: str) -> None:
    experiment = load_experiment(name)
    training, objective = experiment.training, experiment.objective
    assert (
        training.epochs,
        training.gradient_accumulation_steps,
        training.warmup_ratio,
        objective.label_smoothing,
        objective.class_weights,
        training.early_stopping_patience,
        training.num_data_workers,
    ) == EMOTIONS[name]


@pytest.mark.parametrize("name", EMOTIONS)
def test_what_the_emotion_experiments_share_is_the_same_in_both(name: str) -> None:
    experiment = load_experiment(name)
    model, training = experiment.model, experiment.training
    assert experiment.family == "trainables.emotion"
    assert (experiment.name, experiment.experiment.seed) == (name, 42)
    assert (model.checkpoint, model.architecture, experiment.lora) == ("monologg/kobert", "bert", None)
    assert experiment.tokenizer.encoder_max_len == 128
    assert (training.batch_size, training.learning_rate, training.weight_decay) == (32, 2e-5, 0.01)
    assert (training.best_metric, training.precision) == ("eval_macro_f1", "auto")
    assert rehearsal_of(experiment).objective == experiment.objective


def test_the_730m_trains_as_its_guide_says() -> None:
    experiment = load_experiment("red_heart_730m")
    training = experiment.training
    assert (training.epochs, training.batch_size, training.gradient_accumulation_steps) == (60, 2, 32)
    assert (training.effective_batch_size, training.learning_rate, training.scheduler) == (64, 1e-4, "cosine")
    assert (experiment.objective.label_smoothing, experiment.task["preset"]) == (0.1, "730m")
    assert load_experiment("red_heart_tiny").task["preset"] == "tiny"


@pytest.mark.parametrize("name", RED_HEARTS)
def test_a_red_heart_is_chosen_on_rows_apart_from_those_it_is_reported_on(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.family == "trainables.red_heart"
    assert experiment.data.fold is not None
    assert (experiment.data.fold.of, experiment.data.fold.selection) == (10, Fraction(1, 10))
    assert load_family(experiment).best_metric == Metric("eval_loss", "min")


@pytest.mark.parametrize("preset", ["730m", "800m", "320m"])
def test_the_unified_training_has_every_number_of_its_guide(preset: str) -> None:
    experiment = load_experiment(f"red_heart_{preset}")
    training, objective = experiment.training, experiment.objective
    assert experiment.task["preset"] == preset
    assert (training.epochs, training.batch_size, training.gradient_accumulation_steps) == (60, 2, 32)
    assert (training.learning_rate, training.scheduler) == (1e-4, "cosine")
    assert (objective.label_smoothing, objective.r_drop, training.ema) == (0.1, 1.0, 0.999)
    assert (training.keep_epochs, training.keep_epochs_limit, training.on_oom) == (2, 30, "retry")


def test_every_shipped_file_is_offered_by_name_and_loads() -> None:
    experiments = {file.stem for file in (FOLDER / "experiments").glob("[!_]*.yaml")}
    studies = {file.stem for file in (FOLDER / "studies").glob("[!_]*.yaml")}
    assert (
        experiments
        == set(available("experiment"))
        == {*TABLE, *CLASSIFIERS, *PAIRS, *DECODERS, *PREFERENCES, *EMOTIONS, *RED_HEARTS}
    )
    assert studies == set(available("study"))
    for name in studies:
        study = load_study(name)
        # A unified training bears the name of its experiment, as its folder does.
        assert study.name == ("" if name.startswith("unified_") else name)
        assert study.description
        for experiment in study.sources:
            assert load_experiment(experiment).name == experiment
        assert study.resolved(study.load()).kind_of()


@pytest.mark.parametrize("name", TABLE)
def test_every_experiment_has_a_rehearsal_that_keeps_its_character(name: str) -> None:
    experiment = load_experiment(name)
    rehearsal = rehearsal_of(experiment)
    assert (rehearsal.lora, rehearsal.model) == (experiment.lora, experiment.model)
    assert rehearsal.training.scheduler == experiment.training.scheduler
    assert rehearsal.generation.num_beams == experiment.generation.num_beams
    assert rehearsal.training.learning_rate < 0.01
