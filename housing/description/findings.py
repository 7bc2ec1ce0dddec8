"""Findings: what misleads in an unknown file, as sentences, besides what single columns show."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from housing.data.reading import read_rows
from housing.description.associations import values_of
from housing.description.decisions import Decisions
from housing.description.profile import CHUNK_ROWS, ColumnProfile, FileProfile, count_duplicates, hash_rows
from housing.schema.column import MAX_TARGET, Vector

CAPPED_SHARE = 0.005  # of the rows with the highest or the lowest target
CAPPED_TIMES = 5  # as many as rows with a usual value
MIN_DISTINCT_TARGETS = 50
SKEWED = 2.0
MIN_LABELLED = 50


def find(profile: FileProfile, decisions: Decisions, target: str, n_repeated: int) -> Iterator[str]:
    """Yield what misleads in a file: malformed rows, duplicates, and a capped or skewed target.

    `n_repeated` counts the rows that have the features of an earlier row.
    """
    if profile.n_misshapen:
        shown = ", ".join(f"line {line} has {n_cells}" for line, n_cells in profile.misshapen)
        yield (
            f"Rows without {len(profile.columns)} cells: {profile.n_misshapen:,} ({shown}). Training refuses the file"
            " until they are corrected or removed."
        )
    yield from _duplicates(profile, decisions, n_repeated)
    values = values_of(profile.column(target), decisions.column(target), decisions.options)
    values = values[~np.isnan(values)]
    yield from _small(profile.n_rows - _count_unlabelled(profile.column(target), decisions), values, target)
    yield from _capped(values, target)
    yield from _skewed(values, target)
    n_unlabelled = _count_unlabelled(profile.column(target), decisions)
    if n_unlabelled:
        yield f"{n_unlabelled:,} of {profile.n_rows:,} rows have no {target!r}, the target. They are left out of training."


def _count_unlabelled(column: ColumnProfile, decisions: Decisions) -> int:
    odd = dict(decisions.options.column_na_values).get(column.name, ())
    return column.missing.total() + sum(column.misfits[cell] for cell in odd)


def _small(n_labelled: int, values: Vector, target: str) -> Iterator[str]:
    """Yield why a target cannot be learned or judged: too few rows, too few values, or values out of range."""
    if n_labelled < MIN_LABELLED:
        yield f"Rows with a {target!r}: {n_labelled:,}, too few to train a model and to judge it."
    n_distinct = len(np.unique(values))
    if n_distinct == 1:
        yield f"{target!r} has the same value in each row, {values[0]:.10g}. There is nothing to predict."
    elif n_distinct == 2 and n_labelled >= MIN_LABELLED:
        yield f"{target!r} has two values only. Models predict a number between them, not one of the two."
    if values.size and np.abs(values).max() > MAX_TARGET:
        highest = f"{np.abs(values).max():g}"
        yield f"{target!r} has values of up to {highest}. Training refuses values above {MAX_TARGET:g}: use a larger unit."


def _duplicates(profile: FileProfile, decisions: Decisions, n_repeated: int) -> Iterator[str]:
    if profile.n_duplicates:
        yield f"{profile.n_duplicates:,} of {profile.n_rows:,} rows are duplicates of an earlier row."
    if n_repeated > profile.n_duplicates:
        yield (
            f"{n_repeated:,} of {profile.n_rows:,} rows have the features of an earlier row. With split=random, many of them"
            f" would be in training and test rows at once; the default split=hash {_effect_of_hash(decisions)}."
        )


def _effect_of_hash(decisions: Decisions) -> str:
    keys = [repr(column.name) for column in decisions.columns if column.attributes.get("role") == "key"]
    return f"does that too, since {keys[0]} is the key" if keys else "keeps them together"


def count_repeated(path: Path, decisions: Decisions) -> int:
    """Return how many rows of a file have the features of an earlier row. Reads the file once more."""
    used = [index for index, column in enumerate(decisions.columns) if column.is_feature]
    numbered_rows, hashes, rows = read_rows(path, decisions.options), [], []
    next(numbered_rows)
    for _, cells in numbered_rows:
        if len(cells) == len(decisions.columns):
            rows.append([cells[index] for index in used])
        if len(rows) == CHUNK_ROWS:
            hashes.append(hash_rows(rows))
            rows = []
    return count_duplicates([*hashes, hash_rows(rows)])


def _capped(values: Vector, target: str) -> Iterator[str]:
    """Yield the ends of the target at which far more rows are than at a usual value."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < MIN_DISTINCT_TARGETS:
        return
    for end, index, word in (("highest", -1, "above"), ("lowest", 0, "below")):
        count = int(counts[index])
        if count >= CAPPED_SHARE * len(values) and count > CAPPED_TIMES * np.quantile(counts, 0.9):
            yield (
                f"{target!r} looks capped: {100 * count / len(values):.3g} % of the rows have the {end} value,"
                f" {distinct[index]:.10g}. True values {word} it are unknown, and no model predicts them."
            )


def _skewed(values: Vector, target: str) -> Iterator[str]:
    if len(values) < 3 or np.ptp(values) == 0:
        return
    deviations = values - values.mean()
    skewness = float((deviations**3).mean() / (deviations**2).mean() ** 1.5)
    if abs(skewness) > SKEWED:
        advice = " Look at the MAE too."
        if skewness > 0 and values.min() > 0:
            advice += " Train with target.transform=auto: it fits the logarithm as well, and keeps the better model."
        yield f"{target!r} is heavily skewed (skewness {skewness:.1f}): a few extreme rows decide the RMSE.{advice}"
