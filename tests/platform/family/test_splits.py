"""Parts of the training table as validation and test rows: near their size, classes alike, no text on two sides."""

from __future__ import annotations

import csv
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.config.data import DataConfig
from dure.data.folds import cut_parts
from dure.data.overlap import text_groups
from dure.data.tables import Role, table_from_rows
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.same_rows import require_same_rows
from dure.family.splits import Splits
from dure.files import write_json

ROLES = (Role("text", "text", is_input=True), Role("label", "label", is_class=True))
TEXTS = [f"{word}{space}{end}" for word in "가나다라" for space in (" ", "  ") for end in "마바사"]
ratios = st.fractions(Fraction(1, 20), Fraction(2, 5))


def table_of(rows, folder):
    return table_from_rows([{"text": text, "label": label} for text, label in rows], "table", ROLES, folder)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(TEXTS), st.sampled_from("xyz")), min_size=30, max_size=80, unique=True
    ),
    dev=ratios,
    test=ratios,
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_hold_every_row_once_and_no_text_on_two_sides(rows, dev, test, seed, tmp_path_factory):
    table = table_of(rows, tmp_path_factory.getbasetemp())
    groups = text_groups(table, ["text"])
    found = cut_parts(table, ROLES, {"dev": dev, "test": test}, seed)
    assert sorted(np.concatenate([*found.values()]).tolist()) == list(range(len(rows)))
    sides = [set(groups[numbers].tolist()) for numbers in found.values()]
    assert all(sides)
    assert sum(map(len, sides)) == len(set().union(*sides))
    again = cut_parts(table, ROLES, {"dev": dev, "test": test}, seed)
    assert all(np.array_equal(found[split], again[split]) for split in found)


def test_every_class_has_its_share_and_another_seed_draws_other_rows(tmp_path):
    table = table_of(
        [(f"글 {number}", "흔한" if number % 10 else "드문") for number in range(1000)], tmp_path
    )
    parts = {"dev": Fraction(1, 10), "test": Fraction(1, 20)}
    found = cut_parts(table, ROLES, parts, 42)
    labels = np.array(table.dataset["label"][:])
    assert Counter(labels[found["dev"]]) == {"흔한": 90, "드문": 10}
    assert Counter(labels[found["test"]]) == {"흔한": 45, "드문": 5}
    other = cut_parts(table, ROLES, parts, 43)
    assert set(other["dev"].tolist()) != set(found["dev"].tolist())
    # What is reported on does not change because rows that select are held out beside it.
    assert np.array_equal(cut_parts(table, ROLES, {"test": Fraction(1, 20)}, 42)["test"], found["test"])


def test_a_cut_is_said_to_keep_classes_alike_only_where_there_are_some(tmp_path):
    whole = table_of([(f"글 {number}", "x") for number in range(10)], tmp_path)
    data = DataConfig(train="table", dev="10%")
    rows = cut_parts(whole, ROLES, data.parts, 0)
    for roles, said in ((("label",), True), ((), False)):
        (line,) = Splits({"train": whole}, whole, rows, data, roles).messages()
        assert ("classes alike" in line) == said


def test_too_few_texts_are_an_error_that_names_the_table(tmp_path):
    table = table_of([("같은 글", "x"), ("같은  글", "y"), ("다른 글", "x")], tmp_path)
    with pytest.raises(UserError, match="2 different texts cannot be cut into 3 parts"):
        cut_parts(table, ROLES, {"dev": Fraction(1, 3), "test": Fraction(1, 3)}, 1)


@pytest.mark.parametrize(("said", "kept"), [("10%", "10%"), (" 12.5 %", "12.5%"), ("0.1.csv", "0.1.csv")])
def test_a_part_is_a_percentage_and_everything_else_a_file(said, kept):
    assert DataConfig(dev=said).dev == kept
    assert bool(DataConfig(dev=said).parts) == kept.endswith("%")


@pytest.mark.parametrize(
    "said", [{"dev": "150%"}, {"dev": "0%"}, {"test": "100%"}, {"dev": "60%", "test": "40%"}]
)
def test_a_part_leaves_rows_to_train(said):
    with pytest.raises(ValueError, match=r"part below 100 %|no row trains"):
        DataConfig(**said)


def test_a_bare_number_is_told_how_a_part_is_written():
    with pytest.raises(ValueError, match="in percent, such as 10%"):
        DataConfig(dev=0.1)


def test_runs_of_all_seeds_have_one_split_which_the_record_names_and_a_resumption_must_have(tiny, tmp_path):
    rng = random.Random(3)
    file = tmp_path / "all.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows([f"글 {rng.randrange(60)}", "하나" if number % 3 else "둘"] for number in range(200))
    data = {"data.train": str(file), "data.dev": "10%", "data.test": "20%"}
    base = tiny("bert", "full").with_({**data, "data.max_train_rows": None, "data.max_dev_rows": None})
    runs = [base, base.with_({"experiment.seed": 7})]
    told: list[str] = []
    found = [load_corpus(load_family(each), notify=told.append) for each in runs]
    assert found[0].split == found[1].split
    assert found[0].hashes == found[1].hashes
    sizes = {split: len(getattr(found[0], split)) for split in ("train", "dev", "test")}
    assert found[0].split["rows"] == sizes
    assert sum(sizes.values()) == 200
    assert any("no text on two sides" in line for line in told)

    write_json(tmp_path / "run" / "environment.json", {"data": found[0].hashes, "split": found[0].split})
    require_same_rows(runs[0], tmp_path / "run")
    with pytest.raises(UserError, match="not the rows that the run was started with"):
        require_same_rows(base.with_({"data.split_seed": 1}), tmp_path / "run")
