"""The model card: what the table's YAML declares, figures of the run, and "unknown" for the rest, in both files alike."""

import re
from pathlib import Path

import pytest

from housing.core.errors import ConfigError
from housing.data.settings import CARD_KEYS, parse_schema
from housing.promotion.promotion import promote
from housing.reports.card import introduction, write_card
from tests.support.tables import config

DECLARED = '+data.card={intended_use: "Rent | of *flats*", limitations: [one, two]}'
TITLES = ("Intended use", "Training data", "Factors", "Metrics", "Evaluation", "Quantitative", "Ethical", "Human", "Caveats")


def test_a_card_has_all_sections_declared_statements_and_figures_of_the_run(served_home: Path) -> None:
    card = write_card(config("card", "data=rentals", DECLARED))
    assert card.unknown == [key for key in CARD_KEYS if key not in ("intended_use", "limitations")]
    html, markdown = (path.read_text(encoding="utf-8") for path in (card.html, card.markdown))
    for text in (html, markdown):
        titles = re.findall(r"<h2>(.*?)</h2>|^## (.*)$", text, re.MULTILINE)
        assert [title for title in TITLES if not any(title in "".join(found) for found in titles)] == []
        assert "Human oversight: unknown" in text and "no full evaluation was made" in text
        assert "PROMOTE at staging, from version none to 1" in text and "linear on features none" in text
    assert "Rent | of *flats*" in html and r"Rent \| of \*flats\*" in markdown
    assert card.html.parent == served_home / "outputs" / "cards"


@pytest.mark.parametrize(("description", "sentence"), [("", ""), ("Flats to rent", " Flats to rent."), ("Flats.", " Flats.")])
def test_a_card_begins_with_target_and_description(description: str, sentence: str) -> None:
    target = parse_schema(config("card", "data=rentals").data).target
    assert re.match(rf"This model predicts rent in [^.]+\.{sentence} The sections", introduction(target, description))


@pytest.mark.long
@pytest.mark.usefixtures("served_home")
def test_a_card_shows_the_full_evaluation_of_a_promotion() -> None:
    run_id = promote(config("promote", "data=rentals", "evaluate=full")).run_id
    text = write_card(config("card", "data=rentals", f"run_id={run_id}")).markdown.read_text(encoding="utf-8")
    assert "95 % bootstrap interval of the test RMSE: " in text and "| RMSE / all rows |" in text


def test_a_misspelt_key_of_a_card_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"card has an unknown key 'intended_uze'\. Did you mean intended_use\?"):
        parse_schema(config("card", "data=rentals", "+data.card={intended_uze: x}").data)
