"""Choice of the encoding of categories with many levels: the method with the best score on the validation rows."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from housing.data.split import Split
from housing.data.table import Table
from housing.estimators.specs import EstimatorSpec
from housing.features.level_encodings import AUTO, SUFFIXES
from housing.features.pipeline import parse_encoding
from housing.fitting.fitting import FitSettings, fit
from housing.scoring.metrics import as_loss
from housing.scoring.ranking_metric import RankingMetric

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodingChoice:
    """The settings of fits without `method: auto`.

    Attributes
    ----------
    method
        The chosen method, or None if there was nothing to choose.
    scores
        The validation score of each method.
    """

    settings: FitSettings
    method: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def choose_encoding(settings: FitSettings, table: Table, parts: Split, metric: RankingMetric) -> EncodingChoice:
    """Fit once with each method on the training rows, and choose the one with the best `metric` on the validation rows.

    Nothing is fitted unless a model with `features.encoding.method=auto` receives a category with many levels.
    """
    names = sorted({name for spec in settings.specs for name in _undecided_columns(spec, table)})
    if not names:
        return EncodingChoice(settings)
    scores = {}
    for method in SUFFIXES:
        model = fit(_with_method(settings, method), table, parts.train, parts.valid, units=parts.units)
        predicted = model.predict(table.matrix[parts.valid])
        scores[method] = metric.score(predicted, table.target[parts.valid], table.weight_of(parts.valid))[metric.name]
    best = min(scores, key=lambda method: as_loss(metric.name, scores[method]))
    log.info(
        "Encoding of %s, chosen by %s on the validation rows: %s (%s).",
        ", ".join(names),
        metric.name,
        best,
        ", ".join(f"{method} {value:.6g}" for method, value in scores.items()),
    )
    return EncodingChoice(_with_method(settings, best), best, scores)


def _undecided_columns(spec: EstimatorSpec, table: Table) -> Iterator[str]:
    """Yield the names of the categories whose encoding is to be chosen."""
    encoding = parse_encoding(spec.features["encoding"])
    for column in table.schema.features if encoding.method == AUTO else ():
        is_visible = column.role not in spec.features["exclude_roles"]
        if is_visible and column.type == "category" and encoding.has_many(len(column.categories)):
            yield column.name


def _with_method(settings: FitSettings, method: str) -> FitSettings:
    return replace(settings, specs=tuple(_decide(spec, method) for spec in settings.specs))


def _decide(spec: EstimatorSpec, method: str) -> EstimatorSpec:
    encoding: Mapping[str, Any] = spec.features["encoding"]
    if encoding["method"] != AUTO:
        return spec
    return replace(spec, features={**spec.features, "encoding": {**encoding, "method": method}})
