"""Reads which nodes have sent rows to the database, how far each is behind, and what they lease."""

import msgspec

CLOCK_S = 30.0  # that a node's clock may be off
SILENT_S = 30.0  # a node that lives says so every 10 s
NODES = """
select node_id, name, version, extract(epoch from seen_at)::float8,
    extract(epoch from clock_timestamp() - seen_at)::float8, clock_ahead_s, behind,
    (select coalesce(sum(requests), 0)::bigint from totals where node_id = nodes.node_id),
    (select coalesce(sum(granted - spent), 0)::bigint from leases
        join allowances using (what, owner, period)
        where node_id = nodes.node_id and (until is null or until > now()))
    from nodes order by name, node_id
"""


class ClusterNode(msgspec.Struct, frozen=True):
    """A node that has sent rows."""

    node_id: str
    name: str
    version: str
    seen_s: float  # Unix seconds, by the clock of the database
    silent_s: float  # since then
    clock_ahead_s: float  # its clock before the database's, as it last came; negative: behind
    behind: int  # rows that it had not sent then
    requests: int  # of it here, also those that were deleted for their age
    leased_nano: int  # of budgets whose period goes on, and not spent


# Of the periods that go on now: by the owner, and by the period's kind and zone.
LEASED = """
select what, owner, regexp_replace(period, ' [^ ]+$', ''), sum(granted - spent)::bigint, count(*)
    from leases join allowances using (what, owner, period)
    where granted > spent and since <= now() and (until is null or until > now()) group by 1, 2, 3
"""


class Leased(msgspec.Struct, frozen=True):
    """What nodes may spend of one budget and have not."""

    nano: int
    nodes: int
