"""From Python, settings come as a mapping, one text or several, and names as texts or paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dure
from dure.config import load_experiment
from dure.config.given import names_of, overrides_of
from dure.errors import UserError


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("training.epochs", 2, 2),
        ("training.epochs", np.int64(2), 2),
        ("training.learning_rate", np.float32(0.5), 0.5),
        ("experiment.description", "a: b # {c}", "a: b # {c}"),
        ("experiment.description", "1e-5", "1e-5"),
        ("experiment.description", "한 줄\n또 한 줄", "한 줄\n또 한 줄"),
        ("experiment.tags", ["a", "[b]"], ("a", "[b]")),
        ("data.train", Path("data/[1].csv"), "data/[1].csv"),
        ("data.train", [Path("a.csv"), Path("b.csv")], ["a.csv", "b.csv"]),
        ("experiment.tags", np.array(["a", "b"]), ("a", "b")),
        ("training.early_stopping_patience", None, None),
        ("training", {"epochs": 2, "batch_size": np.int64(4)}, None),
    ],
)
def test_a_mapping_says_what_the_texts_of_a_command_line_say(key, value, read) -> None:
    experiment = load_experiment("transfer_bert", {key: value})
    if isinstance(value, dict):
        assert (experiment.training.epochs, experiment.training.batch_size) == (2, 4)
        return
    section, _, name = key.partition(".")
    assert getattr(getattr(experiment, section), name) == read
    assert experiment == load_experiment("transfer_bert", overrides_of({key: value}))
    assert getattr(getattr(experiment.with_({key: value}), section), name) == read


def test_one_text_is_not_taken_for_its_letters() -> None:
    assert load_experiment("transfer_bert", "training.epochs=2").training.epochs == 2


def test_names_may_be_paths_and_lists() -> None:
    assert names_of("a", Path("b"), ["c", Path("d")]) == ["a", "b", "c", "d"]
    assert load_experiment(Path("transfer_bert")) == load_experiment("transfer_bert")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: load_experiment(None), "NoneType is given in place of the name of an experiment"),
        (lambda: names_of(3), "int is given in place of a name or a path"),
        (lambda: dure.compare(pd.DataFrame({"a": [1]})), r"DataFrame is given(?s:.*)DataFrame\.to_csv"),
        (lambda: dure.load_config("transfer_bert", {"data.train": pd.DataFrame()}), "data.train: a DataFrame is no value"),
        (lambda: dure.predict(None, ["a"]), "NoneType is given in place of a name or a path"),
        (lambda: dure.train("transfer_bert", rehearse=True, output=3), "int is given in place of a name or a path"),
        (lambda: dure.batch("seven", output=b"out"), "bytes is given in place of a name or a path"),
        (lambda: dure.validate(3.5), "float is given in place of a name or a path"),
        (lambda: dure.train(3.5), "float is given in place of a name or a path"),
        (lambda: dure.sweep(3.5), "float is given in place of a name or a path"),
        (lambda: dure.progressive(3.5), "float is given in place of a name or a path"),
        (lambda: dure.run(3.5), "float is given in place of a name or a path"),
        (lambda: dure.validate("transfer_bert", output=3), "int is given in place of a name or a path"),
        (lambda: dure.report(".", output=3), "int is given in place of a name or a path"),
        (lambda: dure.score(1, 2), "int is given in place of a name or a path"),
    ],
)  # fmt: skip
def test_what_is_neither_is_told_in_words(call, said) -> None:
    with pytest.raises(dure.UserError, match=said):
        call()


def test_the_package_shows_its_functions_and_its_errors() -> None:
    assert {"train", "predict", "UserError", "RunError"} <= {*dir(dure)} == {*dure.__all__}


def test_the_name_of_a_study_in_place_of_an_experiment_leads_to_its_command():
    with pytest.raises(UserError) as caught:
        load_experiment("growing_bert")
    assert caught.value.hint == "`dure run growing_bert`, since that is a study"
