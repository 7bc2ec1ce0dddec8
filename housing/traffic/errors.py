"""The candidate's errors on true values against those of the versions that answered, as far as the labels allow a statement.

Only labels that the candidate cannot have been fitted on are compared. A label is left out if its row stands in the candidate's
table, or if it arrived before the candidate was fitted and the table is not here to look.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from housing.evaluation.paired_test import ComparisonSettings, PairedDifference, paired_test
from housing.traffic.labelled_rows import LabelledRows

N_RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class ErrorComparison:
    """A comparison of errors.

    Attributes
    ----------
    labels
        True values of rows that the candidate accepts.
    in_table
        Those whose row stands in the candidate's table: one of the models may have been fitted on it.
    undecided
        Those that are older than the candidate while its table is unknown.
    difference
        Candidate against the versions that answered on the other labels, or None if there are none.
    """

    labels: int
    in_table: int
    undecided: int
    metric: str
    min_units: int
    confidence: float
    difference: PairedDifference | None

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        compared = self.difference
        if compared is None:
            return "Errors cannot be compared: no true value that the candidate cannot know."
        metric = self.metric.upper()
        scores = (
            f"{metric} {compared.challenger_score:.4g} against {compared.champion_score:.4g} of the answers,"
            f" on {compared.rows:,} true values in {compared.units:,} {compared.unit_name}"
        )
        if compared.lower is None or compared.upper is None:
            return f"Too few true values to tell: {scores} (expected at least {self.min_units:,} groups)."
        confidence = f"{self.confidence:.1%} confidence"
        if compared.is_better:
            return f"The candidate's error is lower: {scores}, by at least {-compared.upper:.4g} ({confidence})."
        if compared.is_worse:
            return f"The candidate's error is higher: {scores}, by at least {compared.lower:.4g} ({confidence})."
        return (
            f"No significant difference: {scores}, a difference between {compared.lower:+.4g} and {compared.upper:+.4g}"
            f" ({confidence} at either end)."
        )


def compare_errors(
    labels: LabelledRows, settings: ComparisonSettings, fitted_at: datetime, table: Collection[int] | None
) -> ErrorComparison:
    """Compare the errors of candidate and answers.

    Parameters
    ----------
    labels
        Rows with their true values.
    settings
        Metric and confidence. `min_units` groups are needed for a statement.
    fitted_at
        When the candidate was fitted.
    table
        Hashes of the rows of the candidate's table, or None if it is not on this machine.
    """
    is_known, is_undecided = np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=bool)
    if table is None:
        is_undecided = labels.arrived <= fitted_at.timestamp()
    else:
        is_known = np.fromiter((row in table for row in labels.row_hash.tolist()), dtype=bool, count=len(labels))
    fair = labels.take(~(is_known | is_undecided))
    difference = None
    if len(fair):
        errors = fair.candidate - fair.actual, fair.logged - fair.actual
        difference = paired_test(settings, *errors, fair.units)
    return ErrorComparison(
        len(labels),
        int(is_known.sum()),
        int(is_undecided.sum()),
        settings.metric,
        settings.min_units,
        settings.confidence,
        difference,
    )
