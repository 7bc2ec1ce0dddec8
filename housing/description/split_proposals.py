"""Proposed splits: a date of observation, or an identifier that repeats, such as that of a customer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from housing.description.decisions import Decision, Decisions
from housing.description.profile import ColumnProfile, FileProfile

MIN_GROUPS, MIN_ROWS_OF_GROUP = 20, 2.0
MIN_DAYS = 20  # different dates, for a split into past and future
GROUP_NAME = re.compile(
    r"(.*[ _.-])?(id|ids|uuid|guid|key)|.*[a-z]Id"
    r"|(.*[ _.-])?(customer|client|user|account|member|person|patient|subject|household|shop|store|building|device|machine"
    r"|vehicle|driver)([ _.-]?(id|no|nr|number|name|code))?",
)
OTHER_DATE = re.compile(r".*(birth|born|dob|built|founded|expir|due|valid).*", re.IGNORECASE)


@dataclass(frozen=True)
class SplitProposal:
    """A split that fits a table: the choice of the group `split`, the column of `split.by`, if it is needed, and the reason."""

    split: str
    by: str | None
    reason: str


def propose_split(profile: FileProfile, decisions: Decisions) -> tuple[Decisions, SplitProposal | None]:
    """Return the decisions with groups declared and times named, and the split to use, or None if rows look independent."""
    groups = list(_groups(profile, decisions))
    times = list(_times(profile, decisions))[:1]
    changed = decisions.replaced([*groups, *times])
    if not any(column.is_feature for column in changed.columns):
        return decisions, None
    if times:
        return changed, SplitProposal("time", times[0].name, f"{times[0].name!r} says when a row was observed")
    if groups:
        by = groups[0].name if len(groups) > 1 else None
        return changed, SplitProposal("grouped", by, f"{groups[0].name!r} repeats")
    return decisions, None


def _groups(profile: FileProfile, decisions: Decisions) -> Iterator[Decision]:
    for decision in decisions.columns:
        column = profile.column(decision.name)
        if _is_group(decision, column):
            rows_each = column.n_present / len(column.distinct)
            evidence = (
                f"{len(column.distinct):,} values, {rows_each:.1f} rows each: split=grouped tests on new ones."
                " If known ones will be predicted, declare {type: category, categories: auto}"
            )
            kind = "int" if decision.attributes.get("type") == "int" else "text"
            nullable = {"nullable": True} if column.n_present < column.n_rows else {}
            yield Decision(decision.name, {"type": kind, "role": "group", **nullable}, (evidence,))


def _is_group(decision: Decision, column: ColumnProfile) -> bool:
    """Return whether a column names what several rows belong to."""
    is_name = GROUP_NAME.fullmatch(column.name.strip().lower()) or GROUP_NAME.fullmatch(column.name.strip())
    can_name = decision.attributes.get("type") in ("int", "category") or decision.attributes.get("role") == "ignore"
    n_groups = len(column.distinct)
    return bool(is_name) and can_name and n_groups >= MIN_GROUPS and column.n_present >= MIN_ROWS_OF_GROUP * n_groups


def _times(profile: FileProfile, decisions: Decisions) -> Iterator[Decision]:
    for decision in decisions.columns:
        column = profile.column(decision.name)
        is_known = column.n_present == column.n_rows and len(column.distinct) >= MIN_DAYS
        if decision.is_date and is_known and not OTHER_DATE.fullmatch(decision.name):
            evidence = f"{len(column.distinct):,} different: if rows are observed then, split=time tests on the latest"
            yield replace(decision, evidence=(*decision.evidence, evidence))
