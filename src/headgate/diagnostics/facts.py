"""What public pages state of MiniMax and RunAPI and nobody has tried: facts that only a real key settles, and their trial.

Each fact has one small request and a judgement of its answer.  The facts were read on public pages up to
2026-11-30; catalog/models.toml and catalog/upstreams.toml rely on them.  Note: nothing that the upstream wrote is
in a verdict, but for a model's name that the catalog knows and the number of an error.
"""

import asyncio
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from headgate.catalog.models import models
from headgate.catalog.routes import Route
from headgate.dialects import vendor_errors
from headgate.edge import upstream as upstreams
from headgate.errors import DECLINED, Failure
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy import plans

Result = Literal["confirmed", "different", "unknown"]
MINIMAX = ("minimax", "minimax-cn", "minimax-anthropic")
RUNAPI = ("runapi",)
FLASH = "MiniMax-M3.1-Flash"
MAX_TOKENS = 16  # of a reply that is asked for; most of these requests are refused, or not billed
_PAGE_BYTES = 1 << 20
_CHAT, _MESSAGES, _RESPONSES = "/v1/chat/completions", "/anthropic/v1/messages", "/v1/responses"


class Verdict(Struct, frozen=True):
    result: Result
    seen: str
    do: str = ""  # what follows where it is different


class Answer(Struct, frozen=True):
    """Holds what came back: a failure, or a page of JSON."""

    failure: Failure | None = None
    page: bytes = b""

    @property
    def declined(self) -> bool:
        """Whether the request was understood and refused (a 400)."""
        return self.failure is not None and self.failure.kind in DECLINED

    @property
    def no_model(self) -> bool:
        """Whether this key does not get this model."""
        return self.failure is not None and (
            self.failure.kind == "upstream_config"
            or self.failure.upstream_code == "2061"
            or self.failure.code == "upstream_forbidden"
        )

    @property
    def what(self) -> str:
        """Return the failure without any of the upstream's words."""
        if self.failure is None:
            return "answered"
        code = self.failure.upstream_code
        number = f" {code}" if code.isdecimal() and len(code) <= 5 else ""
        return f"refused ({self.failure.kind}{number})"


class Request(Struct, frozen=True):
    path: str  # beside the origin of the upstream
    body: dict[str, object] | None = None  # None: a GET


class Fact(Struct, frozen=True):
    name: str
    believed: str
    request: Request | None  # None: no small request shows it
    judge: Callable[[Answer], Verdict]
    presets: tuple[str, ...] = MINIMAX
    model: str = ""  # that it is about; "": about the vendor
    plan_only: bool = False  # only keys of plans can show it


class Tried(Struct, frozen=True):
    """Holds one fact with its verdict."""

    name: str
    believed: str
    result: Result
    seen: str
    do: str = ""


# --- judging --------------------------------------------------------------------------------------


class _Item(Struct):
    type: str | None = None


class _Page(Struct):
    model: str | None = None
    output: list[_Item] | None = None
    organic: list[Raw] | None = None
    data: list[dict[str, Raw]] | None = None


def _page(answer: Answer) -> _Page | None:
    try:
        return msgspec.json.decode(answer.page, type=_Page)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _other(answer: Answer) -> Verdict:
    """The verdict on an answer that says nothing of the fact: a rate limit, a timeout, a refused key."""
    return Verdict("unknown", answer.what)


def _answers(answer: Answer) -> Verdict:
    if answer.no_model:
        return Verdict("different", answer.what, "Take it out of `routes`, or use another key.")
    return Verdict("confirmed", "answered") if _answered(answer) else _other(answer)


def _answered(answer: Answer) -> bool:
    return answer.failure is None and _page(answer) is not None


def _refuses(do: str) -> Callable[[Answer], Verdict]:
    """The judge of a request that must be refused with 400."""

    def judge(answer: Answer) -> Verdict:
        if answer.declined:
            return Verdict("confirmed", answer.what)
        if _answered(answer):
            return Verdict("different", "answered", do)
        return _other(answer)

    return judge


def _accepts(do: str) -> Callable[[Answer], Verdict]:
    """The judge of a request that must be answered."""

    def judge(answer: Answer) -> Verdict:
        if _answered(answer):
            return Verdict("confirmed", "answered")
        return Verdict("different", answer.what, do) if answer.declined else _other(answer)

    return judge


def _retired(id: str) -> Callable[[Answer], Verdict]:
    def judge(answer: Answer) -> Verdict:
        if answer.no_model:
            return Verdict("confirmed", answer.what)
        page = _page(answer)
        if answer.failure is not None or page is None or page.model is None:
            return _other(answer)
        known = {name: m.id for m in models().values() for name in m.names()}
        served = known.get(page.model.lower().rpartition("/")[2])
        if served == FLASH:
            return Verdict("confirmed", f"answered by {FLASH}")
        if served == id:
            do = (
                "It is still served to this key: the end that the catalog has does not hold for it."
            )
            return Verdict("different", "answered under its own name", do)
        return Verdict("unknown", "answered under another name")

    return judge


