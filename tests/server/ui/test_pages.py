"""The prediction page and the API documentation in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, Route, expect

from server.api.auth import PREDICT
from tests.support.browser import running_browser
from tests.support.server import Answer, Server, new_key, serving
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a real browser."""
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a browser page that fails the test on console errors and on requests to other hosts than 127.0.0.1."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    messages: list[str] = []
    opened.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: messages.append(str(error)))
    hosts: set[str] = set()
    opened.on("request", lambda request: hosts.add(re.sub(r"^(data:|blob:|\w+://[^:/]*).*", r"\1", request.url, flags=re.DOTALL)))
    yield opened
    opened.close()
    http_error = "Failed to load resource: the server responded with a status of (401|422|503)"  # which the page shows itself
    assert not [message for message in messages if not re.match(http_error, message)]
    assert hosts <= {"http://127.0.0.1", "data:", "blob:"}


def show(page: Page, server: Server) -> None:
    """Open the page and wait until the example is predicted."""
    page.goto(f"{server.url}/")
    expect(page.locator("#value")).not_to_be_empty()


def field(page: Page, name: str) -> Locator:
    """Return the control of a column."""
    return page.locator(f'#row [name="{name}"]')


def example(server: Server) -> dict[str, object]:
    """Return the example row of the page."""
    row: dict[str, object] = server.ask("/model").json["example"]
    return row


def expect_prediction(page: Page, answer: Answer, scale: float = 1.0) -> None:
    """Expect the page to show the server's prediction, rounded to three significant digits."""
    expect(page.locator("#value")).to_have_text(rounded(scale * answer.json["predictions"][0]))


def rounded(value: float) -> str:
    """Return a number as the page shows it: three significant digits, with commas from 10,000 on."""
    number = float(f"{value:.3g}")
    return f"{number:,.0f}" if number >= 10_000 else f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def test_the_form_follows_the_schema_and_the_example_is_predicted(page: Page, rentals_server: Server) -> None:
    show(page, rentals_server)
    row = example(rentals_server)
    expect(page).to_have_title("Predict cold rent: rentals")
    area = field(page, "area")
    expect(area).to_have_value(str(row["area"]))
    assert (area.get_attribute("min"), area.get_attribute("max")) == ("5", "500")
    expect(page.locator(".field").first).to_contain_text("square metres")
    expect(page.locator(".field").first).to_contain_text("area; from 5 to 500")
    expect(page.get_by_label("Floor area (square metres)")).to_have_count(1)
    expect(page.locator("#unit")).to_have_text("EUR a month")
    assert field(page, "quarter").locator("option").all_text_contents() == ["old town", "harbour", "hills"]
    assert field(page, "furnished").is_checked() == row["furnished"]
    expect_prediction(page, rentals_server.predict(row))
    result = rentals_server.ask("/predict?interval=0.9", json.dumps(row).encode()).json
    expect(page.locator("#interval")).to_contain_text("90 %")
    for end in ("lower", "upper"):
        expect(page.locator("#interval")).to_contain_text(rounded(result[end][0]))
    expect(page.locator("#place")).to_be_hidden()


def test_input_is_predicted_with_explanation_and_curves(page: Page, rentals_server: Server) -> None:
    show(page, rentals_server)
    row = {"area": 60.5, "rooms": 3, "furnished": True, "quarter": "hills", "built": None}
    field(page, "area").fill("60.5")
    field(page, "rooms").fill("3")
    field(page, "furnished").set_checked(True)
    field(page, "quarter").select_option("hills")
    field(page, "built").fill("")
    expect_prediction(page, rentals_server.predict(row))
    result = rentals_server.ask("/explain", json.dumps(row).encode()).json["contributions"]
    bars = page.locator("#bars tr")
    expect(bars).to_have_count(5)
    strongest = max(result, key=lambda name: abs(result[name]))
    expect(bars.first).to_contain_text({"area": "Floor area", "quarter": "Part of the town"}[strongest])
    amount = bars.first.locator(".amount").inner_text().replace("\u2212", "-")
    assert float(amount) == pytest.approx(result[strongest], abs=0.5)
    expect(bars.filter(has_text="Year of construction")).to_contain_text("missing")
    expect(page.locator("#curves figure")).to_have_count(5)
    expect(page.locator("#curves circle.now")).to_have_count(5)
    expect(page.locator("#curves figure").nth(3)).to_contain_text("harbour")


