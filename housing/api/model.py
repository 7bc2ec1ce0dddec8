"""A model in Python: predictions, intervals and explanations of rows as people have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.explanation.shapley import shapley_values

Rows = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Model:
    """A fitted model, read from a store.

    Attributes
    ----------
    source
        MLflow's address of the model.
    bundle
        All that predictions need.
    max_exact_columns, n_samples
        Limits of an explanation, as `serve.explain_max_exact_columns` and `serve.explain_samples` in the config.
    """

    source: str
    bundle: Bundle
    max_exact_columns: int
    n_samples: int

    @property
    def features(self) -> list[str]:
        """The names of the columns that a row has."""
        return [column.name for column in self.bundle.schema.features]

    def predict(self, rows: Rows, *, interval: float | None = None, quantiles: Sequence[float] = ()) -> pd.DataFrame:
        """Predict rows.

        Parameters
        ----------
        rows
            A DataFrame, a row as a dict, or a list of such rows. Other columns than those of the model are ignored.
        interval
            Expected share of true values between the columns `lower` and `upper`, such as 0.9; None: no such columns.
        quantiles
            Levels of quantiles, such as [0.1, 0.5, 0.9]. Each gives a column `quantile_0.1`.

        Returns
        -------
        pandas.DataFrame
            The column `prediction` in the target's unit, and the others that were asked for, with the index of `rows`.

        Raises
        ------
        TableError
            With each value that violates the model's schema.
        ConfigError, BundleError
            If the model has no such interval or quantiles.
        """
        frame = _as_frame(rows)
        matrix = self.bundle.schema.encode_frame(frame)
        columns: dict[str, Any] = {}
        if interval is None:
            columns["prediction"] = self.bundle.predict(matrix)
        else:
            columns["prediction"], columns["lower"], columns["upper"] = self.bundle.predict_interval(matrix, interval)
        if quantiles:
            levels = sorted(quantiles)
            _, *values = self.bundle.predict_quantiles(matrix, levels)
            columns |= {f"quantile_{level:g}": of_level for level, of_level in zip(levels, values, strict=True)}
        return pd.DataFrame(columns, index=frame.index)

    def explain(self, row: Mapping[str, Any]) -> pd.Series:
        """Return the Shapley value of each column for the prediction of one row, the largest first.

        They add up to the prediction minus the mean prediction of the bundle's background rows, in the target's unit.

        Raises
        ------
        TableError
            If the row violates the model's schema.
        """
        schema = self.bundle.schema
        matrix = schema.encode_frame(_as_frame(row))
        explanation = shapley_values(
            self.bundle.predict, matrix[0], self.bundle.background, schema.texts.owners, self.max_exact_columns, self.n_samples
        )
        values = pd.Series(explanation.values, index=self.features, name="shapley_value")
        return values.iloc[np.argsort(-np.abs(values.to_numpy()), kind="stable")]

    def _repr_html_(self) -> str:
        target = self.bundle.schema.target
        unit = f" ({escape(target.unit_label)})" if target.unit_label else ""
        columns = ", ".join(map(escape, self.features))
        return f"<p><b>{escape(self.source)}</b> predicts {escape(target.name)}{unit} from {columns}.</p>"


def _as_frame(rows: Rows) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows
    records = [rows] if isinstance(rows, Mapping) else list(rows)
    if not all(isinstance(record, Mapping) for record in records):
        raise ConfigError(f"Expected rows as a DataFrame, a dict or a list of dicts (got {rows!r:.200}).")
    return pd.DataFrame.from_records([dict(record) for record in records])
