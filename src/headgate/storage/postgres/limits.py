"""The limits of keys over all nodes in PostgreSQL: one transaction for all that a node asks for at a time.

The rules are `policy/shared_rates.draw` and `policy/shared_slots.draw`.  The row of a limit is locked
meanwhile.  Instants are PostgreSQL's, so that no node's clock counts.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.policy import shared_rates, shared_slots
from headgate.policy.bucket import Bucket
from headgate.policy.limit_kinds import LIMITS, NS
from headgate.policy.limits import LimitSlot
from headgate.policy.shared_rates import RateAnswer, RateAsk
from headgate.policy.shared_slots import LEASE_S, OtherSlots, SlotAnswer, SlotAsk
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.leases import ALIVE_S, CHANNEL, Replaced

OLD_S = (
    3600  # a limit that nobody has drawn from for so long is forgotten: by then its level is empty
)

# In one order, so that no two nodes wait for each other.
_LOCK = """
insert into shared_limits (owner, kind, model, most)
    select owner, kind, model, most from jsonb_to_recordset($1::jsonb)
        as t (owner text, kind text, model text, most bigint) order by 1, 2, 3
    on conflict (owner, kind, model) do update set owner = excluded.owner
    returning owner, kind, model, shared_limits.most, level, kept, epoch, at_us
"""
_SITUATION = f"""
select (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    array(select node_id from nodes where seen_at > now() - interval '{ALIVE_S} s'
        union select $2 order by 1),
    exists (select 1 from leasing_nodes where node_id = $2 and process = $3),
    coalesce((select jsonb_agg(jsonb_build_array(owner, kind, model, held, used,
            extract(epoch from clock_timestamp() - at))) from shared_slots
        where (owner, kind, model) in (select owner, kind, model from jsonb_to_recordset($1::jsonb)
            as t (owner text, kind text, model text))
            and node_id <> $2 and at > clock_timestamp() - interval '{LEASE_S} s'), '[]')
"""
_WRITE = """
with rates as (
    update shared_limits set most = t.most, level = t.level, kept = t.kept, epoch = t.epoch, at_us = t.at_us
    from jsonb_to_recordset($1::jsonb) as t (owner text, kind text, model text, most bigint,
        level numeric, kept float8, epoch bigint, at_us bigint)
    where (shared_limits.owner, shared_limits.kind, shared_limits.model) = (t.owner, t.kind, t.model)
), gone as (
    delete from shared_slots using jsonb_to_recordset($2::jsonb)
        as t (owner text, kind text, model text, held integer)
    where t.held = 0 and node_id = $3 and (shared_slots.owner, shared_slots.kind, shared_slots.model)
        = (t.owner, t.kind, t.model)
)
insert into shared_slots (owner, kind, model, node_id, held, used, at)
    select owner, kind, model, $3, held, used, clock_timestamp() from jsonb_to_recordset($2::jsonb)
        as t (owner text, kind text, model text, held integer, used integer) where held > 0
    on conflict (owner, kind, model, node_id) do update
        set held = excluded.held, used = excluded.used, at = excluded.at
"""


class Drawn(msgspec.Struct, frozen=True):
    """The answers, in the order of the asks; which nodes live, and this one's place among them."""

    rates: list[RateAnswer]
    slots: list[SlotAnswer]
    nodes: int
    rank: int


async def draw(
    db: Connection,
    node_id: str,
    process: str,
    rates: Sequence[RateAsk],
    slots: Sequence[SlotAsk],
) -> Drawn:
    """Answer what a node asks for; each limit is there at most once.

    Replaced when another process has registered for the node since.
    """
    limits = [*[(ask.slot, ask.most) for ask in rates], *[(ask.slot, ask.most) for ask in slots]]
    named = [{**_named(slot), "most": most} for slot, most in limits]
    data = msgspec.json.encode(named).decode()
    async with db.transaction():
        known = {tuple(f)[:3]: tuple(f)[3:] for f in await db.fetch(_LOCK, data)}
        now_us, nodes, mine, found = await db.fetchrow(_SITUATION, data, node_id, process)
        if not mine:
            raise Replaced(
                "another gateway draws limits under the id of this node, as of a copied data directory;"
                " stop one of them, and remove the file `node_id` in its data directory."
            )
        written: list[dict[str, Any]] = []  # Any: texts and numbers
        answers = []
        for ask in rates:
            bucket = _bucket(known[_key(ask.slot)], ask, now_us)
            answers.append(shared_rates.draw(bucket, ask, len(nodes)))
            fields = {"most": bucket.most, "level": bucket.level, "kept": bucket.kept}
            more = {"epoch": bucket.epoch, "at_us": now_us}
            written.append({**_named(ask.slot), **fields, **more})
        others: dict[tuple[str, ...], list[OtherSlots]] = {}
        for owner, kind, model, *figures in msgspec.json.decode(found):
            others.setdefault((owner, kind, model), []).append(OtherSlots(*figures))
        held, granted = [], []
        for each in slots:
            answer = shared_slots.draw(each, others.get(_key(each.slot), []), len(nodes))
            granted.append(answer)
            held.append({**_named(each.slot), "held": answer.held, "used": each.used})
            if answer.held < each.need and answer.idle:
                await db.execute("select pg_notify($1, $2)", CHANNEL, f"slots {each.slot[0]}")
        await db.execute(
            _WRITE,
            msgspec.json.encode(written).decode(),
            msgspec.json.encode(held).decode(),
            node_id,
        )
    return Drawn(answers, granted, len(nodes), nodes.index(node_id))


async def prune(db: Connection) -> None:
    """Delete the limits that nobody has drawn from for long, and the slots of nodes that are gone."""
    await db.execute(
        "delete from shared_limits where at_us <"
        f" (extract(epoch from clock_timestamp()) - {OLD_S}) * 1000000"
    )
    await db.execute(
        f"delete from shared_slots where at < clock_timestamp() - interval '{OLD_S} s'"
    )


def _key(slot: LimitSlot) -> tuple[str, str, str]:
    owner, model, kind = slot
    return owner, kind, model


def _named(slot: LimitSlot) -> dict[str, object]:
    owner, kind, model = _key(slot)
    return {"owner": owner, "kind": kind, "model": model}


def _bucket(known: tuple[Any, ...], ask: RateAsk, now_us: int) -> Bucket:
    """The bucket as it is now, with the limit that held until now."""
    most, level, kept, epoch, at_us = known
    window_ns = LIMITS[ask.slot[2]].window_ns
    at_ns = at_us * (NS // 10**6)
    bucket = Bucket(most, window_ns, at_ns, int(level), kept, epoch)
    bucket.advance(now_us * (NS // 10**6))
    return bucket
