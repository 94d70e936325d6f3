"""The dashboard in a real Chromium: what it shows, how it moves, and for whom it can be read."""

import itertools
import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from flowledger import charts
from flowledger.charts import numbers
from flowledger.dashboard.rendering import PAGES
from flowledger.questions import Filters, Window
from flowledger.records import Call
from tests.calls import a_call
from tests.dashboard.conftest import DRAWN_MS, Filled, Open
from tests.dashboard.filled import SCRIPT, TOOLED

LARGEST_PICTURE = 200_000
PLACE = "row => row.getBoundingClientRect().top"
PHONE = 360


def asked_at(page: Page) -> int:
    """When a page was made, in Unix milliseconds."""
    text = page.locator(".top time").first.get_attribute("datetime") or ""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def a_call_page(filled: Filled) -> str:
    [made] = [call for call in filled.calls if call.actor.session_id == TOOLED]
    return f"/calls/{made.id}"


def is_failed_support(call: Call) -> bool:
    week_ago_ns = time.time_ns() - 7 * 86_400 * 10**9
    failed = not call.outcome.success and call.start_ns > week_ago_ns
    return failed and call.feature == "support"


@pytest.mark.parametrize("days", [7, 30])
def test_the_overview_says_what_the_questions_say(filled: Filled, look: Open, days: int) -> None:
    page = look(f"?window={days}d")
    with filled.ledger() as ledger:
        over = ledger.over(Window.last(days, asked_at(page)))
        sums, speed, models = over.sums(), over.percentiles(), over.by("model", order="cost_usd")
    expected = [
        numbers.count(sums.calls),
        numbers.amount(sums.cost_usd),
        numbers.percent(sums.error_rate),
        numbers.milliseconds(speed.p95),
    ]
    assert expected == page.locator(".tile .big > span:first-child").all_inner_texts()
    rows = page.locator("main section", has=page.get_by_role("heading", name="Models")).locator(
        "tbody tr"
    )
    assert [row.value for row in models] == rows.locator("th").all_inner_texts()
    spent = [text.removesuffix("+?") for text in rows.locator("td:last-child").all_inner_texts()]
    assert [numbers.amount(row.spend_usd) for row in models] == spent


def test_a_chart_has_a_title_words_and_a_table_of_the_same_numbers(look: Open) -> None:
    page = look("?window=30d")
    for card in page.locator("section.chart").all():
        title = card.get_by_role("heading").inner_text()
        assert re.match(r"(Spend|Failed calls) ", title), title
        assert card.locator("svg[role=img]").get_attribute("aria-label")
        card.get_by_text("The numbers").click()
        expect(card.get_by_role("table", name=title)).to_be_visible()


def test_a_tooltip_tells_the_exact_numbers(look: Open) -> None:
    page = look("?window=30d")
    bar = page.locator("[data-chart=by-model-data] .mark-rect path").first
    bar.hover()
    text = page.locator(".tip").inner_text()
    assert re.search(r"\$[\d.,]+\s*Share\s*[\d.]+%", text), text


def test_charts_follow_the_light_while_the_page_is_open(look: Open) -> None:
    page = look("?window=30d")
    bar = page.locator("[data-chart=by-model-data] .mark-rect path").first
    background = "getComputedStyle(document.body).getPropertyValue('--page')"
    assert charts.LIGHT.series[0] == bar.get_attribute("fill")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("[data-chart]:not([data-theme=dark])")).to_have_count(0, timeout=DRAWN_MS)
    assert charts.DARK.series[0] == bar.get_attribute("fill")
    assert light != page.evaluate(background)


def test_filters_stand_in_the_url_and_hold_on_every_page(filled: Filled, look: Open) -> None:
    page = look("/calls?window=30d")
    page.get_by_label("Feature").select_option("support")
    page.get_by_label("Status").select_option("failed")
    user = next(call.actor.user_id for call in filled.calls if is_failed_support(call)) or ""
    page.get_by_label("User").fill(user)
    page.get_by_role("button", name="Apply").click()
    assert "feature=support" in page.url
    with filled.ledger() as ledger:
        wanted = Filters(feature="support", status="failed", user_id=user)
        found = ledger.over(Window.last(30, asked_at(page)), wanted).calls().rows
    shown = page.locator("tbody[data-rows] tr")
    assert [] != found
    assert [row.id for row in found] == [row.get_attribute("data-id") for row in shown.all()]
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Users").click()
    assert [user] == page.locator("table").last.locator("tbody th").all_inner_texts()
    page.get_by_label(f"Remove the filter User {user}").click()
    expect(page.locator("table").last.locator("tbody th").nth(1)).to_be_visible()


def test_new_calls_come_into_the_list_by_themselves(filled: Filled, look: Open) -> None:
    page = look("/calls?window=24h")
    made = a_call(operation="made while somebody looked")
    assert 200 == filled.server.post_calls([made]).status
    expect(page.locator(f"[data-id='{made.id}']")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("status")).to_have_text("1 new call")


def test_new_calls_wait_while_somebody_reads_further_down(filled: Filled, look: Open) -> None:
    page = look("/calls?window=30d", height=500)
    row = page.locator("tbody[data-rows] tr").nth(30)
    row.scroll_into_view_if_needed()
    place = row.evaluate(PLACE)
    made = a_call(operation="made while somebody read")
    assert 200 == filled.server.post_calls([made]).status
    button = page.get_by_role("button", name="Show 1 new call")
    expect(button).to_be_visible(timeout=20_000)
    assert abs(place - row.evaluate(PLACE)) < 2  # pixels
    assert 0 == page.locator(f"[data-id='{made.id}']").count()
    button.click()
    expect(page.locator(f"[data-id='{made.id}']")).to_be_visible()


