"""The search provider that the operator configured: one query out, its results back.

This is the only module that knows the words of the four providers (SearXNG's JSON API, MiniMax's
`/v1/coding_plan/search`, Brave's Web Search API, Tavily; read 2026-11).  The address and the key come
from the settings alone; a query is a value in a URL's query or in a JSON body.  Redirects are not
followed, an answer has a bound, and nothing of a query or of a result is logged.
"""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from headgate import jsontext
from headgate.chat import Found, Searched, ToolCall, WebSearch
from headgate.config import Search
from headgate.dialects import upstream_json
from headgate.edge.metrics import Metrics
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy import web_search

MAX_ANSWER_BYTES = 2 << 20
_DEFAULT_URLS = {
    "minimax": "https://api.minimax.io",
    "brave": "https://api.search.brave.com",
    "tavily": "https://api.tavily.com",
}


class _Row(msgspec.Struct, frozen=True):
    """Reads one result, in the words of any of the providers."""

    url: str | None = None
    link: str | None = None  # MiniMax
    title: str | None = None
    content: str | None = None  # SearXNG, Tavily
    snippet: str | None = None  # MiniMax
    description: str | None = None  # Brave
    date: str | None = None  # MiniMax
    age: str | None = None  # Brave
    published_date: str | None = None  # Tavily
    publishedDate: str | None = None  # SearXNG


class _Web(msgspec.Struct, frozen=True):
    results: list[_Row] = []


class _BaseResp(msgspec.Struct, frozen=True):
    status_code: int = 0


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Row] | None = None  # SearXNG, Tavily
    organic: list[_Row] | None = None  # MiniMax
    web: _Web | None = None  # Brave
    base_resp: _BaseResp | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)
_BUSY = frozenset((402, 429, 432, 433))  # Tavily's 432 and 433: a plan's limits
_BUSY_MINIMAX = frozenset((1002, 1008, 2056, 2061))


class SearchProvider:
    """Makes searches; `searches` counts them by how they ended."""

    def __init__(self, settings: Search, client: Client, metrics: Metrics) -> None:
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._url = (settings.url or _DEFAULT_URLS.get(settings.provider, "")).rstrip("/")
        t = settings.timeout_s
        self._timeouts = Timeouts(connect_s=t, first_token_s=t, stall_s=t, total_s=t)

    async def search(self, call: ToolCall, wish: WebSearch) -> Searched:
        """The search that the model asked for; whatever goes wrong is in `error`."""
        query = web_search.query_of(call.arguments)
        if not query:
            return self._ended(Searched(call.id, "", error="invalid_tool_input"))
        if len(query) > web_search.MAX_QUERY:
            shown = query[: web_search.MAX_QUERY]
            return self._ended(Searched(call.id, shown, error="query_too_long"))
        results, error = await self._asked(query, wish)
        kept = web_search.within(results, wish, self._settings.results)
        return self._ended(Searched(call.id, query, kept, error))

    def refused(self, call: ToolCall) -> Searched:
        """A call above the searches that one reply may make."""
        query = web_search.query_of(call.arguments)[: web_search.MAX_QUERY]
        return self._ended(Searched(call.id, query, error="max_uses_exceeded"))

    def _ended(self, searched: Searched) -> Searched:
        self._metrics.searches.add(self._settings.provider, searched.error or "found")
        return searched

    async def _asked(self, query: str, wish: WebSearch) -> tuple[Sequence[Found], str]:
        method, url, headers, body = self._request(query, wish)
        try:
            response = await self._client.send(method, url, headers, body, self._timeouts)
            answer = await response.read_all(MAX_ANSWER_BYTES)
        except (NotSent, Broken, TimedOut, ValueError):
            return (), "unavailable"
        if response.status in _BUSY:
            return (), "too_many_requests"
        if response.status != 200:  # a redirect too
            return (), "unavailable"
        try:
            if not jsontext.within(answer, jsontext.most_values(len(answer))):
                return (), "unavailable"
            wire = upstream_json.decode(_answer_decoder, answer, _Answer)
        except (ValueError, msgspec.MsgspecError):
            return (), "unavailable"
        if wire.base_resp is not None and (code := wire.base_resp.status_code):
            return (), "too_many_requests" if code in _BUSY_MINIMAX else "unavailable"
        rows = wire.results or wire.organic or (wire.web.results if wire.web else None) or ()
        return [found for row in rows[:100] if (found := _found(row)) is not None], ""

    def _request(self, query: str, wish: WebSearch) -> tuple[str, str, dict[str, str], bytes]:
        key, count = self._settings.key, self._settings.results
        headers = {"accept": "application/json", "user-agent": "headgate"}
        match self._settings.provider:
            case "minimax":
                headers |= _bearer(key)
                body: dict[str, object] = {"q": web_search.at_sites(query, wish)}
                return "POST", f"{self._url}/v1/coding_plan/search", headers, _json(body)
            case "tavily":
                headers |= _bearer(key)
                body = {"query": query, "max_results": count}
                if wish.allowed:
                    body["include_domains"] = list(wish.allowed)
                if wish.blocked:
                    body["exclude_domains"] = list(wish.blocked)
                return "POST", f"{self._url}/search", headers, _json(body)
            case "brave":
                if key:
                    headers["x-subscription-token"] = key
                asked = urlencode(
                    {"q": web_search.at_sites(query, wish), "count": count}, quote_via=quote
                )
                return "GET", f"{self._url}/res/v1/web/search?{asked}", headers, b""
            case _:
                headers |= _bearer(key)
                asked = urlencode(
                    {"q": web_search.at_sites(query, wish), "format": "json"}, quote_via=quote
                )
                return "GET", f"{self._url}/search?{asked}", headers, b""


def _bearer(key: str) -> dict[str, str]:
    return {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )


def _json(body: dict[str, object]) -> bytes:
    return jsontext.encode(body)


def _found(row: _Row) -> Found | None:
    return web_search.found(
        row.url or row.link or "",
        row.title or "",
        row.content or row.snippet or row.description or "",
        row.date or row.age or row.published_date or row.publishedDate or "",
    )
