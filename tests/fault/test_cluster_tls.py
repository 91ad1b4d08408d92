"""A cluster that speaks TLS: agents reach every node over it, by the name that its certificate has."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_agent.embedded import EmbeddedServer, ServerBinary, find_server_binary
from redis_agent.errors import ServerError
from redis_agent.store import keys
from redis_agent.store.partitions import partition_of
from tests.cluster import Cluster, Node, over_tls
from tests.oldest import oldest_server
from tests.processes import ROOT, Agents, unused_port
from tests.waiting import eventually

PARTITIONS = 4
EXPERIMENTS = [f"exp-{n}" for n in range(12)]
CHANNEL, ORCHESTRATOR = "fullsend:metrics", "fullsend:to_orchestrator"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """What `deploy/prepare` makes: an authority, a certificate of localhost, and one of clients."""
    into = tmp_path / "secrets"
    prepare = [ROOT / "deploy" / "prepare", "--tls", "--into", into, "--host", "localhost"]
    subprocess.run(prepare, check=True, capture_output=True)
    return into


@pytest.fixture
def binary(certificates: Path, tmp_path: Path) -> ServerBinary:
    """The server of the other tests if it was built with TLS, else the oldest, which is where there is one."""
    problems = []
    for found in (find_server_binary(), oldest_server(tmp_path)):
        if found is None:
            continue
        try:
            with EmbeddedServer(binary=found, config={"tls-port": str(unused_port()), **over_tls(certificates)}):
                return found
        except ServerError as error:
            problems.append(f"{found}: {str(error).splitlines()[-1]}")
    pytest.skip(f"no server here was built with TLS: {'; '.join(problems)}")


@pytest.fixture
def agents(certificates: Path, tmp_path: Path) -> Iterator[Agents]:
    files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
    options = "&".join(f"{option}={certificates / name}" for option, name in files.items())
    started = Agents(f"rediss://ignored/0?{options}", tmp_path)
    yield started
    started.end()
    for log in started.logs():
        print(log)


def client_of(node: Node, certificates: Path) -> Redis:
    """A service, or the Orchestrator, on this node."""
    return Redis(
        host="localhost",
        port=node.tls_port,
        protocol=2,
        ssl=True,
        ssl_ca_certs=str(certificates / "ca.crt"),
        ssl_certfile=str(certificates / "client.crt"),
        ssl_keyfile=str(certificates / "client.key"),
    )


@pytest.mark.timeout(90)
async def test_agent_in_a_cluster_over_tls_tells_each_alert_once_also_when_a_primary_dies(
    agents: Agents, certificates: Path, binary: ServerBinary
) -> None:
    async with Cluster(binary=binary, certificates=certificates) as cluster:
        agent = agents.start(
            REDIS_AGENT_CLUSTER_NODES=",".join(f"localhost:{node.tls_port}" for node in cluster.nodes),
            REDIS_AGENT_PARTITIONS=PARTITIONS,
            REDIS_AGENT_CONSUMER="agent",
            REDIS_AGENT_DURABILITY="replica",
        )
        for number in range(PARTITIONS):
            await agent.logged("bridge_leads", partition=number)
        lost = cluster.primary_of(keys.namespace(0))
        speaker, ears = (node for node in cluster.primaries if node is not lost)
        async with client_of(speaker, certificates) as service, client_of(ears, certificates) as orchestrator:
            await say_and_hear(service, orchestrator, "broken")
            only_over_tls(cluster)
            await cluster.kill(lost)
            lost.restart()  # as a replica, over TLS, without which nothing is as durable as asked for
            await say_and_hear(service, orchestrator, "broken again")
            only_over_tls(cluster)
        for one in EXPERIMENTS:
            aggregate = keys.namespace(partition_of(one, PARTITIONS)) + keys.aggregate(one)
            assert cluster.send(aggregate, "HGET", aggregate, "error_count") == "2"
        assert await agent.terminate() == 0


async def say_and_hear(service: Redis, orchestrator: Redis, message: str) -> None:
    """An error of each experiment, and its alert, once."""
    told: Counter[str] = Counter()
    async with orchestrator.pubsub() as listener:
        await listener.subscribe(ORCHESTRATOR)
        await listener.get_message(timeout=5)
        for one in EXPERIMENTS:
            await service.publish(CHANNEL, json.dumps({"experiment_id": one, "event": "error", "message": message}))

        async def all_told() -> bool:
            said = await listener.get_message(ignore_subscribe_messages=True, timeout=0.05)
            if said is not None:
                told[json.loads(said["data"])["experiment_id"]] += 1
            return told.keys() == set(EXPERIMENTS)

        await eventually(all_told, 20, what="an alert of each experiment")
        await asyncio.sleep(0.3)  # whoever offered it again would do so by now
        await all_told()
    assert set(told.values()) == {1}


def only_over_tls(cluster: Cluster) -> None:
    """No connection of the agent is to a port without TLS."""
    places = [
        (node, dict(field.split("=", 1) for field in line.split())["laddr"])
        for node in cluster.living
        for line in node.send("CLIENT", "LIST").splitlines()
        if "name=redis-agent:" in line
    ]
    assert places
    assert [place for node, place in places if not place.endswith(f":{node.tls_port}")] == []
