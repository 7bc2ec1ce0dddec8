"""A table of the user's own, declared in one YAML file, from file to HTTP answer with all three models."""

from pathlib import Path

from conftest import TABLES, command, rentals_frame, serving, wait_for

DATA = (f"--config-dir={TABLES}", "data=rentals")
FLAT = {"area": 80.0, "rooms": 3, "furnished": False, "quarter": "harbour", "built": 1980}


def test_from_file_to_answer(home: Path) -> None:
    swept = command(home, "housing.train", "-m", *DATA, "model=linear,decision_tree,xgboost")
    assert swept.code == 0, swept.err
    assert "3 of 3 runs finished" in swept.out
    for model in ("linear", "decision_tree", "xgboost"):
        fitted = command(home, "housing.train", *DATA, f"model={model}")  # reused: the sweep has fitted it
        assert "reused" in fitted.out
    promoted = command(home, "housing.promote", *DATA)
    assert promoted.code == 0, promoted.err
    assert promoted.out.startswith("PROMOTE  housing-rentals at alias staging")
    with serving(home) as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        answers = [
            server.predict({**FLAT, **change}) for change in ({}, {"built": None}, {"furnished": True}, {"quarter": "hills"})
        ]
        assert [answer.status for answer in answers] == [200] * 4
        plain, unknown_year, furnished, hills = (answer.json["predictions"][0] for answer in answers)
        rent = 8 * 80 + 40 * 3 + 150 + 80  # how rentals_frame makes a rent
        assert abs(plain - rent) < 60
        assert unknown_year != plain
        assert furnished > plain and hills > plain
        unseen = server.predict({**FLAT, "quarter": "moon"})
        assert unseen.status == 422
        assert unseen.json["errors"] == [
            {"row": 0, "field": "quarter", "reason": "'moon' is not a category; allowed: old town, harbour, hills"}
        ]
    rentals_frame(20, seed=9).drop(columns="rent").to_csv(home / "new.csv", index=False)
    predicted = command(home, "housing.predict", *DATA, f"file={home}/new.csv", f"out={home}/out.csv")
    assert predicted.code == 0, predicted.err
    assert (home / "out.csv").read_text().count("\n") == 21
