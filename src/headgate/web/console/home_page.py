"""The front page: where clients point, and the ways on."""

from starlette.responses import Response

from headgate.web.app import Rule, secure, session
from headgate.web.context import RequestContext


def home(visit: RequestContext) -> Response:
    if session(visit) is not None:
        return visit.redirect("/usage")
    return visit.render(
        "home.html", secure=secure(visit), models=visit.console_context.catalog.models
    )


RULES = (Rule("GET", "/", home),)