def test_dates_orders_levels_and_written_numbers_are_predicted_as_typed(page: Page, orders_server: Server) -> None:
    show(page, orders_server)
    typed = {"placed": "24.12.2021 18:30", "worn": "45,000 km", "town": "a new town", "grade": "good", "age": "", "size": "20.5"}
    typed["remark"] = "older lamp\nwith a deep scratch"
    expect(page.locator("textarea")).to_have_attribute("maxlength", "200")
    for name in ("note", "customer", "week", "copies", "order", "price"):
        expect(field(page, name)).to_have_count(0)  # no model receives them
    expect(field(page, "placed")).to_have_attribute("placeholder", "%d.%m.%Y %H:%M")
    assert field(page, "grade").locator("option").all_text_contents() == ["poor", "fair", "good"]
    expect(page.get_by_label("Distance worn (km)")).to_have_attribute("type", "text")
    for name, value in typed.items():
        enter = field(page, name).select_option if name == "grade" else field(page, name).fill
        enter(value)
    row = {**example(orders_server), **typed, "age": None, "size": 20.5}
    expect_prediction(page, orders_server.predict(row))
    assert orders_server.predict(row).json["predictions"] == orders_server.predict({**row, "worn": 45000}).json["predictions"]
    field(page, "placed").fill("24/12/2021")
    expect(page.locator(".field .error:not(:empty)")).to_have_text(re.compile("Must be a date such as 01.01.1970"))


def test_predictions_are_multiplied_by_the_scale_of_the_target(page: Page, rentals_server: Server) -> None:
    def scale(route: Route) -> None:
        model = rentals_server.ask("/model").json
        model["schema"]["columns"]["rent"] |= {"unit": "USD", "scale": 100_000}
        route.fulfill(json=model)

    page.route("**/model", scale)
    show(page, rentals_server)
    answer = rentals_server.ask("/predict?interval=0.9", json.dumps(example(rentals_server)).encode()).json
    value, lower, upper = (100_000 * answer[name][0] for name in ("predictions", "lower", "upper"))
    expect(page.locator("#prediction .number")).to_have_text(f"about {rounded(value)} USD")
    expect(page.locator("#interval")).to_contain_text(f"{rounded(lower)} to {rounded(upper)} USD")
    expect(page.locator("#explanation-sum")).to_contain_text(f"{rounded(value)} USD")


def test_a_click_on_a_curve_changes_the_row(page: Page, rentals_server: Server) -> None:
    show(page, rentals_server)
    quarter = page.locator("#curves figure").nth(3).locator(".target")
    box = quarter.bounding_box()
    assert box is not None
    quarter.click(position={"x": box["width"] * 0.95, "y": 50})
    expect(field(page, "quarter")).to_have_value("hills")
    expect_prediction(page, rentals_server.predict({**example(rentals_server), "quarter": "hills"}))


def test_an_invalid_value_is_reported_at_its_field_until_it_is_fixed(page: Page, rentals_server: Server) -> None:
    show(page, rentals_server)
    area = field(page, "area")
    area.fill("900")
    expect(page.locator(".field").first.locator(".error")).to_have_text(re.compile("500"))
    expect(area).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#prediction")).to_have_class(re.compile("stale"))
    field(page, "rooms").fill("")
    expect(page.locator(".field").nth(1).locator(".error")).to_have_text(re.compile("missing", re.IGNORECASE))
    area.fill("90")
    expect(page.locator(".field").first.locator(".error")).to_be_empty()
    page.get_by_role("button", name="Example").click()
    expect(page.locator(".error:not(:empty)")).to_have_count(0)
    expect(page.locator("#prediction")).not_to_have_class(re.compile("stale"))
    expect_prediction(page, rentals_server.predict(example(rentals_server)))


