"""Pages as they are sent, over both databases: addresses, orders, exports, refusals."""

import csv
import gzip
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from starlette.requests import Request

from flowledger import config
from flowledger.dashboard.asking import May
from flowledger.dashboard.pages import shown
from flowledger.dashboard.rendering import PAGES
from flowledger.questions import ALWAYS, Filters, Ledger, Window
from flowledger.records import encode
from flowledger.server.analytics.asking import LocalAsker
from tests.calls import a_call
from tests.dashboard.conftest import Site, served
from tests.dashboard.filled import FORMULA, SCRIPT, TOOLED
from tests.test_cli import clean_environment, journal

T = TypeVar("T")
SET_USER = sa.text("UPDATE llm_calls SET user_id = :user WHERE id = :id")
HOUSE_ROW = r"<tr>(?:(?!</tr>).)*house-translator-7b.*?</tr>"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("window", ["1h", "24h", "7d", "90d"])
def test_every_page_is_there_for_every_window(site: Site, path: str, window: str) -> None:
    text = site.text(f"/{path}?window={window}".replace("/?", "?"))
    assert f"<h1>{PAGES[path]}</h1>" in text


def test_every_table_sorts_by_every_heading(site: Site) -> None:
    for path in PAGES:
        text = site.text(f"/{path}?window=90d".replace("/?", "?"))
        for link in re.findall(r'<th scope="col"[^>]*><a href="/ledger([^"]+)"', text):
            found = site.text(link.replace("&amp;", "&"))
            assert "aria-sort=" in found, link


@pytest.mark.parametrize(
    "by", ["model", "user_id", "session_id", "environment", "status", "tag:team", "operation"]
)
def test_costs_are_told_apart_by_any_dimension(site: Site, by: str) -> None:
    text = site.text(f"/costs?window=90d&by={by}")
    with Ledger(site.uri) as ledger:
        rows = ledger.over(ALWAYS).by(by, order="cost_usd")
    value = next(row.value for row in rows if row.value)
    name = html.escape(value).replace("&#x27;", "&#39;")
    assert re.search(rf'<th scope="row">(<a [^>]*>)?{re.escape(name)}', text), name


def test_sorted_by_a_number_all_calls_come_once_in_its_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sort, key in (("-latency_ms", "latency_ms"), ("cost_usd", "cost_usd")):
        ids = site.ids(f"/calls?window=7d&sort={sort}")
        with Ledger(site.uri) as ledger:
            rows = {row.id: row for row in ledger.over(Window.last(7.1)).calls(10_000).rows}
        values = [getattr(rows[id_], key) or 0 for id_ in ids]
        assert sorted(values, reverse=sort[0] == "-") == values
        assert len(set(ids)) == len(ids) > 50
    monkeypatch.setattr(shown, "MOST_READ", 10)
    for asked in (
        "/calls?window=30d&sort=-cost_usd",
        "/sessions?window=30d&sort=-calls",
        "/costs?window=30d&by=session_id",
        "/costs?window=30d&by=tag:team",
    ):
        text = site.text(asked, 422)
        assert "choose a shorter window or a filter" in text
        shorter = re.search(r'href="/ledger([^"]*window=1h[^"]*)"', text)
        assert shorter is not None
        assert shorter[1].partition("?")[0] == asked.partition("?")[0]


def test_a_search_finds_text_in_what_was_asked_and_nothing_that_is_only_json(site: Site) -> None:
    wanted = {call.id for call in site.calls if "when does the contract end" in str(call).lower()}
    assert [] != sorted(wanted)
    found = site.ids("/calls?window=90d&q=WHEN+does+the+contract+end")
    assert wanted == set(found)
    assert "None of them has this text" in site.text("/calls?window=90d&q=mlflow.spanInputs")
    assert 1 == len(site.ids("/calls?window=90d&q=%22number%22%3A+7"))
    assert [] == site.ids("/calls?window=90d&q=%25%25")


def test_a_search_says_how_far_it_looked_and_goes_on(site: Site) -> None:
    with Ledger(site.uri) as ledger:
        over = ledger.over(ALWAYS)
        everything = over.calls(10_000).rows
        wanted = [row.id for row in everything if row.user_id == "ana"]
        found, page, looks = [], None, 0
        while True:
            part = over.search("ana", 5, page, most=40)
            found += [row.id for row in part.rows]
            looks += 1
            page = part.next
            if page is None:
                break
    assert looks > len(everything) / 40
    assert set(wanted) <= set(found)
    assert len(set(found)) == len(found)


def test_an_export_has_every_call_of_the_filters(site: Site) -> None:
    answer = site.get("/calls.csv?window=90d")
    assert 'attachment; filename="calls.csv"' == answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.data.decode())))
    assert {call.id for call in site.calls} == {row["id"] for row in rows}
    answer = site.get("/calls.jsonl?window=90d&user_id=ana")
    lines = [json.loads(line) for line in answer.data.splitlines()]
    assert {"ana"} == {line["user_id"] for line in lines}
    of_ana = {call.id for call in site.calls if call.actor.user_id == "ana"}
    assert of_ana == {line["id"] for line in lines}


