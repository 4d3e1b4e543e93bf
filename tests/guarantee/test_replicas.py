"""Three replicas, 40 sources, two destinations, live traffic, and faults everywhere.

Each story ends with the same question: has every execution arrived once as span and as log record,
main and at its destination, but for at most one batch of a unit for each takeover of it, byte for
byte the same; did no cursor go back, and nobody write what was another one's; has each unit one
owner, and is the work spread evenly (`story.py`). Alloy answers some requests with 503 and 429, the
endpoint refuses some and loses some of its answers, all the time.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from otel_alloy.testing.postgres_server import PostgresServer
from otel_alloy.testing.tcp_proxy import TcpProxy

from .scale import scaled
from .story import LEASE, small_disk, told

if TYPE_CHECKING:
    from conftest import Servers

ROUNDS = scaled(1, 5)


def test_replicas_that_die_sleep_and_end(servers: Servers, tmp_path: Path) -> None:
    """A replica is killed; one sleeps for longer than its leases, while the endpoint has batches of
    it that it has not heard of, and wakes; one is asked to end. Others have its work each time."""
    with told(tmp_path, servers.storage("postgres newest", tmp_path)) as story:
        story.begin(None, None, None)
        for _ in range(ROUNDS):
            story.kill()
            story.pause()
            story.stop()
        assert story.check()["takeovers"] > 0


def test_a_network_that_is_cut(servers: Servers, tmp_path: Path) -> None:
    """Between one replica and the database nothing gets through any more, neither packets nor their
    absence; then, connections are reset and refused. Others have its work each time; what was on
    its way arrives when it is nobody's any more, and writes nothing. It goes on as one of three."""
    server, url = servers.server(-1), servers.storage("postgres newest", tmp_path)
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(server.port, b"\0\0never\0\0", lambda: None))
        story = stack.enter_context(told(tmp_path, url))
        cut_off = url.replace(f":{server.port}/", f":{proxy.port}/")
        victim, *_ = story.begin(cut_off, None, None)
        for _ in range(ROUNDS):
            story.black_hole(victim, proxy)
            story.reset(victim, proxy)
        assert story.check()["takeovers"] > 0


def test_a_transaction_that_is_left_open(servers: Servers, tmp_path: Path) -> None:
    """The network is cut in the middle of a transaction that holds a lease's row. The server ends
    that soon, so that nobody waits for it for much longer than for the lease."""
    server, url = servers.server(-1), servers.storage("postgres newest", tmp_path)
    with ExitStack() as stack:
        armed: list[bool] = []

        def cut() -> None:
            if armed:
                proxy.freeze(True)

        proxy = stack.enter_context(TcpProxy(server.port, b"FOR SHARE", cut))
        story = stack.enter_context(told(tmp_path, url))
        cut_off = url.replace(f":{server.port}/", f":{proxy.port}/")
        victim, *_ = story.begin(cut_off, None, None)
        armed.append(True)
        story.until(lambda: proxy.frozen, "a transaction to cut off")
        assert story.taken_over(victim) < 5 * LEASE
        armed.clear()
        proxy.freeze(False)
        story.rest()
        story.check()


def test_a_server_that_restarts(servers: Servers, tmp_path: Path) -> None:
    """The database is stopped in order and started; it is killed and started. Replicas go on by
    themselves."""
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer(servers.server(-1).programs))
        story = stack.enter_context(told(tmp_path, server.url))
        story.begin(None, None, None)
        for _ in range(ROUNDS):
            story.restart(server, server.shut_down)
            story.restart(server, server.kill)
        story.check()


def test_a_standby_that_takes_over(servers: Servers, tmp_path: Path) -> None:
    """The server is killed for good, and its synchronous standby promoted. Replicas follow, as
    their URL names both; nothing that was acknowledged is lost."""
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer(servers.server(-1).programs))
        standby = primary.standby()
        stack.callback(standby.stop)
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}/"
        url = primary.url.replace(f"127.0.0.1:{primary.port}/", hosts)
        story = stack.enter_context(told(tmp_path, f"{url}?target_session_attrs=read-write"))
        story.begin(None, None, None)
        story.fail_over(primary, standby)
        story.check()


def test_a_full_disk_of_the_database(servers: Servers, tmp_path: Path) -> None:
    """The disk under the database is full for a while: replicas say so, and go on afterwards; the
    server, where that has ended it, is started again as its operator would."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(200))
        server = stack.enter_context(
            PostgresServer(
                servers.server(-1).programs,
                {"max_wal_size": "64MB", "min_wal_size": "32MB"},
                disk / "server",
            )
        )
        story = stack.enter_context(told(tmp_path, server.url))
        story.begin(None, None, None)
        story.fill(disk, server)
        story.check()
