"""The leaderboard's page in a real browser: a sweep of 5,000 jobs opens at once, and is sorted and filtered there."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from housing.runs.outcome import Outcome
from housing.sweeps import leaderboard
from housing.sweeps.ranking import Ranking
from tests.support.browser import running_browser

N_JOBS = 5000
METRICS = {"mae": 0.3, "r2": 0.8, "fit_seconds": 1.0, "latency_us": 1234.0, "model_bytes": 1e5}
LINK = "http://127.0.0.1:5000/#/experiments/1/runs/"
SECONDS_TO_OPEN = 2.0  # of processor time, as other programs may use the machine


def large_sweep() -> list[Outcome]:
    """Return jobs of which the last is the best, and failed ones whose texts look like markup."""
    jobs = [
        Outcome([f"model.depth={i % 40}", f"seed={i}"], "FINISHED", f"{i:032x}", LINK, metrics={"rmse": 1 - i / 1e4, **METRICS})
        for i in range(N_JOBS - 3)
    ]
    failed = Outcome(["model.depth=<b>7</b>", "seed=0"], "FAILED", "f" * 32, "javascript:alert(1)", error="<img src=x>")
    return [*jobs, *(replace(failed, job=N_JOBS - i) for i in range(3))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Yield the page of a sweep of 5,000 jobs, opened from its file. No script fails, and nothing else is loaded."""
    folder = tmp_path_factory.mktemp("sweep")
    leaderboard.write(Ranking("a sweep", large_sweep(), ["rmse"]), folder, figures=False)
    requests, errors = list[str](), list[str]()
    with running_browser() as browser:
        opened = browser.new_page(viewport={"width": 390, "height": 800})
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto((folder / leaderboard.PAGE_FILE).as_uri())
        yield opened
        assert not errors and len(set(requests)) == 1


def column(page: Page, position: int) -> list[str]:
    """Return the cells of a column in the rows that the page shows."""
    return page.locator(f"#jobs tr td:nth-child({position})").all_text_contents()


def test_a_page_of_5000_jobs_opens_at_once(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] < SECONDS_TO_OPEN
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # the table scrolls inside the page
    expect(page.locator("output")).to_have_text("5,000 jobs, the first 200 are shown")
    assert column(page, 2)[:2] == ["4997", "4996"]


def test_all_jobs_are_sorted_and_filtered(page: Page) -> None:
    header, filter_ = page.locator("#jobs th"), page.get_by_label("Filter")
    header.get_by_text("job", exact=True).click()
    assert column(page, 2)[:2] == ["1", "2"]
    header.get_by_text("job", exact=True).click()
    assert column(page, 2)[0] == "5000" and header.nth(1).get_attribute("aria-sort") == "descending"
    filter_.fill("rmse<0.6 seed=4500")
    assert column(page, 2) == ["4501"]
    filter_.fill("fail")
    expect(page.locator("output")).to_have_text("3 of 5,000 jobs match")
    assert "<b>7</b>" in column(page, 6) and page.locator("#jobs td b, #jobs td img, #jobs td a").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    filter_.fill("seed>=100")
    page.get_by_role("button", name="Show more").click()
    assert len(column(page, 1)) == 1200 and page.locator("#jobs a").first.get_attribute("href") == LINK
