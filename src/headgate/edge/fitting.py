"""A request as one route is sent it: the only place where history repair and fitting come together."""

from collections.abc import Mapping

import msgspec

from headgate.catalog.routes import Route
from headgate.chat import Request
from headgate.policy import fit, history
from headgate.policy.fit import Fitted


def fitted_request(
    request: Request,
    route: Route,
    dialect: str,
    input_estimate: int = 0,
    effort: str = "",
    takers: Mapping[str, tuple[str, ...]] = {},
) -> Fitted:
    """Return the request as this route is sent it; Refused when the route cannot take it.

    `effort` is the operator's for requests that name none, `takers` the models that take each kind of
    media.
    """
    sizes = route.sizes
    if dialect in sizes.thinking_on_request and request.reasoning.mode == "default":
        request = _not_thinking(request, route)
    return fit.fit(
        history.repair(request, route.capabilities, dialect),
        route.capabilities,
        max_output=sizes.max_output,
        default_max_output=sizes.default_max_output,
        context_window=sizes.context_window,
        input_estimate=input_estimate,
        client=dialect,
        wire=route.upstream.dialect,
        effort=effort,
        takers=takers,
    )


def _not_thinking(request: Request, route: Route) -> Request:
    """Return the request of a protocol in which this model thinks only when asked to."""
    if not route.capabilities.thinking_off:
        return request
    reasoning = msgspec.structs.replace(request.reasoning, mode="off")
    return msgspec.structs.replace(request, reasoning=reasoning)
