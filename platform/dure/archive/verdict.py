"""What a comparison says, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from dure.archive.comparison import Comparison, GroupRecord, PairRecord, SettingRecord, Signature
from dure.errors import counted
from dure.metrics.metric import Metric
from dure.reporting.figures import bare_label, metric_phrase, some_names
from dure.reporting.verdicts import difference_sentence

_MOST_IN_FULL = 3
"""Settings up to which every pair has its sentence."""
_HASH = 8
_SPLITS = {"test": "test", "dev": "validation"}


def sentences(comparison: Comparison, metric: Metric, row_metric: Metric | None) -> tuple[str, ...]:
    """Return who is better, by how much and how sure that is; who is no better than the trivial predictor.

    ``row_metric`` is None where no rows can be compared.
    """
    settings = {each.name: each for each in comparison.settings}
    told: list[str] = []
    for group in comparison.groups:
        if len(group.settings) > 1:
            pairs = [pair for pair in comparison.pairs if pair.a in group.settings]
            told += (
                _of_pairs(group, pairs, row_metric)
                if row_metric and pairs
                else [_of_scores(group, settings, metric)]
            )
    for each in comparison.settings:
        if each.beats_baseline is False:
            trivial = metric_phrase(metric, each.baseline)
            rows = _SPLITS[each.baseline_split]
            told.append(
                f"{each.name} is no better than the trivial predictor on its {rows} rows ({trivial})."
            )
    return tuple(told)


def notes_on(
    groups: Sequence[Sequence[SettingRecord]], metric: Metric, row_metric: Metric | None
) -> list[str]:
    """Return why scores are not ranked together, and what the intervals do not cover."""
    notes = []
    first = groups[0][0]
    for other in groups[1:]:
        names = some_names([each.name for each in other])
        reasons = "; ".join(_reasons(first.signature, other[0].signature))
        notes.append(f"not ranked together: {names} and {first.name}, since {reasons}")
    records = [each for group in groups for each in group]
    if any(each.signature.split == "dev" for each in records):
        untested = some_names([each.name for each in records if each.signature.split == "dev"])
        notes.append(
            f"{untested}: scores are of the validation rows, which chose the checkpoints and flatter them; give a test "
            "table (data.test), and rows are compared too"
        )
    if row_metric is not None and row_metric.name != metric.name:
        notes.append(
            f"{bare_label(metric)} is no mean over rows: rows are compared by {bare_label(row_metric)}"
        )
    if row_metric is not None and any(len(each.seeds) == 1 for each in records):
        notes.append(
            "of one seed each, intervals and tests say how far a difference depends on the test rows, and nothing of "
            "another seed; dure batch --seeds N trains several"
        )
    return notes


def _of_pairs(group: GroupRecord, pairs: Sequence[PairRecord], metric: Metric) -> list[str]:
    if len(group.settings) <= _MOST_IN_FULL:
        return [difference_sentence(pair.a, pair.b, pair, metric) for pair in pairs]
    first = group.settings[0]
    with_first = [pair for pair in pairs if first in (pair.a, pair.b)]
    alike = [pair for pair in with_first if pair.verdict in ("tie", "equal")]
    apart = [pair for pair in with_first if pair not in alike]
    told = []
    if alike:
        names = some_names([pair.b if pair.a == first else pair.a for pair in alike])
        told.append(
            f"{first} has the best score, and cannot be told apart from {names} by {bare_label(metric)}."
        )
    told += [difference_sentence(pair.a, pair.b, pair, metric) for pair in apart[:_MOST_IN_FULL]]
    if len(apart) > _MOST_IN_FULL:
        told.append(f"So it is with {counted(len(apart) - _MOST_IN_FULL, 'further setting')}; see the table.")
    return told


def _of_scores(group: GroupRecord, settings: dict[str, SettingRecord], metric: Metric) -> str:
    first, second = (settings[name] for name in group.settings[:2])
    if first.score is None:
        return f"None of {some_names(group.settings)} has a {bare_label(metric)}."
    best = f"{first.name} has the best score, {metric_phrase(metric, first.score)}"
    if second.score == first.score:
        best = f"{some_names([name for name in group.settings if settings[name].score == first.score])} tie at {metric_phrase(metric, first.score)}"
    return f"{best}; how sure that is is not known, since the runs left no test rows to compare."


def _reasons(one: Signature, other: Signature) -> list[str]:
    found = []
    if one.split != other.split:
        found.append(
            f"these scores are of {_SPLITS[other.split]} rows and those of {_SPLITS[one.split]} rows"
        )
    elif one.rows != other.rows:
        found.append(f"their {_SPLITS[one.split]} rows differ ({_rows(other)} and {_rows(one)})")
    for key in dict.fromkeys((*other.how, *one.how)):
        if one.how.get(key) != other.how.get(key):
            values = " and ".join(each.how.get(key, "none") for each in (other, one))
            found.append(f"{key.replace('_', ' ')} differs ({values})")
    return found


def _rows(signature: Signature) -> str:
    counts = "" if signature.num_rows is None else f"{counted(signature.num_rows, 'row')}, "
    return f"{counts}hash {signature.rows[:_HASH]}"
