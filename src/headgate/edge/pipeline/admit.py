"""The second step: admission, once, before any upstream is asked."""

import msgspec

from headgate.catalog.routes import Route
from headgate.edge.pipeline.prepare import Prepared
from headgate.edge.pipeline.state import Exchange
from headgate.policy import reservations
from headgate.policy.fit import Fitted


async def admit(
    exchange: Exchange, prepared: Prepared, route: Route, fitted: Fitted
) -> Prepared | None:
    """Reserve what any of the routes may cost and commit the intent record; Refused if that fails.

    `route` is the first that is asked and `fitted` the request as it takes it.  The answer is the
    request with the `max_tokens` that the budget pays for; None when that is all it asks for.
    """
    entry = exchange.arrival.entry
    max_tokens = await exchange.record.open(
        entry.key,
        entry.admission,
        prepared.request,
        prepared.size,
        fitted.request,
        route,
        prepared.routes,
        exchange.input_estimate,
    )
    if max_tokens is None:
        return None
    request = reservations.lowered(prepared.request, max_tokens)
    return msgspec.structs.replace(prepared, request=request)
