"""The contract of a strategy holds for all of ours and for a toy that is nowhere in the engine."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from dure.cli.json_schema import json_schema
from dure.config.loading import dump_yaml
from dure.studies import study as union
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.crossval.strategy import Crossval
from dure.studies.life_cycle import Asked, preview
from dure.studies.progressive.driver import ProgressiveKind
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.strategy import Progressive
from dure.studies.proposing import Proposing
from dure.studies.sweep.plan import plan_sweep
from dure.studies.sweep.strategy import Sweep
from dure.studies.testing import check_strategy
from tests.platform.studies.toy_study import Seeds, SeedsStudy

RATES = (1e-5, 1e-4, 1e-3)


def batch_of(base):
    experiments = [base.with_({"experiment.name": name}) for name in ("a", "b", "c")]
    study = BatchStudy(name="batch", experiments=("a", "b", "c"), metrics=("eval_accuracy", "eval_loss"))
    return lambda path: Batch(study, experiments)


def sweep_of(base):
    study = plan_sweep("e", sampler="grid", num_trials=3).named([base]).resolved([base])
    return lambda path: Sweep(study, base, path)


def crossval_of(base):
    experiments = [base.with_({"experiment.name": name}) for name in ("a", "b")]
    study = CrossvalStudy(name="folds", experiments=("a", "b"), folds=2)
    return lambda path: Crossval(study, experiments, path)


def progressive_of(base):
    study = ProgressiveStudy(
        name="stages",
        experiment="e",
        ratios=(Fraction(1, 2), Fraction(1)),
        candidates=tuple({"training.learning_rate": rate} for rate in RATES),
        on_baseline="warn",
    )
    return lambda path: Progressive(study, ProgressiveKind(study, [base], lambda each: each).read(), path)


def seeds_of(base):
    return lambda path: Seeds(SeedsStudy(name="toy", experiment="e"), base)


@pytest.mark.slow
@pytest.mark.parametrize("made", [seeds_of, batch_of, sweep_of, crossval_of, progressive_of])
def test_a_strategy_keeps_the_contract(made, tiny, tmp_path, ray_address) -> None:
    check_strategy(made(tiny("bert", "full")), tmp_path, address=ray_address)


def test_a_new_kind_of_study_is_one_file_and_its_place_in_the_union(tiny, tmp_path, monkeypatch) -> None:
    known = union.Study.__origin__
    monkeypatch.setattr(union, "Study", Annotated[known | SeedsStudy, Field(discriminator="kind")])
    (tmp_path / "tiny.yaml").write_text(dump_yaml(tiny("bert", "full")), encoding="utf-8")
    file = tmp_path / "study.yaml"
    file.write_text(f"kind: seeds\nexperiment: {tmp_path / 'tiny.yaml'}\nseeds: [4, 5]\n", encoding="utf-8")
    study = union.load_study(str(file))
    kind = preview(study, Asked(dry_run=True))
    assert kind.study.name == "tiny_bert_full-seeds"
    assert [plan.experiment.experiment.seed for plan in kind.strategy(None).trials()] == [4, 5]
    assert union.stored_study(tmp_path, SeedsStudy).seeds == (4, 5)
    titles = [each["title"] for each in json_schema("study")["oneOf"]]
    assert titles[-1] == "SeedsStudy"


class Backwards(Seeds):
    """Breaks a promise: the names of its trials depend on how often they were asked for."""

    def trials(self):
        self.plans.reverse()
        return list(self.plans)


def test_trials_that_change_are_found(tiny, tmp_path) -> None:
    base = tiny("bert", "full")
    with pytest.raises(AssertionError, match="does not return the same"):
        check_strategy(lambda path: Backwards(SeedsStudy(name="toy", experiment="e"), base), tmp_path)


class Forgetful(Seeds):
    """Breaks a promise: what a session proposed and did not finish is not proposed again by the next."""

    proposed: ClassVar[list[str]] = []

    def tune_settings(self, concurrent_trials):
        return {"search_alg": Proposing(self.following), "num_samples": -1}

    def following(self, trial_id):
        self.proposed.append(trial_id)
        return {"trial": self.plans[len(self.proposed) - 1].name}


def test_a_search_that_forgets_what_was_not_finished_is_found(tiny, tmp_path) -> None:
    base = tiny("bert", "full")
    with pytest.raises(AssertionError, match="a restored search proposes"):
        check_strategy(lambda path: Forgetful(SeedsStudy(name="toy", experiment="e"), base), tmp_path)
