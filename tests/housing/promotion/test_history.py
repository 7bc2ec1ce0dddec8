"""History of decisions: a table that fits the terminal, and tab-separated lines for programs."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from housing.promotion import decision_log
from housing.promotion.decision_log import DecisionRecord
from housing.promotion.printing import show_history
from housing.promotion.rolling_back import rollback
from tests.support.commands import command
from tests.support.promotions import BETTER, TABLE, WORSE, open_store, promote_rentals
from tests.support.tables import config, train

COLUMNS = ["when", "decision", "alias", "from", "to", "who", "challenger", "champion", "difference", "served", "why"]


def make_record(**changed: object) -> DecisionRecord:
    """Return a past decision."""
    content = {
        "decided_at": datetime(2026, 11, 27, 8, 40, 43, tzinfo=UTC),
        "finished": True,
        "verdict": "PROMOTE",
        "alias": "staging",
        "previous_version": "2",
        "version": "3",
        "actor": "somebody",
        "reason": "significantly better: test rmse 0.4809 against 0.5011 of version 2 [see the report], lower by 0.0101 at least",
        "forced": False,
        "served_at": "2026-11-27T08:40:45+00:00",
        "metrics": {"challenger_rmse": 0.4809, "champion_rmse": 0.5011, "difference": -0.0202},
    }
    return DecisionRecord(**{**content, **changed})  # type: ignore[arg-type]


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, *decisions: DecisionRecord) -> str:
    """Return the output on a terminal of this width, without colors."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_history(decisions, tsv=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [50, 80, 140, 200])
def test_the_table_fits_a_terminal_of_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    text = printed(
        capsys,
        monkeypatch,
        width,
        make_record(),
        make_record(verdict="ROLLBACK", forced=True, finished=False, metrics={}, served_at=""),
    )
    assert max(map(len, text.splitlines())) <= width
    for expected in ("2026-11-27 08:40:43", "somebody", "2 → 3", "PROMOTE staging", "0.4809", "[see"):
        assert expected in text
    assert "forced" in text and "interrupted" in text


def test_programs_get_one_line_per_decision(capsys: pytest.CaptureFixture[str]) -> None:
    show_history(
        [make_record(reason="two\nlines"), make_record(previous_version="", actor="", metrics={}, served_at="")], tsv=True
    )
    header, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == COLUMNS and [len(line) for line in lines] == [len(COLUMNS)] * 2
    first, second = (dict(zip(header, line, strict=True)) for line in lines)
    assert first["when"] == "2026-11-27T08:40:43+00:00" and first["why"] == "two lines"
    assert float(first["challenger"]) + float(first["difference"]) < float(first["champion"]) == 0.5011
    assert (second["from"], second["difference"], second["to"]) == ("", "", "3")


@pytest.mark.long
def test_history_lists_all_decisions_newest_first(home: Path) -> None:
    train(home, *WORSE)
    promote_rentals("actor=ann")
    train(home, *BETTER)
    promote_rentals("actor=bob")
    promote_rentals("alias=production", "evaluate=quick", "actor=ann")
    rollback(config("rollback", "data=rentals", "reason=too high", "actor=cleo"))
    result = command(home, "housing.history", *TABLE)
    assert result.code == 0 and not result.err
    rows = [line.split("\t") for line in result.out.splitlines()[1:]]
    assert [row[1:6] for row in rows] == [
        ["ROLLBACK", "staging", "2", "1", "cleo"],
        ["PROMOTE", "production", "", "2", "ann"],
        ["PROMOTE", "staging", "1", "2", "bob"],
        ["PROMOTE", "staging", "", "1", "ann"],
    ]
    assert rows[0][-1] == "too high" and rows[2][-1].startswith("significantly better: test rmse")
    store = open_store(home)
    of_alias = decision_log.list_decisions(store, "rentals-decisions", "production")
    assert [(record.alias, record.actor) for record in of_alias] == [("production", "ann")]
    assert len(decision_log.list_decisions(store, "rentals-decisions", limit=3)) == 3
