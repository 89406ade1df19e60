"""The pages of an edge that need no API key: its health, its metrics, the front page."""

from headgate import __version__
from headgate.edge.context import EdgeContext
from headgate.edge.paths import credential
from headgate.errors import Failure, Refused
from headgate.net.inbound import Inbound

_TEXT = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]


async def _livez(context: EdgeContext, inbound: Inbound) -> None:
    inbound.respond(200, _TEXT, b"ok\n")


async def _readyz(context: EdgeContext, inbound: Inbound) -> None:
    why = context.unready()
    if why:
        inbound.respond(503, [*_TEXT, ("retry-after", "1")], f"{why}\n".encode())
    else:
        inbound.respond(200, _TEXT, b"ready\n")


async def _metrics(context: EdgeContext, inbound: Inbound) -> None:
    """Open when the operator says so, else for management keys, those of the admin API."""
    if context.served.settings.metrics != "open" and not context.storage.management.proves(inbound):
        text = credential(inbound.headers, inbound.query, inbound.path)
        if text is None or not await context.storage.management.manages(text):
            if text:
                context.credentials.failed_credential(inbound.client, "")
            raise Refused(
                Failure(
                    "unauthenticated",
                    "/metrics needs a management key: send it as `Authorization: Bearer hg_admin_...`;"
                    " `headgate admin keys create NAME --role viewer` makes one. Or set"
                    ' `metrics = "open"`, or give it a listener of its own: `metrics = "127.0.0.1:9464"`.',
                    code="invalid_api_key",
                    should_retry=False,
                )
            )
    await metrics_page(context, inbound)


async def metrics_page(context: EdgeContext, inbound: Inbound) -> None:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    inbound.respond(
        200, [("content-type", kind), ("cache-control", "no-store")], await context.metrics_page()
    )


class MetricsApp:
    """What the listener answers that is for /metrics alone; it asks for no key."""

    def __init__(self, context: EdgeContext) -> None:
        self._context = context

    async def __call__(self, inbound: Inbound) -> None:
        if inbound.path in ("/metrics", "/") and inbound.method in ("GET", "HEAD"):
            await metrics_page(self._context, inbound)
        else:
            inbound.respond(404, _TEXT, b"Only GET /metrics is here.\n")


async def _root(context: EdgeContext, inbound: Inbound) -> None:
    body = (
        f"Headgate {__version__}, a gateway to MiniMax's text models.\n\n"
        "OpenAI     POST /v1/chat/completions, /v1/responses, /v1/responses/compact\n"
        "Anthropic  POST /v1/messages, /v1/messages/count_tokens\n"
        "Gemini     POST /v1beta/models/{model}:generateContent, :streamGenerateContent, :countTokens\n"
        "Prices     POST /v1/quote, /v1/quote/messages, /v1/quote/responses: what a request would cost\n"
        "Models     GET  /v1/models, /v1beta/models\n"
        "Pages      GET  /models.md, /providers/minimax.md, /docs.md, /llms.txt, /skills/minimax/SKILL.md\n\n"
        "Requests and lists of models need an API key (headgate keys create NAME); pages do not.\n"
    )
    inbound.respond(200, _TEXT, body.encode())


# All of these are open: they say nothing about anybody's traffic (but /metrics, which looks itself).
PAGES = {
    "/": _root,
    "/api/hello": _livez,  # Claude Code knocks here before it has a key
    "/livez": _livez,
    "/readyz": _readyz,
    "/metrics": _metrics,
}