def test_live_can_be_switched_off(filled: Filled, look: Open) -> None:
    page = look("/calls?window=24h")
    page.get_by_label("Live").uncheck()
    made = a_call()
    assert 200 == filled.server.post_calls([made]).status
    page.wait_for_timeout(2_500)  # longer than it takes to look again
    assert 0 == page.locator(f"[data-id='{made.id}']").count()


def test_a_call_shows_everything_that_is_kept_of_it(filled: Filled, look: Open) -> None:
    page = look(a_call_page(filled))
    main = page.locator("main").inner_text()
    for text in (
        "Where is my order?",
        "find_order",
        "shipped",
        "write_mail",
        "first token after 30 ms",
        "120 ms",
        "customer_request",
        "per million tokens",
        "100 in, 20 out",
    ):
        assert text in main, text
    run = page.get_by_role("link", name="MLflow run")
    trace = page.get_by_role("link", name="MLflow trace")
    assert re.search(r"/#/experiments/\d+/runs/[0-9a-f]{32}$", run.get_attribute("href") or "")
    assert "selectedEvaluationId=tr-" in (trace.get_attribute("href") or "")


def test_what_a_call_says_is_never_markup(filled: Filled, look: Open) -> None:
    for path in ("", "calls", "users", "models", "errors", "costs", "sessions"):
        page = look(f"/{path}?window=90d".replace("/?", "?"))
        assert "taken" != page.title()
        assert 0 == page.locator("main script:not([type='application/json'])").count()
    odd = [call for call in filled.calls if call.actor.user_id == SCRIPT]
    page = look(f"/calls/{odd[0].id}")
    assert SCRIPT in page.locator("main").inner_text()


def test_the_keyboard_reaches_everything(look: Open) -> None:
    page = look("/calls?window=30d")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert ["Calls"] == page.locator("nav [aria-current=page]").all_inner_texts()


def test_a_phone_shows_every_page_without_scrolling_sideways(filled: Filled, look: Open) -> None:
    for path in (*PAGES, a_call_page(filled)[1:], f"sessions?session_id={TOOLED}"):
        page = look(f"/{path}".rstrip("/"), width=PHONE, height=800)
        assert PHONE == page.evaluate("document.documentElement.scrollWidth"), path
    expect(page.locator("#menu")).not_to_be_visible()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Models", exact=True).first).to_be_visible()


# The dark differs in its colours alone.
BOTH_LIGHTS: dict[Literal["light", "dark"], dict[str, Any]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast"]},
}


def test_no_page_has_a_serious_barrier_in_either_light(filled: Filled, look: Open) -> None:
    page = look("?window=30d")
    found = []
    for path in (*PAGES, a_call_page(filled)[1:], f"sessions?session_id={TOOLED}", "calls?q=order"):
        page.goto(f"{filled.url}/{path}".rstrip("/"))
        for scheme, options in BOTH_LIGHTS.items():
            page.emulate_media(color_scheme=scheme)
            drawn = f"[data-chart]:not([data-theme={scheme}])"
            expect(page.locator(drawn)).to_have_count(0, timeout=DRAWN_MS)
            found += [
                (path, scheme, one["id"], [node["target"] for node in one["nodes"]][:3])
                for one in Axe().run(page, options=options).response["violations"]
                if one["impact"] in ("serious", "critical")
            ]
    assert [] == found


def test_headings_are_in_order_on_every_page(filled: Filled, look: Open) -> None:
    page = look()
    for path in (*PAGES, a_call_page(filled)[1:]):
        page.goto(f"{filled.url}/{path}".rstrip("/"))
        levels = [
            int(name[1])
            for name in page.locator("h1, h2, h3, h4").evaluate_all(
                "all => all.map(e => e.tagName)"
            )
        ]
        assert 1 == levels[0], path
        assert [] == [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1], path


PICTURES = {
    "overview": ("?window=30d", False, 1360, 900),
    "overview-dark": ("?window=30d", True, 1360, 900),
    "overview-phone": ("?window=30d", False, PHONE, 740),
    "calls": ("/calls?window=30d", False, 1360, 900),
    "call": ("CALL", False, 1360, 900),
    "models": ("/models?window=30d", False, 1360, 900),
    "models-dark": ("/models?window=30d", True, 1360, 900),
    "costs": ("/costs?window=30d", False, 1360, 900),
    "errors": ("/errors?window=30d", False, 1360, 900),
    "health": ("/health", False, 1360, 900),
    "prompts": ("/prompts?window=30d", False, 1360, 900),
    "sessions": ("/sessions?window=30d", False, 1360, 900),
    "users": ("/users?window=30d", False, 1360, 900),
}


@pytest.mark.skipif(not os.environ.get("DASHBOARD_PICTURES"), reason="`make screenshots`")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_for_the_readme_are_small(filled: Filled, look: Open, name: str) -> None:
    path, dark, width, height = PICTURES[name]
    streamed = [call for call in filled.calls if call.first_token_ns and call.response]
    page = look(path.replace("CALL", f"/calls/{streamed[0].id}"), dark, width, height)
    folder = Path(os.environ["DASHBOARD_PICTURES"])
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")
    assert LARGEST_PICTURE > (folder / f"{name}.png").stat().st_size
