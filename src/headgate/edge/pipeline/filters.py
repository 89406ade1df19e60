"""The filters of one reply, chosen by the request, the dialect and the settings."""

from collections.abc import Sequence

from headgate.catalog.routes import Route
from headgate.edge.pipeline.masking import Restore
from headgate.edge.pipeline.state import Exchange
from headgate.policy.fit import Fitted
from headgate.reasoning import sealing
from headgate.reasoning.cache import ReplyCollector
from headgate.stream import filters


def filters_for(
    exchange: Exchange,
    route: Route,
    fitted: Fitted,
    collectors: list[ReplyCollector],
    searching: filters.Filter | None = None,
    last: Sequence[filters.Filter] = (),
) -> list[filters.Filter]:
    """Return the filters; `collectors` gets the one that collects the reply, once it has reasoning.

    `searching` and `last` are those of a reply that may search the web.
    """
    request, context = fitted.request, exchange.context
    show, sealed = request.reasoning.show, exchange.arrival.dialect.facts.seals
    if show == "no" and sealed == "always":
        show = "omit"

    def on_reasoning() -> tuple[filters.Filter, ...]:
        collectors.append(ReplyCollector())
        seal = sealing.Seal(context.reasoning.sealer, route.upstream.name, sealed == "signed")
        return collectors[0], seal

    fidelity = context.served.settings.fidelity
    chain = filters.build(
        show,
        fitted.stop,
        fitted.format is not None,
        on_reasoning,
        tools=() if request.choice.mode == "none" else request.tools,
        seed=exchange.id,
        tool_call_recovery=fidelity.tool_call_recovery,
        coerce=fidelity.coerce,
        searching=searching,
        last=last,
    )
    if exchange.masker is not None and exchange.masker.values:
        chain.insert(0, Restore(exchange.masker, json_text=fitted.format is not None))
    return chain
