"""Who is closed for a new connection, and that what is counted is bounded by what is open."""

from headgate.net.connections import RESERVED, Connections, peer_name


class Conn:
    def __init__(self, settled: bool = True) -> None:
        self.settled = settled


def filled(
    most: int, per_peer: int, **held: int
) -> tuple[Connections[Conn], dict[str, list[Conn]]]:
    book: Connections[Conn] = Connections(most, per_peer)
    conns: dict[str, list[Conn]] = {}
    for peer, count in held.items():
        conns[peer] = [Conn() for _ in range(count)]
        for conn in conns[peer]:
            assert book.admit(conn, peer, exempt=False).evict is None
    return book, conns


def test_the_largest_peer_gives_its_oldest_idle_connection() -> None:
    book, conns = filled(6, 5, a=2, b=4)
    book.busy(conns["b"][0])
    admitted = book.admit(Conn(), "c", exempt=False)
    assert admitted.evict is conns["b"][1] and not admitted.reserved
    assert len(book.open) == 6


def test_a_peer_at_its_own_bound_pays_itself() -> None:
    book, conns = filled(100, 3, a=3, b=2)
    assert book.admit(Conn(), "a", exempt=False).evict is conns["a"][0]
    assert len(book.open) == 5


def test_an_exempt_peer_has_only_the_bound_of_all() -> None:
    book: Connections[Conn] = Connections(10, 2)
    for _ in range(8):
        assert book.admit(Conn(), "proxy", exempt=True).evict is None
    other = [Conn(), Conn()]
    for conn in other:
        book.admit(conn, "a", exempt=False)
    assert book.admit(Conn(), "b", exempt=False).evict is other[0]


def test_a_connection_with_something_unsent_is_closed_last() -> None:
    book, conns = filled(3, 3, a=3)
    conns["a"][0].settled = False
    assert book.admit(Conn(), "b", exempt=False).evict is conns["a"][1]
    for conn in conns["a"]:
        conn.settled = False
    book.tick()
    assert book.admit(Conn(settled=False), "b", exempt=False).evict is conns["a"][0]


def test_an_idle_connection_is_found_behind_many_larger_peers_that_are_busy() -> None:
    held = {f"peer{n}": 3 for n in range(50)}
    book, conns = filled(151, 10, **held, small=1)
    for each in held:
        for conn in conns[each]:
            book.busy(conn)
    assert book.admit(Conn(), "new", exempt=False).evict is conns["small"][0]


def test_with_nothing_idle_the_new_one_is_reserved_and_the_reserve_is_bounded() -> None:
    book, conns = filled(2, 2, a=2)
    for conn in conns["a"]:
        book.busy(conn)
    extra = [Conn() for _ in range(RESERVED)]
    for conn in extra:
        admitted = book.admit(conn, "b", exempt=False)
        assert admitted.reserved and admitted.evict is None
    admitted = book.admit(Conn(), "b", exempt=False)
    assert admitted.reserved and admitted.evict is extra[0]
    assert len(book.open) == 2 + RESERVED
    book.idle(conns["a"][0])  # one that has become idle gives way, and the reserve is left alone
    assert not book.admit(Conn(), "b", exempt=False).reserved


def test_nothing_is_kept_of_connections_that_have_gone() -> None:
    book: Connections[Conn] = Connections(10, 2)
    for n in range(10_000):
        conn = Conn()
        book.admit(conn, f"192.0.2.{n % 251}", exempt=False)
        book.busy(conn)
        book.idle(conn)
        book.forget(conn)
        book.forget(conn)
    assert not book.open and not book.peers and book._spare() is None


def test_a_peer_with_a_whole_network_of_addresses_is_one() -> None:
    assert peer_name("2001:db8:1:2::1") == peer_name("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert peer_name("2001:db8:1:3::1") != peer_name("2001:db8:1:2::1")
    assert peer_name("::ffff:192.0.2.1") == peer_name("192.0.2.1") == "192.0.2.1"
    assert peer_name("fe80::1%eth0") == "fe80::/64"
    assert peer_name("") == ""
