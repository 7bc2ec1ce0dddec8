"""Page of a described file: what misleads, the target, associations, and each column with its distribution and examples."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from housing.description.associations import Association, rank_correlation, values_of
from housing.description.cells import MISSING_MARKS
from housing.description.decisions import Decision, Decisions
from housing.description.profile import MAX_LEVELS, ColumnProfile, FileProfile
from housing.description.split_proposals import SplitProposal
from housing.plots.html import render_page
from housing.schema.column import Vector
from housing.schema.dates import ISO_DATE, format_date

TEMPLATE = "description.html"
N_BINS = 30
N_LEVELS = 8
N_EXAMPLES = 5
N_PAIRS = 12
MAX_PAIR_COLUMNS = 60
MIN_PAIR_STRENGTH = 0.5
OUTLIER_SHARE = 0.005  # of the rows at each end that a histogram leaves out


@dataclass(frozen=True)
class Bar:
    """A bar: its label, its length from 0 to 100, and its value as text."""

    label: str
    length: float
    value: str


@dataclass(frozen=True)
class Histogram:
    """The heights of bars from 0 to 100, and the ends of the range."""

    heights: Sequence[float]
    lowest: str
    highest: str


@dataclass(frozen=True)
class Card:
    """One column on the page."""

    name: str
    declared: str
    evidence: Sequence[str]
    warnings: Sequence[str]
    facts: Mapping[str, str]
    histogram: Histogram | None
    levels: Sequence[Bar]
    examples: Sequence[str]


@dataclass(frozen=True)
class Description:
    """Everything that is known about a file."""

    file: Path
    target: str
    profile: FileProfile
    decisions: Decisions
    associations: Sequence[Association]
    findings: Sequence[str]
    split: SplitProposal | None = None


def render_description(description: Description, declaration: Path, next_command: str) -> str:
    """Return the HTML of the page."""
    profile, decisions = description.profile, description.decisions
    cards = [_card(profile.column(column.name), column, decisions) for column in decisions.columns]
    target = next(card for card in cards if card.name == description.target)
    return render_page(
        TEMPLATE,
        title=f"{description.file.name}: {profile.n_rows:,} rows",
        facts=_facts(description),
        warnings=[*description.findings, *(warning for card in cards for warning in card.warnings)],
        target=target,
        associations=[Bar(item.name, 100 * item.strength, f"{item.strength:.2f}") for item in description.associations[:20]],
        pairs=_pairs(profile, decisions),
        cards=[card for card in cards if card is not target],
        declaration=str(declaration),
        next_command=next_command,
    )


def _facts(description: Description) -> dict[str, str]:
    profile = description.profile
    n_cells = profile.n_rows * len(profile.columns)
    n_missing = sum(column.missing.total() for column in profile.columns)
    return {
        "rows": f"{profile.n_rows:,}",
        "columns": f"{len(profile.columns):,}",
        "features": f"{sum(column.is_feature for column in description.decisions.columns):,}",
        "target": description.target,
        "missing cells": f"{100 * n_missing / n_cells:.3g} %",
        "duplicate rows": f"{profile.n_duplicates:,}",
    }


def _card(column: ColumnProfile, decision: Decision, decisions: Decisions) -> Card:
    is_line = decision.is_number or decision.is_date
    numbers = values_of(column, decision, decisions.options) if is_line else np.empty(0)
    shown: Callable[[float], str] = _day if decision.is_date else _short
    present = [cell for cell in column.sample if cell and cell not in MISSING_MARKS]
    if decision.is_text:
        numbers, shown = np.array([len(cell) for cell in present], dtype=np.float64), _characters
    kind = decision.attributes.get("type", "")
    role = decision.attributes.get("role", "feature")
    n_missing = column.n_rows - column.n_present
    return Card(
        name=column.name,
        declared="left out" if role == "ignore" else f"{kind}, {role}" if role != "feature" else str(kind),
        evidence=decision.evidence,
        warnings=decision.warnings,
        facts={
            "missing": f"{100 * n_missing / column.n_rows:.3g} %",
            "distinct": f"{len(column.distinct):,}",
            **(
                {"mean": shown(float(np.nanmean(numbers))), "median": shown(float(np.nanmedian(numbers)))}
                if _has_numbers(numbers)
                else {}
            ),
        },
        histogram=_histogram(numbers, shown) if _has_numbers(numbers) else None,
        levels=[] if is_line or decision.is_text else _levels(column, present),
        examples=[cell[:60] for cell in list(dict.fromkeys(present))[:N_EXAMPLES]],
    )


def _has_numbers(numbers: Vector) -> bool:
    return bool(numbers.size) and not bool(np.isnan(numbers).all())


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.6g}"


def _characters(length: float) -> str:
    return f"{length:.0f} characters"


def _day(seconds: float) -> str:
    return format_date(seconds, ISO_DATE)


def _histogram(numbers: Vector, shown: Callable[[float], str]) -> Histogram:
    present = numbers[~np.isnan(numbers)]
    lowest, highest = np.quantile(present, [OUTLIER_SHARE, 1 - OUTLIER_SHARE])
    if lowest == highest:
        lowest, highest = present.min(), present.max()
    counts, _ = np.histogram(present, bins=min(N_BINS, max(len(np.unique(present)), 1)), range=(float(lowest), float(highest)))
    return Histogram(
        [100 * count / max(counts.max(), 1) for count in counts.tolist()], shown(float(lowest)), shown(float(highest))
    )


def _levels(column: ColumnProfile, present: Sequence[str]) -> list[Bar]:
    """Return the most common levels, counted in all rows, or in the sample if there are too many to count."""
    counts = Counter(column.levels or present)
    total = max(sum(counts.values()), 1)
    common = counts.most_common(N_LEVELS)
    if len(counts) > MAX_LEVELS or not common or common[0][1] == 1:
        return []
    highest = common[0][1]
    return [Bar(level[:60], 100 * count / highest, f"{100 * count / total:.3g} %") for level, count in common]


def _pairs(profile: FileProfile, decisions: Decisions) -> list[Bar]:
    """Return the pairs of number features with the closest rank correlation."""
    columns = [column for column in decisions.columns if column.is_feature and column.is_number][:MAX_PAIR_COLUMNS]
    names = [column.name for column in columns]
    numbers = {column.name: values_of(profile.column(column.name), column, decisions.options) for column in columns}
    pairs = [
        (abs(rank_correlation(numbers[first], numbers[second])), first, second)
        for index, first in enumerate(names)
        for second in names[index + 1 :]
    ]
    closest = sorted(pairs, key=lambda pair: -pair[0])[:N_PAIRS]
    return [
        Bar(f"{first} – {second}", 100 * strength, f"{strength:.2f}")
        for strength, first, second in closest
        if strength >= MIN_PAIR_STRENGTH
    ]