def test_a_formula_is_text_in_a_spreadsheet(site: Site) -> None:
    answer = site.get("/calls.csv?window=90d&user_id=%3Dcmd%28%29")
    [row] = csv.DictReader(io.StringIO(answer.data.decode()))
    odd = {name: row[name] for name in ("model", "user_id", "operation", "error_type")}
    assert {f"'{FORMULA}"} == set(odd.values())


def test_an_unknown_price_is_a_question_mark_and_never_nothing(site: Site) -> None:
    rows = re.findall(HOUSE_ROW, site.text("/models"), re.S)
    [row] = [row for row in rows if "Compare house-translator-7b" in row]
    assert (True, False) == ("Nobody knows this model" in row, "$0" in row)


def test_the_turns_of_a_session_are_a_conversation(site: Site) -> None:
    text = site.text(f"/sessions?session_id={TOOLED}")
    assert "Where is my order?" in text
    assert "<code>write_mail</code>" in text


def test_a_call_is_proven_by_its_link_and_a_changed_one_is_told(site: Site) -> None:
    proven, changed = [call for call in site.calls if call.feature == "translation"][:2]
    assert "as stored" in site.text(f"/calls/{proven.id}")
    engine = sa.create_engine(site.uri)
    for user, word in (("else", "llm_calls changed"), (changed.actor.user_id, "as stored")):
        with engine.begin() as connection:
            connection.execute(SET_USER, {"user": user, "id": changed.id})
        assert word in site.text(f"/calls/{changed.id}")
    engine.dispose()


