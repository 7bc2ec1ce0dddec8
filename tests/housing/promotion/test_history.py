"""What was decided, as a table that fits the terminal and as lines for programs."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from housing.promotion import decision_log
from housing.promotion.decision_log import DecisionRecord
from housing.promotion.printing import show_history
from housing.promotion.rolling_back import rollback
from tests.housing.promotion.test_promotion import gate
from tests.support.commands import command
from tests.support.promotions import BETTER, TABLE, WORSE, opened
from tests.support.tables import config, train

COLUMNS = ["when", "decision", "alias", "from", "to", "who", "challenger", "champion", "difference", "served", "why"]


def past(**changed: object) -> DecisionRecord:
    """A decision of the past."""
    given = {
        "decided_at": datetime(2026, 11, 27, 8, 40, 43, tzinfo=UTC),
        "finished": True,
        "verdict": "PROMOTE",
        "alias": "staging",
        "previous_version": "2",
        "version": "3",
        "actor": "somebody",
        "reason": "better: test rmse 0.4809 against 0.5011 of version 2 [see the report], lower by 0.0101 at least",
        "forced": False,
        "served_at": "2026-11-27T08:40:45+00:00",
        "metrics": {"challenger_rmse": 0.4809, "champion_rmse": 0.5011, "difference": -0.0202},
    }
    return DecisionRecord(**{**given, **changed})  # type: ignore[arg-type]


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, *decided: DecisionRecord) -> str:
    """What a terminal of so many columns shows, without colours."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_history(decided, tsv=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [50, 80, 140, 200])
def test_a_terminal_of_any_width_shows_who_when_from_to_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    text = shown(
        capsys, monkeypatch, width, past(), past(verdict="ROLLBACK", forced=True, finished=False, metrics={}, served_at="")
    )
    assert max(map(len, text.splitlines())) <= width
    for expected in ("2026-11-27 08:40:43", "somebody", "2 → 3", "PROMOTE staging", "0.4809", "[see"):
        assert expected in text
    assert "forced" in text and "cut off" in text


def test_a_program_gets_one_line_a_decision(capsys: pytest.CaptureFixture[str]) -> None:
    show_history([past(reason="two\nlines"), past(previous_version="", actor="", metrics={}, served_at="")], tsv=True)
    header, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == COLUMNS and [len(line) for line in lines] == [len(COLUMNS)] * 2
    first, second = (dict(zip(header, line, strict=True)) for line in lines)
    assert first["when"] == "2026-11-27T08:40:43+00:00" and first["why"] == "two lines"
    assert float(first["challenger"]) + float(first["difference"]) < float(first["champion"]) == 0.5011
    assert (second["from"], second["difference"], second["to"]) == ("", "", "3")


@pytest.mark.long
def test_history_tells_every_decision_newest_first(home: Path) -> None:
    train(home, *WORSE)
    gate("actor=ann")
    train(home, *BETTER)
    gate("actor=bob")
    gate("alias=production", "evaluate=quick", "actor=ann")
    rollback(config("rollback", "data=rentals", "reason=too high", "actor=cleo"))
    ended = command(home, "housing.history", *TABLE)
    assert ended.code == 0 and not ended.err
    rows = [line.split("\t") for line in ended.out.splitlines()[1:]]
    assert [row[1:6] for row in rows] == [
        ["ROLLBACK", "staging", "2", "1", "cleo"],
        ["PROMOTE", "production", "", "2", "ann"],
        ["PROMOTE", "staging", "1", "2", "bob"],
        ["PROMOTE", "staging", "", "1", "ann"],
    ]
    assert rows[0][-1] == "too high" and rows[2][-1].startswith("better: test rmse")
    of_one = decision_log.list_decisions(store := opened(home), "rentals-decisions", "production")
    assert [(one.alias, one.actor) for one in of_one] == [("production", "ann")]
    assert len(decision_log.list_decisions(store, "rentals-decisions", limit=3)) == 3