def test_a_click_on_the_map_and_the_arrow_keys_set_both_coordinates(page: Page, towns_server: Server) -> None:
    show(page, towns_server)
    map_ = page.locator("#map svg")
    examples = towns_server.ask("/examples").json
    expect(map_.locator("circle.known")).to_have_count(len(examples["background"]["rows"]) + len(examples["golden"]["rows"]))
    expect(map_).to_contain_text("46°")
    box = map_.bounding_box()
    assert box is not None
    map_.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.25})
    row = example(towns_server)
    expect(field(page, "north")).not_to_have_value(str(row["north"]))
    north, east = (float(field(page, name).input_value()) for name in ("north", "east"))
    assert 46.0 < north < 47.5 and 6.5 < east < 8.5  # towns lie from 45 to 47 and from 5 to 8
    expect_prediction(page, towns_server.predict({**row, "north": north, "east": east}), scale=1000)
    map_.press("ArrowDown")
    expect(field(page, "north")).not_to_have_value(str(north))
    assert float(field(page, "north").input_value()) < north
    expect(field(page, "east")).to_have_value(str(east))
    expect(page.locator("#explanation-lead")).to_contain_text("sampled Shapley values")


@pytest.mark.parametrize("table", ["rentals", "towns"])
def test_on_a_phone_nothing_is_cut_off_and_the_prediction_stays_visible(
    page: Page, rentals_server: Server, towns_server: Server, table: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    show(page, {"rentals": rentals_server, "towns": towns_server}[table])
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="Predict").scroll_into_view_if_needed()
    page.locator("#curves").scroll_into_view_if_needed()
    expect(page.locator("#value")).to_be_in_viewport()


def test_texts_of_the_schema_are_escaped(page: Page, rentals_server: Server) -> None:
    markup = "<img src=/static/icon.svg>"

    def say(route: Route) -> None:
        result = rentals_server.ask("/model").json
        result["schema"]["description"] = result["schema"]["columns"]["area"]["unit"] = markup
        result["schema"]["columns"]["quarter"]["categories"].append(markup)
        route.fulfill(json=result)

    page.route("**/model", say)
    show(page, rentals_server)
    expect(page.locator("#about")).to_contain_text(markup)
    expect(page.locator(".field").first).to_contain_text(markup)
    expect(page.locator("#curves figcaption").first).to_contain_text(markup)
    expect(field(page, "quarter").locator("option").last).to_have_text(markup)
    expect(page.locator("img")).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_inline_scripts_are_blocked(browser: Browser, rentals_server: Server, path: str) -> None:
    with browser.new_page() as opened:
        opened.goto(f"{rentals_server.url}{path}")
        with pytest.raises(Error, match="Content Security Policy"):
            opened.add_script_tag(content="window.ran = true")


def test_the_page_asks_for_a_required_key_and_does_not_store_it(page: Page, served_home: Path) -> None:
    key, line = new_key("tester", PREDICT)
    with serving(served_home, environment={"HOUSING_KEYS": line}) as guarded:
        wait_for(lambda: guarded.answers("/readyz"), "the model is published")
        assert guarded.ask("/examples").status == guarded.ask("/curves", b"{}").status == 401
        page.goto(f"{guarded.url}/")
        key_field = page.get_by_label("This server requires an API key")
        for entered, message in (("wrong", "Unknown API key."), (key, "")):
            key_field.fill(entered)
            page.get_by_role("button", name="Use key").click()
            expect(page.locator("#notice")).to_have_text(message)
        expect(key_field).to_be_hidden()
        row = guarded.ask("/model", Authorization=f"Bearer {key}").json["example"]
        expect_prediction(page, guarded.ask("/predict", json.dumps(row).encode(), Authorization=f"Bearer {key}"))
        page.reload()
        expect(key_field).to_be_empty()
        expect(page.locator("#notice")).to_contain_text("API key required")
        page.close()  # the server waits for a window's connections before it ends


def test_the_page_without_a_model_shows_how_to_get_one(page: Page, home: Path) -> None:
    with serving(home) as running:
        answer = running.ask("/")
        assert (answer.status, answer.type) == (503, "text/html; charset=utf-8")
        page.goto(f"{running.url}/")
        expect(page.get_by_role("heading")).to_have_text("No model yet")
        expect(page.locator("pre")).to_contain_text("python -m housing.promote")
        expect(page.locator("main")).to_contain_text("housing-rentals")
        page.close()  # the server waits for a window's connections before it ends


def test_the_documentation_lists_all_operations_and_runs_one(page: Page, rentals_server: Server) -> None:
    page.goto(f"{rentals_server.url}/docs")
    result = rentals_server.ask("/openapi.json").json
    expect(page.locator(".opblock")).to_have_count(sum(map(len, result["paths"].values())))
    operation = page.locator("#operations-predictions-predict")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text('"predictions"')
    assert rentals_server.ask("/docs/index.html").status == 404
