"""The dashboard in a real Chromium: what it shows, how it moves, and for whom it can be read."""

import io
import itertools
import re
import time
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from flowledger import charts
from flowledger.charts import numbers
from flowledger.dashboard.rendering import PAGES
from flowledger.questions import Filters, Window
from flowledger.records import Call
from tests.calls import a_call
from tests.dashboard.conftest import DRAWN_MS, NOT_DRAWN, Filled, Open
from tests.dashboard.filled import SCRIPT, TOOLED

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


def test_every_chart_has_a_title_a_unit_words_and_a_table_of_the_same_numbers(
    filled: Filled, look: Open
) -> None:
    page = look("?window=30d")
    for path in ("", "users", "models", "prompts", "errors", "costs"):
        page.goto(f"{filled.url}/{path}?window=30d".replace("/?", "?"))
        expect(page.locator(NOT_DRAWN)).to_have_count(0, timeout=DRAWN_MS)
        assert 0 < page.locator("section.chart").count(), path
        for card in page.locator("section.chart").all():
            title = card.get_by_role("heading").inner_text()
            assert re.match(r"(Spend|Calls|Failed calls|Distribution of latency)\b", title), title
            drawing = card.locator("svg[role=img]")
            assert drawing.get_attribute("aria-label")
            words = drawing.text_content() or ""
            assert re.search(r"dollars|\$\d|[Cc]alls|\d m?s\b|\d$", words), title
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


def test_filters_outlive_a_reload_and_the_way_back(filled: Filled, look: Open) -> None:
    page = look("/calls?window=30d")
    page.get_by_label("Feature").select_option("support")
    page.get_by_role("button", name="Apply").click()
    shown = page.locator("tbody[data-rows] tr")
    ids = [row.get_attribute("data-id") for row in shown.all()]

    def assert_filtered() -> None:
        assert {"feature=support", "window=30d"} <= set(page.url.partition("?")[2].split("&"))
        expect(page.locator("select[name=feature]")).to_have_value("support")
        assert ids == [row.get_attribute("data-id") for row in shown.all()]

    page.reload()
    assert_filtered()
    page.get_by_role("link", name="24 hours").click()
    page.wait_for_url("**window=24h**")
    page.go_back()
    assert_filtered()
    page.get_by_label("Remove the filter Feature support").click()
    page.wait_for_url(lambda url: "feature" not in url)
    page.go_back()
    assert_filtered()


def test_two_models_are_compared_by_the_keyboard_alone(filled: Filled, look: Open) -> None:
    page = look("/models?window=30d")
    for box in page.get_by_role("checkbox").all():
        if box.is_checked():
            box.press("Space")
    wanted = ["gpt-4.1", "gpt-4.1-mini"]
    for name in wanted:
        page.get_by_role("checkbox", name=f"Compare {name}", exact=True).press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    page.wait_for_url("**compare=**")
    side = page.get_by_role("table", name="Models side by side")
    assert sorted(wanted) == sorted(side.locator("thead th").all_inner_texts())
    rows = {
        row.locator("th").inner_text(): row.locator("td") for row in side.locator("tbody tr").all()
    }
    for name in ("Cost per call", "Error rate", "p50 latency", "p95 latency", "Confidence"):
        for cell in rows[name].all_inner_texts():
            assert re.fullmatch(r"\$?[\d.,]+( ms| s|%)?", cell), (name, cell)
    expect(page.locator(NOT_DRAWN)).to_have_count(0, timeout=DRAWN_MS)
    drawn = page.locator("[data-chart=latency-data] svg text").all_text_contents()
    assert set(wanted) <= set(drawn)


