"""Metrics of the ``evaluate`` library, by the folder of their script or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from dure.errors import UserError, named
from dure.metrics.metric import RUN_METRICS, Metric

_MAIN = ("score", "value")
"""Keys by which metrics call their one figure when it does not bear their own name."""


class LibraryMetrics:
    """Some metrics of the library, loaded once; their scripts are code of whoever wrote them.

    Args:
        names: Folder or name of each.
        where: Option or key that names them, for errors.

    Raises:
        UserError: One is no metric, has to come from a hub that does not answer, or is called as another.
    """

    def __init__(self, names: Sequence[str], where: str) -> None:
        self._where = where
        self._loaded: dict[str, Any] = {}
        for name in names:
            if _stem(name) in self._loaded:
                raise _called_alike(_stem(name), where)
            self._loaded[_stem(name)] = _load(name, where)

    def __bool__(self) -> bool:
        return bool(self._loaded)

    def beside(self, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
        """Return metrics with the main figure of each of these added; which way those are better is not known.

        Raises:
            UserError: One is called as a metric that is there.
        """
        taken = {metric.name for metric in (*RUN_METRICS, *metrics)}
        for stem in self._loaded:
            if f"eval_{stem}" in taken:
                raise _called_alike(stem, self._where)
        return (*metrics, *(Metric(f"eval_{stem}", None) for stem in self._loaded))

    def scores(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], classes: Sequence[str] = ()
    ) -> dict[str, float]:
        """Return the figures of all: the main one by the metric's name, others as ``name_figure``.

        Of every row one thing is true, or of texts several. Metrics that want numbers get the places of classes.

        Raises:
            UserError: A metric cannot score these.
        """
        found: dict[str, float] = {}
        for stem, metric in self._loaded.items():
            given: Sequence[Any] = predictions
            single = all(len(each) == 1 for each in references)
            true: Sequence[Any] = [each[0] for each in references] if single else [*map(list, references)]
            if classes and _wants_numbers(metric):
                places = {name: place for place, name in enumerate(classes)}
                given, true = [places[each] for each in given], [places[each] for each in true]
            try:
                figures = metric.compute(predictions=given, references=true)
            except Exception as error:  # the script of a metric may raise anything
                raise UserError(
                    f"the metric '{stem}' cannot score these ({named(error, 160)})",
                    where=self._where,
                    expected="a metric of such predictions with its default arguments",
                ) from error
            found |= _figures(stem, figures, self._where)
        return found


def _load(name: str, where: str) -> Any:
    import evaluate

    folder = Path(name).expanduser()
    try:
        return evaluate.load(str(folder) if folder.exists() else name)
    except Exception as error:  # whatever a script, a missing package of it or the hub raises
        if folder.exists():
            raise UserError(
                f"this is no metric of the evaluate library ({named(error, 160)})",
                where=f"{where} {name}",
                expected="a folder with a script of its own name, such as exact_match/exact_match.py",
            ) from error
        raise UserError(
            f"the metric '{name}' is not on this machine, and the hub does not give it ({type(error).__name__})",
            where=where,
            expected="the folder of its script, or a name that this machine has loaded before",
            hint=f"git clone https://huggingface.co/spaces/evaluate-metric/{_stem(name)}, and name that folder",
        ) from error


def _stem(name: str) -> str:
    return Path(name).stem


def _wants_numbers(metric: Any) -> bool:
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    dtype = str(getattr(features.get("predictions"), "dtype", ""))
    return dtype.startswith(("int", "uint", "float"))


def _called_alike(stem: str, where: str) -> UserError:
    return UserError(
        f"two metrics are called '{stem}', and their figures would be one",
        where=where,
        expected="each metric once, under a name that no other and none of dure's has",
        hint="rename its folder and its script alike",
    )


def _figures(stem: str, figures: Any, where: str) -> dict[str, float]:
    """Return the numbers among what a metric gives."""
    given = figures if isinstance(figures, Mapping) else {}
    numbers = {key: float(value) for key, value in given.items() if isinstance(value, Real)}
    if not numbers:
        raise UserError(
            f"the metric '{stem}' gives no number, but {str(figures)[:80]!r}",
            where=where,
            expected=f"a dictionary of figures, such as {{'{stem}': 0.5}}",
        )
    main = next((key for key in (stem, *_MAIN) if key in numbers), next(iter(numbers)))
    return {stem if key == main else f"{stem}_{key}": value for key, value in numbers.items()}
