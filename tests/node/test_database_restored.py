"""The drill of docs/deployment.md: the database of all nodes is dumped, lost and restored while they run."""

import asyncio
import subprocess
from pathlib import Path

from cluster import QUICK, Cluster, reserved
from headgate.storage.postgres.reports import LedgerDatabase
from played import PlayedUpstream
from postgres import program
from waiting import wait_for


def test_a_lost_database_is_restored_from_a_dump_and_nodes_send_what_it_does_not_have(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path, upstream, 2)
    dump, url = tmp_path / "headgate.dump", cluster.database.url

    def run(name: str, *options: str | Path) -> None:
        command = [program(name), "--dbname", url, *map(str, options)]
        subprocess.run(command, check=True, capture_output=True)

    def rows(key_id: str) -> list[str]:
        query = "select request_id from headgate.ledger where key_id = $1"
        found = cluster.within(lambda db: db.fetch(query, key_id))
        return [str(id) for (id,) in found]

    try:
        budget = 40 * reserved(QUICK)
        id, headers = cluster.key(budget_nano=budget)
        served = [cluster.ask(n % 2, headers) for n in range(6)]
        wait_for(lambda: len(rows(id)) == 6)
        run("pg_dump", "--format=custom", "--schema=headgate", "--file", dump)
        _, later = cluster.key()
        served += [cluster.ask(n % 2, headers) for n in range(4)]
        wait_for(lambda: len(rows(id)) == 10)
        cluster.database.stop()
        served.append(cluster.ask(0, headers))  # with what it has leased
        cluster.database.start()
        asyncio.run(cluster.database.clear())
        # Nodes make the schema again, and do not take an empty one for what the keys are.
        made = (
            "select count(*) from pg_tables where schemaname = 'headgate' and tablename = 'nodes'"
        )
        wait_for(lambda: cluster.within(lambda db: db.fetchval(made)) == 1)
        for gate in cluster.gates:
            wait_for(lambda gate=gate: cluster.knows(gate, headers))  # type: ignore[misc]
            assert cluster.knows(gate, later)
        run("pg_restore", "--clean", "--if-exists", "--single-transaction", dump)
        assert {reply.status_code for reply in served} == {200}
        ids = {reply.headers["request-id"] for reply in served}
        wait_for(lambda: ids <= set(rows(id)))
        assert len(rows(id)) == len(ids)
        for gate in cluster.gates:  # keys are as they were then
            wait_for(lambda gate=gate: not cluster.knows(gate, later))  # type: ignore[misc]
            assert cluster.knows(gate, headers)
        wait_for(lambda: [cluster.ask(n, headers).status_code for n in range(2)] == [200, 200])
        wait_for(lambda: sum(cluster.granted(id)) == cluster.spent(id))
        assert 0 < cluster.spent(id) <= budget
        assert cluster.within(lambda db: LedgerDatabase(db).audit()) == []
    finally:
        cluster.end()
