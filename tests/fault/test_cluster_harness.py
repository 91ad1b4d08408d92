"""The cluster that tests use is one, breaks and mends as asked; and what it does to pub/sub, scripts and reads."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError
from redis.retry import Retry

from redis_agent.errors import ServerError
from tests.cluster import SLOTS, Cluster, Node, slot_of
from tests.processes import ROOT
from tests.waiting import eventually

SAID, NOTED = "cluster:said", "cluster:noted"
BOTH = "return redis.call('MGET', KEYS[1], KEYS[2])"


class Subscription:
    """A bare connection that hears both channels: it breaks visibly, and never subscribes again by itself."""

    def __init__(self, node: Node) -> None:
        self._connection = redis.Connection(port=node.port, protocol=2, decode_responses=True)
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", SAID, NOTED)
        self._connection.read_response()
        self._connection.read_response()
        self.heard: list[str] = []

    def hear(self) -> list[str]:
        """All that has arrived so far."""
        while self._connection.can_read(timeout=0):
            self.heard.append(self._connection.read_response()[2])
        return self.heard

    async def hears(self, last: str) -> list[str]:
        """Wait for a message; all up to it."""
        await eventually(lambda: last in self.hear(), what=f"{last} is heard")
        return self.heard


class Chatter:
    """Numbered messages to a node, one after the other, until it is told to stop."""

    def __init__(self, node: Node, *, pause_seconds: float) -> None:
        self.said: list[str] = []
        self._node = node
        self._pause_seconds = pause_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Chatter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis(port=self._node.port, protocol=2) as client:
            while not self._over.wait(self._pause_seconds):
                client.publish(SAID, f"{self._node.port}-{len(self.said)}")
                self.said.append(f"{self._node.port}-{len(self.said)}")


def ask(node: Node, *command: object, asking: bool = False) -> object:
    """What a node answers; an error is returned."""
    connection = redis.Connection(port=node.port, protocol=2, decode_responses=True)
    connection.connect()
    try:
        if asking:
            connection.send_command("ASKING")
            connection.read_response()
        connection.send_command(*command)
        return connection.read_response()
    except ResponseError as error:
        return error
    finally:
        connection.disconnect()


def links_from(node: Node) -> set[tuple[str, int]]:
    """By which links its peers speak to a node: whose, and made when."""
    found = (dict(zip(row[::2], row[1::2], strict=True)) for row in ask(node, "CLUSTER", "LINKS"))
    return {(link["node"], link["create-time"]) for link in found if link["direction"] == "from"}


async def test_three_primaries_share_all_slots_and_have_a_replica_each(cluster: Cluster) -> None:
    primaries = cluster.primaries

    assert len(primaries) == 3
    assert {len(cluster.replicas_of(primary)) for primary in primaries} == {1}
    assert {cluster.primary_of(slot) for slot in range(0, SLOTS, 1000)} == set(primaries)
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        for n in range(30):
            assert client.set(f"key:{n}", n)
    assert sum(node.send("DBSIZE") for node in primaries) == 30


async def test_the_kill_of_a_primary_loses_neither_what_was_waited_for_nor_a_subscription_on_its_replica(
    cluster: Cluster,
) -> None:
    primary = cluster.primary_of("kept")
    (replica,) = cluster.replicas_of(primary)
    subscription = Subscription(replica)
    with redis.Redis(port=primary.port, protocol=2) as client:
        client.set("kept", "1")
        assert client.wait(1, 5000) == 1

    other = cluster.other_primary(primary)
    with Chatter(other, pause_seconds=0.002) as chatter:
        promoted = await cluster.kill(primary)
    other.send("PUBLISH", SAID, "the end")

    assert promoted is replica
    assert cluster.send("kept", "GET", "kept") == "1"
    assert await subscription.hears("the end") == [*chatter.said, "the end"]
    promoted.send("PUBLISH", SAID, "of its own")
    await subscription.hears("of its own")

    primary.restart()
    await cluster.whole()
    assert cluster.replicas_of(promoted) == [primary]


async def test_roles_change_when_asked_and_a_blocked_read_is_told(cluster: Cluster) -> None:
    primary = cluster.primary_of("stream")
    primary.send("XGROUP", "CREATE", "stream", "group", "0", "MKSTREAM")
    read = ("XREADGROUP", "GROUP", "group", "me", "BLOCK", 20_000, "STREAMS", "stream", ">")
    blocked = asyncio.create_task(asyncio.to_thread(ask, primary, *read))
    await eventually(lambda: primary.send("INFO", "clients")["blocked_clients"] == 1)

    promoted = await cluster.fail_over(primary)

    assert promoted is not primary
    assert str(await blocked).startswith((str(slot_of("stream")), "UNBLOCKED"))  # MOVED since Valkey 8


async def test_a_slot_moves_key_by_key_and_clients_are_told_to_ask_to_wait_and_to_go(cluster: Cluster) -> None:
    slot = slot_of("{tag}")
    source = cluster.primary_of(slot)
    target = cluster.other_primary(source)
    for name in ("a", "b", "c"):
        source.send("SET", f"{{tag}}{name}", name)
    both, new = (BOTH, 2, "{tag}a", "{tag}b"), (BOTH, 2, "{tag}a", "{tag}new")

    cluster.open(slot, target)
    assert ask(source, "EVAL", *both) == ["a", "b"]
    assert isinstance(ask(source, "EVAL", *new), TryAgainError), "a key that was never made may be at the target"
    assert isinstance(ask(target, "EVAL", *both), MovedError)

    cluster.move_keys(slot, target, 1, ["{tag}a"])
    assert isinstance(ask(source, "GET", "{tag}a"), AskError)
    assert ask(target, "GET", "{tag}a", asking=True) == "a"
    assert isinstance(ask(source, "EVAL", *both), TryAgainError)
    assert isinstance(ask(target, "EVAL", *both, asking=True), TryAgainError)

    while cluster.move_keys(slot, target, 1):
        pass
    await cluster.close(slot, target)
    assert isinstance(ask(source, "GET", "{tag}a"), MovedError)
    assert ask(target, "EVAL", *both) == ["a", "b"]
    assert cluster.primary_of(slot) is target


async def test_a_slot_moves_with_somebody_looking_on_between_its_keys(cluster: Cluster) -> None:
    slot = slot_of("{tag}")
    target = cluster.other_primary(cluster.primary_of(slot))
    for n in range(10):
        cluster.send("{tag}", "SET", f"{{tag}}{n}", n)
    seen: list[int] = []

    async def look() -> None:
        seen.append(target.send("CLUSTER", "COUNTKEYSINSLOT", slot))

    await cluster.migrate(slot, target, keys_at_once=3, between=look)

    assert seen == [3, 6, 9, 10]
    assert cluster.primary_of(slot) is target


async def test_a_slot_moves_as_a_whole_where_the_server_can(cluster: Cluster) -> None:
    slot = slot_of("{tag}")
    target = cluster.other_primary(cluster.primary_of(slot))
    cluster.send("{tag}", "SET", "{tag}a", "a")

    if cluster.migrates_atomically:
        await cluster.migrate_atomically(slot, target)
        assert cluster.primary_of(slot) is target
        assert ask(target, "GET", "{tag}a") == "a"
    else:
        with pytest.raises(ResponseError, match=r"(?i)unknown"):
            await cluster.migrate_atomically(slot, target)


async def test_a_migration_that_the_server_gives_up_is_an_error(cluster: Cluster) -> None:
    slot = slot_of("{tag}")
    source = cluster.primary_of(slot)
    target = cluster.other_primary(source)
    cluster.send("{tag}", "SET", "{tag}a", "a")
    target.stop()

    migrating = asyncio.create_task(cluster.migrate_atomically(slot, target))
    if cluster.migrates_atomically:
        await eventually(lambda: "EXPORT" in str(source.send("CLUSTER", "GETSLOTMIGRATIONS")))
        with contextlib.suppress(ResponseError):  # it has failed by itself by now
            source.send("CLUSTER", "CANCELSLOTMIGRATIONS")
        with pytest.raises(ServerError, match=f"slot {slot} stays at .* (cancelled|failed)"):
            await migrating
    else:
        with pytest.raises(ResponseError, match=r"(?i)unknown"):
            await migrating
    assert ask(source, "GET", "{tag}a") == "a"


async def test_what_a_test_left_broken_is_mended(cluster: Cluster) -> None:
    slot = slot_of("{tag}")
    source = cluster.primary_of(slot)
    cluster.send("{tag}", "SET", "{tag}a", "a")
    cluster.send("{tag}", "SET", "{tag}b", "b")
    target = cluster.other_primary(source)
    cluster.open(slot, target)
    cluster.move_keys(slot, target, 1)
    cluster.replicas_of(source)[0].kill()
    cluster.replicas_of(target)[0].stop()

    await cluster.wipe()

    assert [node.send("DBSIZE") for node in cluster.nodes] == [0] * 6
    assert ask(cluster.primary_of(slot), "GET", "{tag}a") is None


async def test_a_replica_hears_every_node_and_gives_all_its_subscribers_one_order(cluster: Cluster) -> None:
    (replica,) = cluster.replicas_of(cluster.primaries[0])
    first, second = Subscription(replica), Subscription(replica)
    published = 600

    def publish(node: Node) -> None:
        with redis.Redis(port=node.port, protocol=2) as client:
            for n in range(0, published, 20):
                pipeline = client.pipeline(transaction=False)
                for k in range(n, n + 20):
                    pipeline.publish((SAID, NOTED)[k % 2], f"{node.port}-{k}")
                assert set(pipeline.execute()) == {0}, "PUBLISH counts the subscribers of its own node alone"

    await asyncio.gather(*(asyncio.to_thread(publish, node) for node in cluster.primaries))
    for node in cluster.nodes:
        node.send("EVAL", "return redis.call('PUBLISH', ARGV[1], ARGV[2])", 0, SAID, f"{node.port}-script")
    heard = await all_of(first, 3 * published + 6)

    assert heard == await all_of(second, 3 * published + 6)
    for node in cluster.primaries:
        own = [message for message in heard if message.startswith(f"{node.port}-")]
        assert own == [*(f"{node.port}-{n}" for n in range(published)), f"{node.port}-script"]


async def test_what_the_bus_loses_while_a_node_is_stopped_breaks_no_subscription_but_shows_in_its_links(
    cluster: Cluster,
) -> None:
    (replica,) = cluster.replicas_of(cluster.primaries[0])
    subscription, before = Subscription(replica), links_from(replica)
    with Chatter(cluster.primaries[1], pause_seconds=0.002) as chatter:
        await eventually(subscription.hear)
        assert links_from(replica) == before
        replica.stop()
        await eventually(lambda: "fail" in cluster.primaries[1].send("CLUSTER", "NODES"))
        replica.cont()
        await cluster.whole()
    cluster.primaries[1].send("PUBLISH", SAID, "the end")

    heard = await subscription.hears("the end")
    assert set(chatter.said) - set(heard), "some were published while there was no link"
    assert links_from(replica).isdisjoint(before)


async def all_of(subscription: Subscription, count: int) -> list[str]:
    await eventually(lambda: len(subscription.hear()) >= count, what=f"{count} messages are heard")
    return subscription.heard


def test_nothing_of_a_cluster_outlives_the_process_that_started_it() -> None:
    # It is killed while the nodes get to know each other.
    program = (
        "import asyncio\n"
        "from tests.cluster import Cluster\n"
        "async def main():\n"
        "    cluster = Cluster(primaries=2, replicas=0)\n"
        "    forming = asyncio.create_task(cluster.__aenter__())\n"
        "    while not cluster.nodes:\n"
        "        await asyncio.sleep(0.01)\n"
        "    for node in cluster.nodes:\n"
        "        print(node.port, node.server.directory, flush=True)\n"
        "    await forming\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        nodes = [owner.stdout.readline().split() for _ in range(2)]
        owner.kill()

    deadline = time.monotonic() + 10
    while not all(gone(int(port), Path(directory)) for port, directory in nodes):
        assert time.monotonic() < deadline, "a node or its files are left"
        time.sleep(0.02)


def gone(port: int, directory: Path) -> bool:
    try:
        redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0)).ping()
    except redis.ConnectionError:
        return not directory.exists()
    return False