def test_tables_sort_by_the_keyboard_on_the_server_and_in_the_page(look: Open) -> None:
    page = look("/models?window=30d")
    names = page.get_by_role("table", name="Models", exact=True).locator("tbody th")
    page.get_by_role("link", name="Model", exact=True).press("Enter")
    page.wait_for_url("**sort=value**")
    assert sorted(names.all_inner_texts()) == names.all_inner_texts()
    page.get_by_role("link", name="Model", exact=True).press("Enter")
    page.wait_for_url("**sort=-value**")
    assert sorted(names.all_inner_texts(), reverse=True) == names.all_inner_texts()
    page.get_by_text("The numbers").first.click()
    table = page.get_by_role("table", name="Distribution of latency")
    button = table.get_by_role("button", name="p95")
    for way, first in (("descending", max), ("ascending", min)):
        button.press("Enter")
        expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", way)
        expect(table.locator("th[aria-sort]")).to_have_text("p95")
        found = [
            float(text.replace(",", "").removesuffix(" ms"))
            for text in table.locator("tbody td:nth-child(5)").all_inner_texts()
        ]
        assert (first(found), sorted(found, reverse=first is max)) == (found[0], found)


def test_the_overview_is_one_sheet_of_paper_without_what_is_to_be_clicked(look: Open) -> None:
    for dark in (False, True):
        page = look("?window=30d", dark=dark)
        spent = page.locator(".tile .big > span:first-child").nth(1).inner_text()
        [sheet] = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4"))).pages
        text = sheet.extract_text()
        for words in ("Overview", "30 days", spent, "Spend by feature", "gpt-4o"):
            assert words in text, words
        for words in ("24 hours", "Prompts", "The numbers"):
            assert words not in text, words
        page.emulate_media(media="print")
        assert "rgb(255, 255, 255)" == page.locator(".tile").first.evaluate(
            "tile => getComputedStyle(tile).backgroundColor"
        )


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
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}


class Visit(NamedTuple):
    """What was found on a page: barriers, levels of headings, headings that do not sort."""

    barriers: list[tuple[str, Any, list[Any]]]
    levels: list[int]
    unsorted: list[str]


@pytest.fixture(scope="module")
def visits(filled: Filled, chromium: Browser) -> dict[str, Visit]:
    """Every page by its path, looked at once in both lights."""
    page = chromium.new_page(viewport={"width": 1360, "height": 900})
    wanted = (*PAGES, a_call_page(filled)[1:], f"sessions?session_id={TOOLED}", "calls?q=order")
    found = {path: _visited(page, f"{filled.url}/{path}".rstrip("/")) for path in wanted}
    page.close()
    return found


def _visited(page: Page, url: str) -> Visit:
    page.goto(url)
    tags = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(e => e.tagName)")
    heads = page.locator(f"{SORTED} thead th:not(:has(a)):not(:has(button:enabled))")
    unsorted = heads.all_text_contents()
    barriers: list[tuple[str, Any, list[Any]]] = []
    for scheme, options in BOTH_LIGHTS.items():
        page.emulate_media(color_scheme=scheme)
        drawn = page.locator(f"[data-chart]:not([data-theme={scheme}])")
        expect(drawn).to_have_count(0, timeout=DRAWN_MS)
        barriers += [
            (scheme, one["id"], [node["target"] for node in one["nodes"]][:3])
            for one in Axe().run(page, options=options).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    return Visit(barriers, [int(tag[1]) for tag in tags], unsorted)


def test_no_page_has_a_serious_barrier_in_either_light(visits: dict[str, Visit]) -> None:
    assert {} == {path: one.barriers for path, one in visits.items() if one.barriers}


def test_headings_are_in_order_on_every_page(visits: dict[str, Visit]) -> None:
    for path, one in visits.items():
        assert 1 == one.levels[0], path
        pairs = itertools.pairwise(one.levels)
        assert [] == [(a, b) for a, b in pairs if b > a + 1], path


# What is a text of a call is filtered instead, and a share goes with the number before it.
UNSORTED = {"Compare", "Status", "What", "Model", "User", "Share"}
SORTED = "table:not(:has(caption:text-is('Models side by side')))"


def test_every_heading_of_every_table_is_there_to_sort_by(visits: dict[str, Visit]) -> None:
    unsorted = {path: one.unsorted for path, one in visits.items() if one.unsorted}
    assert UNSORTED == {text for some in unsorted.values() for text in some}
    assert {"models", "prompts", "errors", "calls", "calls?q=order"} == set(unsorted)
