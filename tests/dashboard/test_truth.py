"""What pages show, beside numbers that plain SQL and arithmetic give, without our questions."""

import html
import math
import re
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flowledger.charts import numbers
from tests.dashboard.conftest import Site

DAY_MS = 86_400_000
CALLS = sa.text(
    "SELECT start_ms, latency_ms, cost_usd, success, model, feature, user_id, error_type,"
    " prompt_version FROM llm_calls"
    " WHERE inner_calls = 0 AND start_ms >= :first AND start_ms < :end"
)


class Page:
    """A page as it was sent, and what stands in its database.

    Args:
        site: where.
        path: which.
    """

    def __init__(self, site: Site, path: str) -> None:
        self.text = site.text(path)
        self._engine = sa.create_engine(site.uri, poolclass=sa.NullPool)
        said = re.search(r'as of <time datetime="([^"]+)"', self.text)
        assert said is not None
        self.now_ms = round(datetime.fromisoformat(said[1]).timestamp() * 1000)

    def calls(self, first_ms: float, end_ms: float) -> list[sa.Row[tuple[object, ...]]]:
        """Every call that asked a model between two moments."""
        with self._engine.connect() as connection:
            return list(connection.execute(CALLS, {"first": int(first_ms), "end": int(end_ms)}))

    def last(self, days: float, before: float = 0) -> list[sa.Row[tuple[object, ...]]]:
        """Those of so many days, which ended so many days before the page was made."""
        end = self.now_ms - before * DAY_MS
        return self.calls(end - days * DAY_MS, end)

    def tiles(self) -> dict[str, tuple[str, str]]:
        """The number and the badge of each card, by its name."""
        found = re.findall(r'<li class="card tile">(.*?)</li>', self.text, re.S)
        cards = [
            re.search(r"<h2>(.*?)</h2>.*?<span>(.*?)</span>(.*?)</p>", one, re.S) for one in found
        ]
        return {plain(card[1]): (plain(card[2]), plain(card[3])) for card in cards if card}

    def table(self, caption: str) -> dict[str, list[str]]:
        """The cells of each row of a table after its first heading, by that."""
        _, whole, rest = self.text.rpartition(f">{caption}</caption>")  # a chart may come first
        assert whole, caption
        body = rest.partition("</table>")[0].partition("<tbody")[2]
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.S)
        found = {}
        for row in rows:
            name = re.search(r'<th scope="row"[^>]*>(.*?)</th>(.*)', row, re.S)
            assert name is not None
            found[plain(name[1])] = [
                plain(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", name[2], re.S)
            ]
        return found


def plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).split())


def spend(calls: list[sa.Row[tuple[object, ...]]]) -> float:
    return math.fsum(call.cost_usd for call in calls if call.cost_usd is not None)


def error_rate(calls: list[sa.Row[tuple[object, ...]]]) -> float:
    return 100 * sum(not call.success for call in calls) / len(calls)


def p95(calls: list[sa.Row[tuple[object, ...]]]) -> float:
    latencies: list[float] = sorted(call.latency_ms for call in calls)
    return latencies[math.ceil(0.95 * len(latencies)) - 1]


def milliseconds(text: str) -> float:
    value, unit = text.replace(",", "").split()
    return float(value) * {"ms": 1, "s": 1000}[unit]


@pytest.mark.parametrize("days", [7, 30])
def test_the_cards_of_the_overview_and_their_changes_are_true(site: Site, days: int) -> None:
    page = Page(site, f"?window={days}d")
    now, before = page.last(days), page.last(days, days)
    tiles = page.tiles()
    shown = {name: text for name, (text, _) in tiles.items()}
    assert [
        numbers.count(len(now)),
        numbers.amount(spend(now)),
        numbers.percent(error_rate(now)),
    ] == [shown[name] for name in ("Calls", "Spend", "Error rate")]
    assert pytest.approx(p95(now), rel=0.021) == milliseconds(shown["p95 latency"])
    measures = {"Calls": len, "Spend": spend, "Error rate": error_rate}
    for name, measure in measures.items():
        percent = 100 * (measure(now) / measure(before) - 1)
        way = "unchanged" if abs(percent) < 0.05 else "up" if percent > 0 else "down"
        assert f"{way} {abs(percent):,.1f}%" in re.sub(r"[▲▼=] ", "", tiles[name][1]), name
        better = {"unchanged": "same", "up": name == "Calls", "down": name != "Calls"}[way]
        verdict = {True: "better", False: "worse", "same": "same"}[better]
        assert tiles[name][1].endswith(f", {verdict}"), name
    change = float(re.search(r"([\d.]+)%", tiles["p95 latency"][1])[1])  # type: ignore[index]
    assert pytest.approx(abs(100 * (p95(now) / p95(before) - 1)), abs=5) == change


