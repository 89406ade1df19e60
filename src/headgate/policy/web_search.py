"""Web search for models: what the model is offered, what it may search for, and what it reads.

The wish comes from a dialect as `chat.WebSearch`; the search itself is made in edge/web_search.py.
Note: what the model writes is data.  It chooses the words of a query, never an address.
"""

import re
from collections.abc import Sequence

import msgspec

from headgate.chat import (
    WEB_SEARCH,
    Choice,
    Found,
    Message,
    Request,
    Searched,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    WebSearch,
)
from headgate.dialects.found import listed
from headgate.errors import unsupported

_OTHER_NAME = "gateway_web_search"  # where the client has a function of that name
MAX_QUERY = 400  # characters; search engines cut longer ones
MAX_CALLS = 8  # searches that one round may ask for
MAX_TITLE = 300  # characters
MAX_SNIPPET = 2_000
MAX_URL = 2_048
MAX_SITES = 8  # domains that a query can name

_SCHEMA = msgspec.Raw(
    b'{"type":"object","properties":{"query":{"type":"string","description":"What to search for,'
    b' in a few words."}},"required":["query"]}'
)
_WORDS = (
    "Searches the web and returns titles, addresses and excerpts of pages. Use it for what may have"
    " changed since your training, or what you are not sure of. Name the results that you use by their"
    " numbers in square brackets, as in [1], directly behind what you take from them."
)


def offered(request: Request, able: bool) -> Request:
    """The request with the tool that the gateway executes, or with a warning where it cannot.

    `able`: the operator has configured a provider.  Refused when the client forces a search in vain.
    """
    wish = request.search
    if wish is None:
        return request
    if not able:
        if wish.forced:
            raise unsupported(
                "$.tools", "The gateway has no search provider: see `[search]` in docs/search.md."
            )
        return msgspec.structs.replace(request, search=None).warn("tools.web_search")
    name = name_in(request)
    choice = Choice("named", name, request.choice.parallel) if wish.forced else request.choice
    tools = (*request.tools, Tool(name, _WORDS, _SCHEMA))
    return msgspec.structs.replace(request, tools=tools, choice=choice)


def name_in(request: Request) -> str:
    """The name of the gateway's tool beside the client's own tools."""
    return _OTHER_NAME if any(tool.name == WEB_SEARCH for tool in request.tools) else WEB_SEARCH


class _Arguments(msgspec.Struct, frozen=True):
    query: str = ""


_arguments_decoder = msgspec.json.Decoder(_Arguments)


def query_of(arguments: str) -> str:
    """Return the query that the model wrote, on one line; "" when there is none."""
    try:
        query = _arguments_decoder.decode(arguments).query
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ""
    return clean(query, MAX_QUERY + 1)


_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff]+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,100}>")


def clean(text: str, most: int) -> str:
    """Return a text on one line, without control characters, and bounded."""
    return _UNPRINTABLE.sub(" ", text[: 2 * most]).strip()[:most]


def found(url: str, title: str, snippet: str, age: str = "") -> Found | None:
    """A result of a provider in bounds; None for one without a web address."""
    url = url.strip()
    if len(url) > MAX_URL or not url.startswith(("https://", "http://")):
        return None
    if not url.isprintable() or " " in url:
        return None
    plain = _TAG.sub("", snippet[: 4 * MAX_SNIPPET])
    return Found(
        url,
        clean(_TAG.sub("", title[: 4 * MAX_TITLE]), MAX_TITLE) or url,
        clean(plain, MAX_SNIPPET),
        clean(age, 64),
    )


def _host(url: str) -> str:
    """The host of a web address and its path, in lower case."""
    rest = url.partition("://")[2].partition("?")[0].partition("#")[0].lower()
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2].partition(":")[0].removeprefix("www.") + slash + path


def _on(url: str, domain: str) -> bool:
    """Whether a page is on a domain, or below it; a domain may have a path."""
    at = _host(url)
    wanted = _host(domain if "://" in domain else f"https://{domain}").rstrip("/")
    host, _, path = wanted.partition("/")
    mine = at.partition("/")[0]
    if mine != host and not mine.endswith(f".{host}"):
        return False
    return not path or at.partition("/")[2].startswith(path)


def within(results: Sequence[Found], wish: WebSearch, most: int) -> tuple[Found, ...]:
    """The results on the domains that the client allows, each page once."""
    kept: dict[str, Found] = {}
    for result in results:
        if wish.allowed and not any(_on(result.url, domain) for domain in wish.allowed):
            continue
        if any(_on(result.url, domain) for domain in wish.blocked):
            continue
        kept.setdefault(result.url, result)
    return tuple(kept.values())[:most]


def at_sites(query: str, wish: WebSearch) -> str:
    """The query with the domains that the client allows, for engines that know no other way."""
    sites = [clean(d.partition("://")[2] or d, 200) for d in wish.allowed[:MAX_SITES]]
    if not sites or len(wish.allowed) > MAX_SITES:
        return query
    return f"{query} ({' OR '.join(f'site:{site}' for site in sites if ' ' not in site)})"


# --- what the model reads ------------------------------------------------------------------------

_ERRORS = {
    "invalid_tool_input": "The call had no query.",
    "query_too_long": f"The query is longer than {MAX_QUERY} characters.",
    "max_uses_exceeded": "No more searches can be made for this reply; answer with what you have.",
    "too_many_requests": "The search engine takes no more requests now.",
    "unavailable": "The search engine did not answer.",
}


def reported(searched: Searched, first: int) -> str:
    """The results as the model reads them, numbered from `first`."""
    if searched.error:
        return f"Error: {_ERRORS.get(searched.error, 'The search failed.')}"
    return listed(searched.results, first)


def asked_again(
    request: Request,
    parts: Sequence[Text | Thinking | ToolCall],
    searches: Sequence[Searched],
    first: int,
) -> Request:
    """The request of the next round: the reply so far, and what its searches found.

    `parts` is what the model said in this round; `first` the number of the first of the results.
    """
    results: list[Message] = []
    for searched in searches:
        text = Text(reported(searched, first))
        first += len(searched.results)
        result = ToolResult(searched.id, (text,), bool(searched.error))
        results.append(Message("tool", (result,)))
    messages = (*request.messages, Message("assistant", tuple(parts)), *results)
    choice = request.choice
    if choice.mode in ("named", "required"):
        choice = Choice(parallel=choice.parallel)  # what was forced has been done
    return msgspec.structs.replace(request, messages=messages, choice=choice)
