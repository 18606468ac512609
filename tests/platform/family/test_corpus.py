"""The training rows of a ratio: apart from validation, nested, of every class alike, and encoded once."""

from __future__ import annotations

import csv
import random
import unicodedata
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from dure.config.ratios import schedule
from dure.config.schema import Experiment
from dure.data.encoding import tokenizer_fingerprint
from dure.family import load_family
from dure.family.corpus import Corpus, cache_folder, load_corpus

LABELS = ["드문", *["보통"] * 9, *["흔한"] * 30]
WORDS = [
    "가람",
    "나무",
    "다리",
    "라면",
    "마을",
    "바다",
    "사람",
    "아침",
    "자리",
    "차례",
    "카드",
    "타령",
    "파도",
    "하늘",
]


def at_ratio(experiment: Experiment, ratio: Fraction | float, **data) -> Experiment:
    return Experiment.model_validate(
        experiment.model_dump() | {"data": experiment.data.model_dump() | {"train_ratio": ratio} | data}
    )


def on_duplicates(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment on tables in which every text stands several times, many of them in both."""
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=5)) for _ in range(60)]
    for split, size in (("train", 400), ("dev", 30)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "label"])
            for number in range(size):
                # Spaces do not make another text of one.
                text = rng.choice(texts).replace(" ", rng.choice([" ", "  "]))
                writer.writerow([f"{split}_{number}", text, rng.choice(LABELS)])
    files = {"train": str(folder / "train.csv"), "dev": str(folder / "dev.csv")}
    return at_ratio(experiment, 1, **files, max_train_rows=None, max_dev_rows=None)


def loaded(experiment: Experiment) -> tuple[Corpus, list[str]]:
    told: list[str] = []
    return load_corpus(load_family(experiment, told.append), notify=told.append), told


def test_duplicated_texts_are_never_both_in_a_stage_and_in_validation(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    whole, told = loaded(experiment)
    assert any("training rows have a text that stands in" in line for line in told)
    held_out = {tuple(ids) for ids in whole.dev["input_ids"]}
    assert 0 < len(whole.train) < 400
    for ratio in schedule(0.1, 0.3, 1):
        stage, _ = loaded(at_ratio(experiment, ratio))
        assert not held_out & {tuple(ids) for ids in stage.train["input_ids"]}
        assert stage.dev["id"][:] == whole.dev["id"][:]


def test_stages_are_nested_and_every_class_is_within_one_row_of_its_share(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    whole = Counter(loaded(experiment)[0].train["labels"])
    before: set[str] = set()
    for ratio in schedule(0.1, 0.1, 1):
        rows, _ = loaded(at_ratio(experiment, ratio))
        ids, classes = set(rows.train["id"]), Counter(rows.train["labels"])
        assert before < ids
        assert all(abs(classes[label] - ratio * size) < 1 for label, size in whole.items())
        before = ids
    assert len(before) == sum(whole.values())


def test_a_table_is_encoded_once_for_all_ratios_and_its_fingerprint_stays(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    whole, _ = loaded(experiment)
    files = sorted((cache_folder() / "encoded").iterdir())
    part, told = loaded(at_ratio(experiment, "1/3"))
    assert sorted((cache_folder() / "encoded").iterdir()) == files
    assert part.hashes == whole.hashes
    assert f"training on {len(part.train)} of {len(whole.train)} rows" in "\n".join(told)
    assert "(data.train_ratio=1/3), drawn by seed 42" in "\n".join(told)


@pytest.mark.parametrize("architecture", ["t5", "bert"])
def test_the_tokenizer_of_a_rehearsal_is_the_same_at_every_ratio(architecture, tiny):
    corpora = [loaded(at_ratio(tiny(architecture, "full"), ratio))[0] for ratio in (0.1, 0.5, 1)]
    assert len({tokenizer_fingerprint(corpus.tokenizer) for corpus in corpora}) == 1
    assert [len(corpus.train) for corpus in corpora] == [4, 20, 40]


def test_rows_are_limited_first_and_the_ratio_is_of_what_is_left(tiny, tmp_path):
    experiment = at_ratio(on_duplicates(tiny("bert", "full"), tmp_path), 0.1, max_train_rows=50)
    part, told = loaded(experiment)
    assert abs(len(part.train) - 5) <= 1
    assert [line.split(" rows")[0] for line in told if line.startswith("training on")] == [
        next(line for line in told if "training on 50 of" in line).split(" rows")[0],
        f"training on {len(part.train)} of 50",
    ]
    whole, _ = loaded(at_ratio(experiment, 1))
    assert set(part.train["id"]) < set(whole.train["id"])


def with_fold(experiment: Experiment, number: int, **data) -> Experiment:
    return at_ratio(experiment, data.pop("train_ratio", 1), fold={"number": number, "of": 4}, **data)


def test_a_fold_is_reported_on_and_neither_trains_nor_selects(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    held_out: list[str] = []
    for number in range(1, 5):
        corpus, told = loaded(with_fold(experiment, number))
        parts = [
            {tuple(ids) for ids in rows["input_ids"]} for rows in (corpus.train, corpus.dev, corpus.test)
        ]
        assert all(parts)
        assert not parts[0] & (parts[1] | parts[2])
        assert not parts[1] & parts[2]
        assert len(corpus.train) + len(corpus.dev) + len(corpus.test) == 400
        assert corpus.tested.table.dataset["id"][:] == corpus.test["id"][:]
        assert [f"train_{row}" for row in corpus.tested.numbers] == corpus.test["id"][:]
        assert f"data.dev={tmp_path / 'dev.csv'} takes no part" in "\n".join(told)
        held_out += corpus.test["id"]
    assert sorted(held_out) == sorted(f"train_{number}" for number in range(400))


def test_limits_and_ratio_draw_from_the_parts_of_a_fold(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    whole, _ = loaded(with_fold(experiment, 2))
    part, told = loaded(
        with_fold(experiment, 2, train_ratio="1/2", max_train_rows=100, max_dev_rows=7, on_overlap="error")
    )
    assert (abs(len(part.train) - 50) <= 1, len(part.dev), len(part.test)) == (True, 7, 7)
    for split in ("train", "dev", "test"):
        assert set(getattr(part, split)["id"]) < set(getattr(whole, split)["id"])
    assert [f"train_{row}" for row in part.tested.numbers] == part.test["id"][:]
    assert not any("stands in" in line for line in told)


def test_the_rows_that_a_fold_is_reported_on_do_not_depend_on_the_seed_of_an_experiment(tiny, tmp_path):
    experiment = with_fold(on_duplicates(tiny("bert"), tmp_path), 2, max_dev_rows=7)
    first, second = (loaded(experiment.with_({"experiment.seed": seed}))[0].tested for seed in (1, 2))
    assert first.numbers.tolist() == second.numbers.tolist()


def test_a_table_that_is_used_whole_is_encoded_once_for_all_folds(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    tokenizer = loaded(experiment)[0].tokenizer
    corpora = []
    for number in range(1, 5):
        family = load_family(with_fold(experiment, number))
        corpora.append(load_corpus(family, notify=lambda message: None, tokenizer=tokenizer))
        assert len(list((cache_folder() / "encoded").glob("*.arrow"))) == 3, (
            "train without overlap, dev, train"
        )
    assert len({corpus.hashes["train"] for corpus in corpora}) == 1


def test_a_fold_needs_no_validation_table(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    corpus, told = loaded(with_fold(experiment, 1, dev="sample", test=str(tmp_path / "nowhere.csv")))
    assert 97 <= len(corpus.test) <= 103
    assert [line for line in told if "takes no part" in line] == [
        f"data.test={tmp_path / 'nowhere.csv'} takes no part: "
        f"fold 1 of 4 of {tmp_path / 'train.csv'} is reported on"
    ]


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_the_embedded_corpus_is_cut_into_folds_too(architecture, tiny):
    corpus, told = loaded(with_fold(tiny(architecture, "full"), 3))
    assert (len(corpus.train), len(corpus.dev), len(corpus.test)) == (40, 6, 6)
    assert corpus.tested.table.num_rows == 6
    assert not any("takes no part" in line for line in told)


def test_a_test_table_keeps_the_numbers_of_its_rows(tiny, tmp_path):
    experiment = on_duplicates(tiny("bert", "full"), tmp_path)
    corpus, _ = loaded(at_ratio(experiment, 1, test=str(tmp_path / "dev.csv"), dev=None, max_dev_rows=5))
    assert [f"dev_{row}" for row in corpus.tested.numbers] == corpus.test["id"][:]


def test_labels_and_copies_of_one_form_are_one_and_what_is_odd_is_told(tiny, tmp_path):
    apart = unicodedata.normalize("NFD", "기쁨")
    rows = {
        "train": [
            ("가람 나무", "기쁨"),
            ("다리 라면", apart),
            ("마을 바다", "슬픔"),
            ("다리\u200b 라면", "슬픔"),
        ],
        "dev": [("사람 아침", f"{apart} "), ("자리 차례", "슬픔")],
        "test": [("\ufeff자리 차례", "슬픔"), ("사람  아침", "기쁨")],
    }
    for split, cells in rows.items():
        with (tmp_path / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *cells])
    files = {split: str(tmp_path / f"{split}.csv") for split in rows}
    limits = {"max_train_rows": None, "max_dev_rows": None}
    corpus, told = loaded(at_ratio(tiny("bert", "full"), 1, **files, **limits))
    assert corpus.train["labels"][:] == [0, 0, 1, 1]
    assert corpus.dev["labels"][:] == [0, 1]
    assert any("1 text stands in rows of different label" in line and "row 2" in line for line in told)
    assert any("all 2 test rows have a text that stands in" in line for line in told)