def test_a_ledger_younger_than_the_window_before_is_compared_with_nothing(site: Site) -> None:
    page = Page(site, "?window=90d")
    assert 4 == page.text.count("no 90 d before to compare with")
    assert {""} == {badge for _, badge in page.tiles().values()}


def test_what_a_month_has_cost_and_where_it_leads_are_true(site: Site) -> None:
    page = Page(site, "/costs?window=30d")
    now = datetime.fromtimestamp(page.now_ms / 1000, UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    past = (first - timedelta(days=1)).replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    first_ms, past_ms, following_ms = (m.timestamp() * 1000 for m in (first, past, following))
    so_far = spend(page.calls(first_ms, page.now_ms))
    a_day = spend(page.last(7)) / 7
    projected = so_far + a_day * (following_ms - page.now_ms) / DAY_MS
    tiles = {name: text for name, (text, _) in page.tiles().items()}
    assert numbers.amount(so_far) == tiles[f"{first:%B} so far"]
    assert numbers.amount(projected) == tiles[f"{first:%B}, projected"]
    assert numbers.amount(spend(page.calls(past_ms, first_ms))) == tiles[f"{past:%B}"]
    assert numbers.amount(spend(page.last(30))) == tiles["Last 30 days"].removesuffix("+?")


@pytest.mark.parametrize(
    ("path", "caption", "field"),
    [
        ("/models", "Models", "model"),
        ("/users", "Users", "user_id"),
        ("/costs?by=feature", "Spend by feature", "feature"),
    ],
)
def test_each_row_of_a_table_is_true(site: Site, path: str, caption: str, field: str) -> None:
    page = Page(site, path + ("&" if "?" in path else "?") + "window=30d")
    calls = page.last(30)
    shown = page.table(caption)
    assert {getattr(call, field) for call in calls if getattr(call, field)} == set(shown) - {
        "(none)"
    }
    for name in set(shown) - {"(none)"}:
        own = [call for call in calls if getattr(call, field) == name]
        cells = shown[name]
        assert numbers.count(len(own)) == cells[0]
        mean = math.fsum(call.latency_ms for call in own) / len(own)
        assert numbers.milliseconds(mean) == cells[2]
        assert numbers.percent(error_rate(own)) in cells
        if any(call.cost_usd is not None for call in own):
            assert numbers.amount(spend(own)) == cells[-2].removesuffix("+?")
        if path == "/models":
            assert pytest.approx(p95(own), rel=0.021) == milliseconds(cells[3])


def test_types_of_errors_and_their_shares_are_true(site: Site) -> None:
    page = Page(site, "/errors?window=30d")
    failed = [call for call in page.last(30) if not call.success]
    expected = {}
    for name in {call.error_type for call in failed}:
        some = sum(call.error_type == name for call in failed)
        expected[name] = [numbers.count(some), numbers.percent(100 * some / len(failed))]
    assert expected == {name: cells[:2] for name, cells in page.table("Types of errors").items()}
    assert f"{len(failed)} of {numbers.count(len(page.last(30)))} calls failed" in page.text


def test_calls_of_each_prompt_version_are_true(site: Site) -> None:
    page = Page(site, "/prompts?window=30d")
    calls = page.last(30)
    shown = {name: cells[0] for name, cells in page.table("Prompt versions").items()}
    names = {call.prompt_version for call in calls if call.prompt_version}
    assert {
        name: numbers.count(sum(call.prompt_version == name for call in calls)) for name in names
    } == shown


def test_each_day_of_the_overview_is_true(site: Site) -> None:
    page = Page(site, "?window=30d")
    calls = page.last(30)
    expected = {}
    for start in sorted({call.start_ms // DAY_MS * DAY_MS for call in calls}):
        own = [call for call in calls if start <= call.start_ms < start + DAY_MS]
        is_cut = start < page.now_ms - 30 * DAY_MS or start + DAY_MS > page.now_ms
        name = numbers.day(start) + (" (part)" if is_cut else "")
        is_known = any(call.cost_usd is not None for call in own) or all(
            call.model is None or not call.success for call in own
        )
        spent = numbers.amount(spend(own)) if is_known else "?"
        expected[name] = [spent, numbers.count(len(own))]
    assert expected == page.table("Spend and calls per day")
