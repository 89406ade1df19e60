"""Get started: the five steps from a new gateway to a team that uses it, each with its button.

Note: nothing is remembered of the steps.  Each is done when what it asks for is there, so that what was
set up by headgate.toml or by the command line counts as well.
"""

import time

import msgspec
from starlette.responses import Response

from headgate.web.app import Rule
from headgate.web.console import upstream_form
from headgate.web.context import NavigationEntry, Problem, RequestContext


class StartStep(msgspec.Struct, frozen=True):
    name: str
    title: str
    text: str
    button: str
    path: str
    done: bool


def show(visit: RequestContext) -> Response:
    return page(visit)


def page(visit: RequestContext, refused: Problem | None = None) -> Response:
    """Render the steps; `refused`: what is wrong with the upstream that was entered here."""
    steps = steps_of(visit)
    return visit.render(
        "start.html",
        200 if refused is None else refused.status,
        steps=steps,
        first=next((s.name for s in steps if not s.done), ""),
        form=upstream_form.form(visit, refused),
    )


def steps_of(visit: RequestContext) -> tuple[StartStep, ...]:
    """The steps in their order, as far as they are done now."""
    console_context, now_s = visit.console_context, time.time()
    all_keys = console_context.store.keys()
    keys = [k for k in all_keys if not k.name.startswith("playground: ")]
    own = {k.id for k in keys}
    users = {s.name for s in visit.ledger.reports.usage("key")}
    upstreams = any(u.preset != "local" for u in console_context.upstreams.values())
    people = [u for u in console_context.people.users() if u.closed_s is None]
    return (
        StartStep(
            "upstream",
            "Add an upstream",
            "The provider or the server that answers. It is tested as soon as it is saved.",
            "Add an upstream",
            "/upstreams?new=1#new",
            upstreams,
        ),
        StartStep(
            "key",
            "Create an API key",
            "Clients send it with each request. It can have a budget, limits and models of its own.",
            "Create an API key",
            "/api_keys?new=1#new",
            any(k.good(now_s) for k in keys),
        ),
        StartStep(
            "request",
            "Send a request",
            "The playground sends one, and shows what it cost and how long it took.",
            "Open the playground",
            "/playground",
            bool(users),
        ),
        StartStep(
            "client",
            "Connect a client",
            "SDKs and coding agents need an address and a key: here is the text for each.",
            "Connect a client",
            "/docs",
            bool(users & own),
        ),
        StartStep(
            "team",
            "Invite the team",
            "An account is a team with a budget of its own; its people see its keys and figures only.",
            "Create an account",
            "/accounts",
            len(people) > 1 or bool(console_context.store.accounts()),
        ),
    )


ENTRY = NavigationEntry("/start", "Get started", "manage", "Reference")
RULES = (Rule("GET", "/start", show, "manage"),)