def _no_reasoning(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is not None or page is None or page.output is None:
        return _other(answer) if answer.failure is not None else Verdict("unknown", "no output")
    if any(item.type == "reasoning" for item in page.output):
        do = (
            'Set `thinking_default = ""` in the capabilities of the upstream that speaks Responses.'
        )
        return Verdict("different", "it reasoned", do)
    return Verdict("confirmed", "it did not reason")


def _quota(answer: Answer) -> Verdict:
    if answer.failure is not None:
        if answer.failure.kind in ("upstream_config", "upstream_auth", *DECLINED):
            do = "Refusals alone will show which windows are used up."
            return Verdict("different", answer.what, do)
        return _other(answer)
    try:
        windows = plans.from_quota(answer.page, 0.0)
    except ValueError as error:
        if str(error) == "no plan":
            return Verdict("confirmed", "it answers: this key has no plan")
        return Verdict(
            "different", str(error), "Refusals alone will show which windows are used up."
        )
    return Verdict("confirmed", f"windows: {', '.join(w.name for w in windows)}")


def _searches(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is None and page is not None and page.organic is not None:
        return Verdict("confirmed", f"{len(page.organic)} results")
    if answer.failure is None or answer.failure.kind in ("upstream_config", *DECLINED):
        return Verdict("different", answer.what, "Choose another provider in `[search]`.")
    return _other(answer)


def _lists_m3(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is not None or page is None or page.data is None:
        return _other(answer) if answer.failure is not None else Verdict("unknown", "no list")
    ids = {
        bytes(each["id"]).decode("utf-8", "replace").strip('"')
        for each in page.data
        if "id" in each
    }
    if "MiniMax-M3" in ids:
        return Verdict("confirmed", "MiniMax-M3 is listed")
    lower = [i for i in ids if i.lower().rpartition("/")[2] == "minimax-m3"]
    if lower:
        do = "Name the id that it lists in `models.MiniMax-M3.routes`."
        return Verdict("different", "it is listed in another spelling", do)
    return Verdict("unknown", "this key sees no M3")


# --- the facts ------------------------------------------------------------------------------------


def _chat(model: str, **more: object) -> Request:
    stated = [{"role": "user", "content": "Say OK."}]
    return Request(_CHAT, {"model": model, "messages": stated, "max_completion_tokens": MAX_TOKENS, **more})  # fmt: skip


def _of_retired(id: str) -> Fact:
    return Fact(
        f"{id} retired",
        f"ended on 2026-11-18; on plans its name is answered by {FLASH}",
        _chat(id),
        _retired(id),
        model=id,
    )


FACTS: tuple[Fact, ...] = (
    Fact(
        f"{FLASH} served",
        "since 2026-10-20",
        _chat(FLASH, reasoning_effort="low"),
        _answers,
        model=FLASH,
    ),
    Fact(
        f"{FLASH} alias",
        f"{FLASH}-Preview is another name of it",
        _chat(f"{FLASH}-Preview", reasoning_effort="low"),
        _answers,
        model=FLASH,
    ),
    Fact(
        f"{FLASH} always thinks",
        "`thinking: disabled` is refused with 400",
        _chat(FLASH, thinking={"type": "disabled"}),
        _refuses("Set `thinking_off = true` in the route's capabilities."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort none",
        "`reasoning_effort: none` is refused with 400",
        _chat(FLASH, reasoning_effort="none"),
        _refuses("Requests without thinking could be sent as they are; tell the project."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort minimal",
        "`minimal` is taken as low",
        _chat(FLASH, reasoning_effort="minimal"),
        _accepts("Nothing: the gateway sends `low` for it."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort max",
        "without an effort it thinks as with `max`",
        None,
        lambda _: Verdict("unknown", "not tried: it takes some 6,000 tokens; set a default effort"),
        model=FLASH,
    ),
    *(
        _of_retired(id)
        for id in (
            "MiniMax-M2.7",
            "MiniMax-M2.7-highspeed",
            "MiniMax-M2.5",
            "MiniMax-M2.5-highspeed",
        )
    ),
    Fact(
        "MiniMax-M2.1-highspeed served",
        "it exists, at 0.60 / 2.40 / 0.03",
        _chat("MiniMax-M2.1-highspeed"),
        _answers,
        model="MiniMax-M2.1-highspeed",
    ),
    Fact(
        "MiniMax-M2.1 max output",
        "`max_completion_tokens` is at most 204,800",
        _chat("MiniMax-M2.1", max_completion_tokens=204_801),
        _refuses("Set `max_output` of the model higher in headgate.toml."),
        model="MiniMax-M2.1",
    ),
    Fact(
        "MiniMax-M3 on Responses",
        "does not reason where `reasoning` is omitted",
        Request(_RESPONSES, {"model": "MiniMax-M3", "input": "Say OK.", "max_output_tokens": 64}),
        _no_reasoning,
        model="MiniMax-M3",
    ),
    Fact(
        "web search of Messages",
        "`web_search_20250305` is refused with 2013 on the Anthropic path",
        Request(
            _MESSAGES,
            {
                "model": "MiniMax-M3",
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": "Say OK."}],
                "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
            },
        ),
        _refuses(
            "MiniMax searches by itself now; the gateway's `[search]` is still used where set."
        ),
        model="MiniMax-M3",
    ),
    Fact("quota address", "says what is left of a plan", Request("/v1/token_plan/remains"), _quota),
    Fact(
        "search address",
        "searches the web for keys of plans",
        Request("/v1/coding_plan/search", {"q": "MiniMax"}),
        _searches,
        plan_only=True,
    ),
    Fact(
        "cache writes",
        "cost nothing extra but for `cache_control` on the Anthropic path",
        None,
        lambda _: Verdict("unknown", "only a bill shows it: headgate reconcile"),
    ),
    Fact("RunAPI's ids", "MiniMax-M3 is spelled so", Request("/v1/models"), _lists_m3, RUNAPI),
)


def about(preset: str, model: str = "") -> tuple[Fact, ...]:
    """Return the facts that this upstream may settle; `model`: only those about it."""
    return tuple(f for f in FACTS if preset in f.presets and model in ("", f.model))


def requests(facts: tuple[Fact, ...], route: Route) -> int:
    """Return how many requests the trial of these facts takes."""
    return sum(_asked(f, route) for f in facts)


def _asked(fact: Fact, route: Route) -> bool:
    plan = route.key.secret.startswith(plans.KEY_PREFIX)
    return fact.request is not None and (plan or not fact.plan_only)


# --- trying ---------------------------------------------------------------------------------------


async def tried(
    client: Client,
    route: Route,
    facts: tuple[Fact, ...],
    timeouts: Timeouts,
    until_s: float,
    notify: Callable[[str], None] = lambda name: None,
) -> tuple[Tried, ...]:
    """Try each fact with the first key of the route; what is not tried by `until_s` is unknown."""
    out = []
    for fact in facts:
        if fact.request is None:
            verdict = fact.judge(Answer())
        elif not _asked(fact, route):
            verdict = Verdict("unknown", "not tried: this is no key of a plan")
        elif asyncio.get_running_loop().time() > until_s:
            verdict = Verdict("unknown", "not tried: the time was over")
        else:
            notify(fact.name)
            verdict = fact.judge(await _answer(client, route, fact.request, timeouts))
        out.append(Tried(fact.name, fact.believed, verdict.result, verdict.seen, verdict.do))
    return tuple(out)


def untried(facts: tuple[Fact, ...], why: str) -> tuple[Tried, ...]:
    """Return the facts of an upstream that cannot be asked."""
    return tuple(Tried(f.name, f.believed, "unknown", why) for f in facts)


async def _answer(client: Client, route: Route, request: Request, timeouts: Timeouts) -> Answer:
    parts = urlsplit(route.upstream.base_url)
    url = f"{parts.scheme}://{parts.netloc}{request.path}"
    headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "headgate",
        "authorization": f"Bearer {route.key.secret}",
        "anthropic-version": "2023-06-01",
    }
    method, body = ("GET", b"") if request.body is None else ("POST", msgspec.json.encode(request.body))  # fmt: skip
    try:
        response = await client.send(method, url, headers, body, timeouts)
        page = await response.read_all(_PAGE_BYTES)
    except (NotSent, Broken, TimedOut) as error:
        return Answer(upstreams.failure_of(error))
    if response.status != 200:
        return Answer(vendor_errors.read_failure(response.status, response.headers, page))
    try:
        base = msgspec.json.decode(page, type=_Based).base_resp
    except (msgspec.MsgspecError, UnicodeDecodeError):
        kind = response.headers.get("content-type", "").partition(";")[0]
        return Answer(Failure("upstream", "", upstream_code=f"no JSON, {kind[:32]}"))
    if request.path != "/v1/token_plan/remains" and base is not None and base.status_code:
        return Answer(vendor_errors.failure_of(200, base.status_msg or "", base.status_code))
    return Answer(None, page)


class _Based(Struct):
    base_resp: vendor_errors.BaseResp | None = None
