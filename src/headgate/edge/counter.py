"""The tokens of a request that is not sent: the only place that asks an upstream to count.

In this order: an upstream that counts (`Capabilities.counts`), the operator's tokenizer.json, the
estimate that learns (catalog/counting.py).  Each way that fails leaves the question to the next
one, so a count is never an error; its `warning` says what the answer is worth.

    tokenize    POST /tokenize beside the upstream's /v1, as vLLM has it with `messages`
                (vllm/entrypoints/serve/tokenize/protocol.py) and SGLang with `prompt`
                (python/sglang/srt/entrypoints/openai/serving_tokenize.py; both read 2026-11-25)
    anthropic   POST /v1/messages/count_tokens; of MiniMax it is known that it exists, not what it
                answers, therefore no preset says it

Note: an upstream that does not answer is left alone for a minute, and one that says
no to `messages` is asked with one text in the same second: its own vocabulary in our rendering of
the template, which is labelled.  A refusal of one request says nothing of the next one's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import msgspec

from headgate import jsontext
from headgate.catalog import chat_template, counting
from headgate.catalog.counting import Features, Learner
from headgate.catalog.routes import Route
from headgate.chat import Request
from headgate.dialects.registry import ANTHROPIC, OPENAI
from headgate.edge import upstream
from headgate.edge.fitting import fitted_request
from headgate.errors import Refused
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent

BOUND_S = 1.0  # for all upstreams together; Claude Code waits for two dozen of these
REST_S = 60.0
MAX_TEXT_CHARS = 4 << 20  # fills the largest context; more would only keep others waiting
MAX_ANSWER_BYTES = 16 << 20  # /tokenize sends every token, of the largest context some 8 MB

ESTIMATED = "tokens (estimated)"
WRITTEN = "tokens (template assumed)"  # the vocabulary is right, the frame around it is ours

_TIMEOUTS = Timeouts(BOUND_S, BOUND_S, BOUND_S, BOUND_S)
_REFUSED = (400, 413, 422)  # of this request, not of counting as such
_TOKENIZE = ("messages", "tools", "chat_template_kwargs")
_ANTHROPIC = ("model", "messages", "system", "tools", "tool_choice", "thinking")

# Runs a function of the request, with its arguments: here, or in a thread for a large request.
Worker = Callable[..., Awaitable[Any]]  # Any: what the function returns

Tokens = Annotated[int, msgspec.Meta(ge=1, le=10**9)]  # an upstream's number is not trusted


class Count(msgspec.Struct, frozen=True):
    tokens: int
    warning: str = ""  # "": the upstream that would get the request has counted it


LESSON_EVERY_S = 0.02  # a lesson costs 20 us: a thousandth of a busy loop


class _Tokenized(msgspec.Struct):
    count: Tokens


class _Counted(msgspec.Struct):
    input_tokens: Tokens


async def _here(work: Callable[..., Any], *args: Any) -> Any:  # Any: as Worker
    return work(*args)


class _Refused(Exception):
    """The upstream does not take this request in this form."""


class _Late(Exception):
    """The time was over before the upstream was asked, which is not the upstream's fault."""


class _Failed(Exception):
    """The upstream does not count, or not now."""