def test_a_function_around_a_call_is_in_its_timeline(site: Site) -> None:
    inner = next(call for call in site.calls if call.parent_id)
    steps = re.findall(
        r'class="step depth-(\d)">(?:<a href="/ledger/calls/(\w+)">)?([\w.]+)',
        site.text(f"/calls/{inner.id}"),
    )
    expected = [("0", inner.parent_id, "answer_from_history"), ("1", "", "chat.completions")]
    assert expected == steps


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/nowhere", 404, "There is no such page"),
        ("/models/extra", 404, "There is no such page"),
        ("/calls/" + "0" * 32, 404, "no call with the id"),
        ("/calls/odd", 404, "is no call"),
        ("/sessions?session_id=none", 404, "No call has the session"),
        ("/?feature=none", 307, ""),
        ("?feature=none", 404, "no call has the feature"),
        ("?window=2d", 422, "use one of"),
        ("/calls?status=odd", 422, "use success or failed"),
        ("/calls?sort=user_id", 422, "sort by one of"),
        ("/calls?sort='; --", 422, "sort by a column"),
        ("/calls?page=odd", 422, "page before"),
        ("/calls?sort=-cost_usd&page=1-2", 422, "page before"),
        ("/calls?tag=odd", 422, "key=value"),
        ("/calls?user_id=" + "x" * 501, 422, "too long"),
        ("/costs?by=odd", 422, "use one of"),
        ("/models?compare=a&compare=b&compare=c&compare=d&compare=e", 422, "at most 4"),
        ("/static/0/none.js", 404, "no such file"),
        ("/static/0/ledger.js", 404, "no such file"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(
    site: Site, path: str, status: int, sentence: str
) -> None:
    answer = site.get(path.replace(" ", "%20"))
    assert status == answer.status
    assert sentence in answer.data.decode()
    assert status == 307 or "<h1>" in answer.data.decode()


def test_what_a_search_lists_is_what_its_export_holds(site: Site) -> None:
    seen = site.ids("/calls?window=90d&q=order")
    text = site.text("/calls?window=90d&q=order")
    [address] = re.findall(r'href="/ledger(/calls\.csv\?[^"]*)"', text)
    rows = list(csv.DictReader(io.StringIO(site.text(html.unescape(address)))))
    assert seen == [row["id"] for row in rows]
    assert 0 < len(seen) < len(site.calls)
    lines = site.text(html.unescape(address).replace(".csv", ".jsonl")).splitlines()
    assert seen == [json.loads(line)["id"] for line in lines]


def test_nothing_from_elsewhere_and_nothing_inline_may_run(site: Site) -> None:
    answer = site.get("?window=90d")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    text = answer.data.decode()
    assert [] == re.findall(r"<script(?![^>]*(?:src=|application/json))|\sstyle=|\son\w+=", text)
    assert SCRIPT not in text
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in text


def test_files_are_kept_for_long_and_sent_compressed_to_who_takes_it(site: Site) -> None:
    addresses = re.findall(r'(?:src|href)="/ledger(/static/[^"]+)"', site.text("?window=90d"))
    assert {"ledger.css", "ledger.js", "logo.svg", "vega.js"} == {
        a.split("/")[-1] for a in addresses
    }
    for address in addresses:
        plain = site.get(address)
        assert "private, max-age=31536000, immutable" == plain.headers["Cache-Control"]
        packed = site._pool.request(
            "GET",
            site.url + address,
            headers={"Accept-Encoding": "gzip"},
            decode_content=False,
        )
        assert "gzip" == packed.headers["Content-Encoding"]
        assert plain.data == gzip.decompress(packed.data)
    assert "no-store" == site.get().headers["Cache-Control"]


class OfSome(LocalAsker):
    """Asks for somebody who may read only some experiments."""

    def __init__(self, uri: str, may: May) -> None:
        super().__init__(config.load(tracking_uri=uri))
        self._may = may

    async def ask(self, request: Request, question: Callable[[Ledger, Any], T]) -> T:
        return await super().ask(request, lambda ledger, _: question(ledger, self._may))


def test_everybody_sees_only_what_they_may_read(site: Site) -> None:
    with Ledger(site.uri) as ledger:
        ids = {row.name: row.experiment_id for row in ledger.experiments()}
        mine = ledger.over(ALWAYS, Filters(readable={ids["translation"]})).sums().calls
    support = next(call for call in site.calls if call.feature == "support")
    with served(site.uri, OfSome(site.uri, {ids["translation"]})) as url:
        theirs = Site(url, site.uri, [])
        assert mine == len(theirs.ids("/calls?window=90d"))
        theirs.text(f"/calls/{support.id}", 404)
        rows = theirs.get("/calls.csv?window=90d").data.splitlines()
        assert mine == len(rows) - 1
        for path in PAGES:
            assert "gpt-4o" not in theirs.text(f"/{path}?window=90d".replace("/?", "?"))
        assert "shown to those who may see every experiment" in theirs.text("/health")


def test_an_empty_ledger_says_what_to_do_next(empty_sqlite: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_sqlite.read_bytes())
    with served(f"sqlite:///{path}") as url:
        empty = Site(url, str(path), [])
        for page in PAGES:
            text = empty.text(f"/{page}".rstrip("/"))
            assert ("flowledger demo" in text) or page == "health", page
        assert "No process has reported a record it could not keep" in empty.text("/health")


def test_a_database_that_is_gone_is_told_in_a_sentence(tmp_path: Path) -> None:
    uri = "postgresql://nobody@127.0.0.1:1/none"
    with served(uri) as url:
        assert "try again" in Site(url, uri, []).text(status=503)


def test_a_function_around_calls_has_no_tokens_and_no_price_of_its_own(site: Site) -> None:
    around = next(call for call in site.calls if call.inner_calls)
    text = site.text(f"/calls/{around.id}")
    assert "of its own: the calls inside have them" in text
    assert "Nobody knows this model" not in text


def test_a_chart_without_anything_to_draw_says_so(site: Site) -> None:
    text = site.text("?window=30d&status=success")
    card = text[text.index("Failed calls by error type") :].partition("</section>")[0]
    assert "Nothing in this window." in card
    assert "data-chart" not in card


def test_versions_of_a_prompt_stand_side_by_side_with_what_they_say(site: Site) -> None:
    text = site.text("/prompts?window=30d")
    sides = re.findall(r"<h2>Version (\w+)</h2>(.*?)</section>", text, re.S)
    assert ["3", "2"] == [version for version, _ in sides]
    for version, side in sides:
        latest = max(
            (call for call in site.calls if call.prompt_version.version == version),
            key=lambda call: call.start_ns,
        )
        spoken = re.search(r"<h3>system</h3><pre[^>]*>(.*?)</pre>", side, re.S)
        assert spoken is not None
        assert {"role": "system", "content": html.unescape(spoken[1])} in list(latest.prompt)
    [one] = re.findall(r"<h2>Version (\w+)</h2>", site.text("/prompts?window=30d&compare=2"))
    assert "2" == one


def test_the_latest_errors_come_with_their_stacks(site: Site) -> None:
    text = site.text("/errors?window=30d")
    stacks = re.findall(r"<summary>Stack</summary><pre[^>]*>(.*?)</pre>", text, re.S)
    latest = sorted(
        (c for c in site.calls if not c.outcome.success and not c.inner_calls),
        key=lambda call: call.start_ns,
        reverse=True,
    )[: len(stacks)]
    assert [call.outcome.stack for call in latest] == [html.unescape(one) for one in stacks]
    assert 0 < len(stacks)


def test_health_tells_what_waits_and_what_was_rejected(sqlite_uri: str, tmp_path: Path) -> None:
    settings = config.load(clean_environment(tmp_path, FLOWLEDGER_TRACKING_URI=sqlite_uri))
    rejected = settings.journal_folder / "rejected" / "2026-01-01.jsonl"
    journal(sqlite_uri, tmp_path, encode(a_call()), encode(a_call()))
    rejected.parent.mkdir()
    rejected.write_text('{"reason":"its id is not hexadecimal","record":""}\n')
    with served(sqlite_uri, LocalAsker(settings)) as url:
        text = Site(url, sqlite_uri, []).text("/health")
    tiles = dict(
        re.findall(r"<h2>(Waiting|Lost or rejected)</h2><p class=\"big\"><span>(.*?)<", text)
    )
    assert {"Waiting": "2", "Lost or rejected": "1"} == tiles
    assert "nobody ships" in text
    assert "Rejected because: its id is not hexadecimal" in text
