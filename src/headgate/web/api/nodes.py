"""The nodes that share a database, over the admin API: who is silent, behind, or has a wrong clock.

What is asked of usage and requests cannot say that a part is late; this can.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from headgate.policy import pricing
from headgate.storage.postgres.nodes import SILENT_S
from headgate.web.api import shapes as shapes
from headgate.web.api.shapes import Nano, Shape, Usd
from headgate.web.context import RequestContext


class Node(Shape, frozen=True, kw_only=True):
    """A node that has sent requests to the database."""

    id: Annotated[str, Meta(description="What `node` of usage and requests takes.")]
    name: str
    version: str
    state: Annotated[
        Literal["up", "silent"],
        Meta(description="silent: not heard of for 30 s; its newer requests are in no figure."),
    ]
    seen_at: Annotated[datetime, Meta(description="When it was last heard of.")]
    behind: Annotated[int, Meta(description="Requests that were on their way then.")]
    clock_ahead_s: Annotated[
        float, Meta(description="How far its clock is before the database's; negative: behind.")
    ]
    requests: Annotated[int, Meta(description="Of all time.")]
    leased_usd: Annotated[Usd, Meta(description="Of budgets, and not spent.")]
    leased_nano: Nano


class Nodes(Shape, frozen=True, kw_only=True):
    """Lists all nodes; there are none where no database is shared."""

    data: list[Node]


def list_nodes(visit: RequestContext) -> Nodes:
    """List the nodes that share the database, but for those that were forgotten.

    A gateway that shares none has an empty list.
    """
    visit.ledger.whole  # noqa: B018  # refused while the database is away
    return Nodes(
        data=[
            Node(
                id=n.node_id,
                name=visit.ledger.node_names.get(n.node_id, n.name),
                version=n.version,
                state="silent" if n.silent_s > SILENT_S else "up",
                seen_at=shapes.at(n.seen_s),
                behind=n.behind,
                clock_ahead_s=round(n.clock_ahead_s, 1),
                requests=n.requests,
                leased_usd=pricing.usd(n.leased_nano),
                leased_nano=n.leased_nano,
            )
            for n in visit.ledger.nodes
        ]
    )
