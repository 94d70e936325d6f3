"""Retrieval: adapters chosen by the URL; each knows where its kind of page keeps its words."""

import ipaddress
import json
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

MOST_BYTES = 2 << 20
MOST_REDIRECTS = 5
MOST_SNIPPETS = 20
LONGEST_SNIPPET = 1000
PARTS = 3  # what every adapter looks for: a title, a summary, a body
TEXT = ("p", "li", "h2", "h3", "blockquote")
Fetch = Callable[[str], str]


class RetrievalError(Exception):
    """A page cannot be had."""


@dataclass(kw_only=True)
class Evidence:
    """What was found at a URL: `coverage` is the part of what was looked for, 0 to 1."""

    url: str
    domain: str
    adapter_name: str
    title: str = ""
    summary: str = ""
    snippets: list[str] = field(default_factory=list)
    tool_calls: int = 0

    @property
    def coverage(self) -> float:
        """How many of title, summary and body there are."""
        return sum(map(bool, (self.title, self.summary, self.snippets))) / PARTS

    def as_dict(self) -> dict[str, Any]:
        """For `evidence.json`."""
        return {**asdict(self), "coverage": self.coverage}


class WebAdapter:
    """Any page: its title, its description, its paragraphs."""

    hosts: tuple[str, ...] = ()

    def fetch(self, url: str, get: Fetch) -> tuple[str, str, list[str]]:
        """Title, summary and body."""
        page = _Page(get(url))
        summary = page.meta.get("description", page.meta.get("og:description", ""))
        return page.title, summary, page.texts


class ArxivAdapter(WebAdapter):
    """A paper's abstract page, whichever of its pages was shared."""

    hosts = ("arxiv.org", "export.arxiv.org")

    def fetch(self, url: str, get: Fetch) -> tuple[str, str, list[str]]:
        """Title, abstract, and what else the page says."""
        paper = re.sub(r"/(?:pdf|html)/([^?#]+?)(?:\.pdf)?$", r"/abs/\1", url)
        page = _Page(get(paper))
        abstract = page.meta.get("citation_abstract", "") or "".join(page.texts[:1])
        return page.meta.get("citation_title", page.title), abstract, page.texts


class GithubAdapter(WebAdapter):
    """A repository: what it says of itself, and its README."""

    hosts = ("github.com",)

    def fetch(self, url: str, get: Fetch) -> tuple[str, str, list[str]]:
        """Name, description, and the paragraphs of the README."""
        parts = [part for part in urlsplit(url).path.split("/") if part][:2]
        if len(parts) < 2:
            return super().fetch(url, get)
        name = "/".join(parts)
        about = json.loads(get(f"https://api.github.com/repos/{name}"))
        readme = get(f"https://raw.githubusercontent.com/{name}/HEAD/README.md")
        paragraphs = [text.strip() for text in re.split(r"\n\s*\n", readme) if text.strip()]
        return about.get("full_name") or name, about.get("description") or "", paragraphs


ADAPTERS = (ArxivAdapter(), GithubAdapter())


def retrieve(url: str, fetch_through: str = "") -> Evidence:
    """Evidence from the page behind a URL.

    Raises:
        RetrievalError: the page cannot be had.
    """
    domain = (urlsplit(url).hostname or "").removeprefix("www.")
    adapter = next((one for one in ADAPTERS if domain in one.hosts), WebAdapter())
    evidence = Evidence(url=url, domain=domain, adapter_name=type(adapter).__name__)

    def get(address: str) -> str:
        evidence.tool_calls += 1
        return _get(address, fetch_through)

    try:
        evidence.title, evidence.summary, texts = adapter.fetch(url, get)
    except (httpx.HTTPError, ValueError) as exc:
        raise RetrievalError(f"{url} cannot be read: {exc}") from exc
    evidence.snippets = [text[:LONGEST_SNIPPET] for text in texts[:MOST_SNIPPETS]]
    return evidence


def _get(url: str, through: str) -> str:
    """The text behind an address, bounded in size; redirects are looked at one by one."""
    with httpx.Client(timeout=20, headers={"User-Agent": "technoshare"}) as client:
        for _ in range(MOST_REDIRECTS):
            parts = urlsplit(url)
            if not through:
                _refuse_inside(url)
            copy = f"{through}/{parts.hostname}{parts.path}"
            with client.stream("GET", copy if through else url) as answer:
                if answer.is_redirect:
                    url = urljoin(url, answer.headers["location"])
                    continue
                answer.raise_for_status()
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise RetrievalError(f"{url} is longer than {MOST_BYTES} bytes")
                return body.decode(answer.encoding or "utf-8", "replace")
    raise RetrievalError(f"{url} leads from one address to the next")


def _refuse_inside(url: str) -> None:
    """Whoever shares a link must not make us read addresses that only we can reach."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RetrievalError(f"{url} is no address of a web page")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443)
    except OSError as exc:
        raise RetrievalError(f"{parts.hostname} is not known") from exc
    if not all(ipaddress.ip_address(one[4][0]).is_global for one in found):
        raise RetrievalError(f"{parts.hostname} is an address of a private network")


class _Page(HTMLParser):
    """A page's title, its meta fields, and its paragraphs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.meta: dict[str, str] = {}
        self.texts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.texts = [text for one in self.texts if (text := " ".join(one.split()))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "meta":
            self.meta[named.get("name", named.get("property", ""))] = named.get("content", "")
        elif tag in TEXT:
            self.texts.append("")
            self._inside = tag
        elif tag == "title":
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data.strip()
        elif self._inside:
            self.texts[-1] += data
