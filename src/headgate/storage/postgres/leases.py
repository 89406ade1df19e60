"""The leases of all nodes in PostgreSQL: one transaction for all that a node asks for at a time.

The rule is `policy/leases.grant`.  The row in `allowances` is locked meanwhile, so that the leases of one
period are decided one after the other.  Instants are PostgreSQL's, so that no node's clock counts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from headgate.policy.leases import LEASE_S, Answer, Ask, LeaseId, Other, grant
from headgate.storage.errors import StoreError
from headgate.storage.postgres.database import Connection

CHANNEL = "headgate_recall"  # "key OWNER" or "account OWNER": who has unused money returns it
ALIVE_S = 90  # a node that was heard of within that time counts
FORGET_S = LEASE_S + 10  # a node may spend for so long after it was heard of
OLD_DAYS = 60  # after its end a period is deleted
_EARLIEST_S = 0.0

_ASKED = """
    jsonb_to_recordset($1::jsonb) as asked
        (what text, owner text, period text, since timestamptz, until timestamptz)
"""
_MAKE = f"""
insert into allowances (what, owner, period, since, until)
    select what, owner, period, since, until from {_ASKED} order by 1, 2, 3
    on conflict do nothing returning what, owner, period
"""
_LOCK = f"""
select what, owner, period from allowances
    where (what, owner, period) in (select what, owner, period from {_ASKED})
    order by 1, 2, 3 for update
"""
_SEED = """
insert into leases (what, owner, period, node_id, granted, used, spent)
    select a.what, a.owner, a.period, s.node_id, s.nano, s.nano, s.nano
    from allowances a, spent_by_node(a.what, a.owner, a.since, a.until) s
    where a.what = $1 and a.owner = $2 and a.period = $3 and s.nano > 0
    on conflict do nothing
"""
_TERMS = f"""
select asked.what, asked.owner, asked.period, (r."row" ->> 'budget_nano')::bigint,
    r."row" ->> 'budget_period', r."row" ->> 'budget_zone'
    from {_ASKED} left join shared_rows r on r.id = asked.owner
        and r.kind = case asked.what when 'key' then 'keys' else 'accounts' end
"""
_LEASES = f"""
select what, owner, period, node_id, granted, used, spent from leases
    where (what, owner, period) in (select what, owner, period from {_ASKED})
"""
_WRITE = """
insert into leases (what, owner, period, node_id, granted, used, spent)
    select what, owner, period, $2, granted, used, spent from jsonb_to_recordset($1::jsonb)
        as t (what text, owner text, period text, granted bigint, used bigint, spent bigint)
    on conflict (what, owner, period, node_id) do update set granted = excluded.granted,
        used = excluded.used, spent = excluded.spent, renewed_at = now()
"""


class Replaced(StoreError):
    """Another process speaks for this node now."""


async def register(db: Connection, node_id: str, process: str) -> None:
    """Speak for a node from now on, in the place of the process before."""
    await db.execute(
        "insert into leasing_nodes values ($1, $2) on conflict (node_id) do update set process = $2",
        node_id,
        process,
    )


async def draw(db: Connection, node_id: str, process: str, asks: Sequence[Ask]) -> list[Answer]:
    """Answer what a node asks for; each owner's period is there at most once.

    Replaced when another process has registered for the node since.
    """
    data = msgspec.json.encode([_period(ask) for ask in asks]).decode()
    async with db.transaction():
        mine_still = await db.fetchval(
            "select 1 from leasing_nodes where node_id = $1 and process = $2 for share",
            node_id,
            process,
        )
        if mine_still is None:
            raise Replaced(
                "another gateway leases budgets under the id of this node, as of a copied data directory;"
                " stop one of them, and remove the file `node_id` in its data directory."
            )
        for fresh in await db.fetch(_MAKE, data):
            await db.execute(_SEED, *fresh)
        await db.execute(_LOCK, data)
        terms = {tuple(f)[:3]: tuple(f)[3:] for f in await db.fetch(_TERMS, data)}
        mine: dict[tuple[str, ...], int] = {}
        others: dict[tuple[str, ...], list[Other]] = {}
        for what, owner, period, node, *figures in await db.fetch(_LEASES, data):
            if node == node_id:
                mine[what, owner, period] = figures[0]
            else:
                others.setdefault((what, owner, period), []).append(Other(*figures))
        nodes = await db.fetchval(
            f"select count(*) from nodes where seen_at > now() - interval '{ALIVE_S} s'"
        )
        answers, written = [], []
        for ask in asks:
            id = (ask.id.what, ask.id.owner, ask.id.period)
            limit, kind, zone = terms[id]
            before = mine.get(id, 0)
            if limit is None or (kind, zone) != (ask.period, ask.zone):
                answers.append(Answer(before, None))
                continue
            answer = grant(limit, before, ask, others.get(id, []), nodes)
            answers.append(answer)
            lease = {"granted": answer.granted, "used": ask.used, "spent": ask.spent}
            written.append({"what": id[0], "owner": id[1], "period": id[2], **lease})
            if answer.granted < ask.need and answer.idle:
                await db.execute("select pg_notify($1, $2)", CHANNEL, f"{id[0]} {id[1]}")
        await db.execute(_WRITE, msgspec.json.encode(written).decode(), node_id)
    return answers


def _period(ask: Ask) -> dict[str, object]:
    until = None if ask.until_s is None else datetime.fromtimestamp(ask.until_s, UTC)
    since = datetime.fromtimestamp(max(ask.since_s, _EARLIEST_S), UTC)
    return {**msgspec.structs.asdict(ask.id), "since": since, "until": until}


async def leases_of(db: Connection, id: LeaseId) -> dict[str, int]:
    """Return what each node has of one budget."""
    found = await db.fetch(
        "select node_id, granted from leases where what = $1 and owner = $2 and period = $3",
        *msgspec.structs.astuple(id),
    )
    return {str(node): int(granted) for node, granted in found}


async def release(db: Connection, node_ids: Sequence[str]) -> None:
    """Free what nodes that are gone have leased, but for what their rows say that they spent.

    StoreError while one of them may still spend it.
    """
    alive = await db.fetchval(
        "select max(name) from nodes where node_id = any($1)"
        f" and seen_at > now() - interval '{FORGET_S} s'"
        " and exists (select 1 from leases where leases.node_id = nodes.node_id)",
        list(node_ids),
    )
    if alive is not None:
        raise StoreError(
            f"{alive} was heard of within the last {FORGET_S:.0f} s and may spend what it has leased;"
            " stop it, or wait until it has been silent for so long."
        )
    await db.execute(
        "update leases set granted = s.nano, used = s.nano, spent = s.nano from ("
        " select l.what, l.owner, l.period, l.node_id, coalesce((select nano from"
        " spent_by_node(a.what, a.owner, a.since, a.until) n where n.node_id = l.node_id), 0) as nano"
        " from leases l join allowances a using (what, owner, period) where l.node_id = any($1)) s"
        " where (leases.what, leases.owner, leases.period, leases.node_id)"
        " = (s.what, s.owner, s.period, s.node_id)",
        list(node_ids),
    )


async def prune(db: Connection) -> None:
    """Delete the leases of periods that ended long ago."""
    await db.execute(f"delete from allowances where until < now() - interval '{OLD_DAYS} days'")