_tokenized = msgspec.json.Decoder(_Tokenized)
_counted = msgspec.json.Decoder(_Counted)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Counter:
    def __init__(
        self,
        client: Client,
        tokenizer: Callable[[str], int] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tokenizer` is the tokens of a text; called in a thread of its own."""
        self._client = client
        self._tokenizer = tokenizer
        self._now = now
        # Not the loop's own threads: names are looked up there, and must not wait for this.
        self._thread = ThreadPoolExecutor(1, "tokenizer") if tokenizer is not None else None
        self._learners: dict[str, Learner] = {}  # by the catalog's names, of which there are few
        self._taught: dict[str, float] = {}  # model: when it had its last lesson
        self._resting: dict[str, float] = {}  # upstream: until when it is not asked
        self._texts_only: dict[str, float] = {}  # upstream: until when it is sent no messages

    def of(self, model: str) -> Learner:
        """What is known so far of how a model's tokens run."""
        learner = self._learners.get(model)
        if learner is None:
            learner = self._learners[model] = Learner()
        return learner

    def estimate(self, model: str, features: Features) -> int:
        return self.of(model).estimate(features)

    def learn(self, model: str, features: Features, tokens: int) -> None:
        """One more lesson, if the last one for this model is not of just now: they cost 20 us each."""
        now = self._now()
        if now - self._taught.get(model, -LESSON_EVERY_S) >= LESSON_EVERY_S:
            self._taught[model] = now
            self.of(model).learn(features, tokens)

    async def count(
        self,
        request: Request,
        routes: tuple[Route, ...],
        dialect: str,
        worker: Worker = _here,
    ) -> Count:
        """The input tokens that this request would have; `dialect` is the client's."""
        features: Features = await worker(counting.features, request)
        found = await self._asked(request, routes, dialect, features, worker)
        if found is None and self._thread is not None:
            found = await self._by_tokenizer(request, features, worker)
        if found is None:
            found = Count(self.estimate(routes[0].model.id, features), ESTIMATED)
        return found

    # -- upstreams

    async def _asked(
        self,
        request: Request,
        routes: tuple[Route, ...],
        dialect: str,
        features: Features,
        worker: Worker,
    ) -> Count | None:
        """What the first upstream that counts says; None when none does within the bound."""
        now = self._now()
        able = [
            r
            for r in routes
            if r.capabilities.counts and self._resting.get(r.upstream.name, now) <= now
        ]
        if not able:
            return None
        until_s = asyncio.get_running_loop().time() + BOUND_S
        for route in able:
            try:
                fitted = await worker(
                    fitted_request, request, route, dialect, 0, route.model.effort
                )
                return await self._ask(route, fitted.request, features, worker, until_s)
            except (_Refused, Refused):
                continue
            except _Late:
                break
            except (_Failed, NotSent, Broken, TimedOut):
                self._rest(route)
            except TimeoutError:
                self._rest(route)
                break
        return None

    def _rest(self, route: Route) -> None:
        self._resting[route.upstream.name] = self._now() + REST_S

    async def _ask(
        self, route: Route, request: Request, features: Features, worker: Worker, until_s: float
    ) -> Count:
        if route.capabilities.counts == "anthropic":
            url, body = await worker(_anthropic, route, request)
            return Count(await self._post(route, url, body, _counted, until_s))
        name, now = route.upstream.name, self._now()
        url = _root(route) + "/tokenize"
        if self._texts_only.get(name, now) <= now:
            try:
                body = await worker(_only, _TOKENIZE, OPENAI.encode_request, route, request)
                return Count(await self._post(route, url, body, _tokenized, until_s))
            except _Refused:
                pass
        body = await worker(_prompt, route, request)
        tokens = await self._post(route, url, body, _tokenized, until_s)
        self._texts_only[name] = now + REST_S
        return Count(tokens + round(features.images * counting.PER_IMAGE), WRITTEN)

    async def _post(
        self,
        route: Route,
        url: str,
        body: bytes,
        decoder: "msgspec.json.Decoder[_Tokenized] | msgspec.json.Decoder[_Counted]",
        until_s: float,
    ) -> int:
        """What the upstream counts; TimeoutError when it has not answered by `until_s` of the loop."""
        if asyncio.get_running_loop().time() >= until_s:
            raise _Late
        headers = upstream.headers(route) | {"accept": "application/json"}
        if route.capabilities.counts == "anthropic":
            headers["anthropic-version"] = "2023-06-01"
        async with asyncio.timeout_at(until_s):
            response = await self._client.send("POST", url, headers, body, _TIMEOUTS)
            page = await response.read_all(MAX_ANSWER_BYTES)
        if response.status in _REFUSED:
            raise _Refused
        if response.status != 200:
            raise _Failed
        try:
            answer = decoder.decode(page)
        except (msgspec.MsgspecError, ValueError):
            raise _Failed from None
        return answer.count if isinstance(answer, _Tokenized) else answer.input_tokens

    # -- the operator's tokenizer

    async def _by_tokenizer(
        self, request: Request, features: Features, worker: Worker
    ) -> Count | None:
        """None when it takes too long, which a long queue before it also is."""
        assert self._tokenizer is not None and self._thread is not None
        text: str = await worker(chat_template.written, request)
        if len(text) > MAX_TEXT_CHARS:
            return None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BOUND_S):
                tokens = await loop.run_in_executor(self._thread, self._tokenizer, text)
        except TimeoutError:
            return None
        return Count(tokens + round(features.images * counting.PER_IMAGE), WRITTEN)


def _prompt(route: Route, request: Request) -> bytes:
    """The body of /tokenize for a server that takes only one text."""
    return jsontext.encode(
        {
            "model": route.name,
            "prompt": chat_template.written(request),
            "add_special_tokens": False,
        }
    )


def _root(route: Route) -> str:
    return route.upstream.base_url.rstrip("/").removesuffix("/v1")


def _anthropic(route: Route, request: Request) -> tuple[str, bytes]:
    """Address and body of count_tokens; MiniMax has it beside the /v1 of its other protocol."""
    root = _root(route)
    if route.upstream.dialect != "anthropic":
        root += "/anthropic"
    blocks = msgspec.structs.replace(route.capabilities, reasoning_form="blocks")
    route = msgspec.structs.replace(route, capabilities=blocks)
    body = _only(_ANTHROPIC, ANTHROPIC.encode_request, route, request)
    return f"{root}/v1/messages/count_tokens", body


def _only(
    names: tuple[str, ...], encode: Callable[..., bytes], route: Route, request: Request
) -> bytes:
    """The upstream's own request with these fields of it: servers refuse what they do not know."""
    fields = _fields.decode(encode(request, route.capabilities, route.name, False))
    kept: dict[str, Any] = {n: fields[n] for n in names if n in fields}  # Any: Raw beside str
    return jsontext.encode({"model": route.name} | kept)
