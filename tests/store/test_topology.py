"""What the nodes of a cluster say of it, and whom to believe."""

from redis.asyncio import Connection

from redis_agent.store.topology import Node, Topology, read_nodes

NODES = """\
aaa 10.0.0.1:6379@16379,one.example,shard-id=69bc myself,master - 0 1760000000000 7 connected 0-5460 5462
bbb 10.0.0.2:6379@16379,two.example master - 0 1760000000000 2 connected 5461 5463-10922 [93->-aaa]
ccc [fe80::1]:6380@16380 master,fail - 0 1760000000000 3 disconnected 10923-16383
ddd :0@0 slave,noaddr bbb 0 0 2 disconnected
eee :6390@16390 slave bbb 0 0 2 connected
"""


def test_nodes_are_read_as_they_are_listed() -> None:
    nodes = {node.id: node for node in read_nodes(NODES, ("here", 6390))}
    assert nodes.keys() == {"aaa", "bbb", "ccc", "eee"}
    assert nodes["aaa"] == Node("aaa", ("10.0.0.1", 6379), True, False, 7, ((0, 5460), (5462, 5462)))
    assert nodes["ccc"].address == ("fe80::1", 6380)
    assert nodes["ccc"].failed
    assert [node.linked for node in nodes.values()] == [True, True, False, True]
    assert nodes["eee"].address == ("here", 6390)
    assert not nodes["eee"].primary
    assert [n for n in (93, 5461, 5462, 5463) if nodes["bbb"].owns(n)] == [5461, 5463]
    assert read_nodes(NODES, ("here", 1), hostnames=True)[0].address == ("one.example", 6379)


class Told(Topology):
    """Hears what the test says."""

    def __init__(self) -> None:
        super().__init__([("seed", 1)], lambda _: Connection())
        self.answers: list[list[Node]] = []

    async def _ask(self, address: tuple[str, int]) -> list[Node]:  # noqa: ARG002
        return self.answers.pop(0) if self.answers else []


async def test_shard_of_a_slot_is_its_primary_and_the_replicas_of_that() -> None:
    topology = Told()
    topology.answers = [read_nodes(NODES, ("here", 6390))]
    await topology.refresh()
    assert [node.id for node in topology.shard(5461)] == ["bbb", "eee"]
    assert [node.id for node in topology.shard(0)] == ["aaa"]
    assert topology.shard(93 + 16384) == []


async def test_node_that_was_cut_off_is_not_believed() -> None:
    topology = Told()
    old = Node("old", ("old", 1), True, False, 1, ((0, 16383),))
    new = Node("new", ("new", 1), True, False, 2, ((0, 16383),))
    for answer, primary in ((old, "old"), (new, "new"), (old, "new")):
        topology.answers = [[answer]]
        topology._asked_at = -1e9
        await topology.refresh()
        assert (await topology.primary(7))[0] == primary


async def test_cluster_that_was_reset_is_believed_after_a_while() -> None:
    topology = Told()
    topology._nodes = (Node("new", ("new", 1), True, False, 9, ((0, 16383),)),)
    for _ in range(30):
        topology.answers = [[Node("reset", ("reset", 1), True, False, 1, ((0, 16383),))]]
        topology._asked_at = -1e9
        await topology.refresh()
    assert topology.known(7) == ("reset", 1)


async def test_node_that_does_not_answer_is_passed_over() -> None:
    topology = Told()
    topology._nodes = (Node("a", ("a", 1), True, False, 1), Node("b", ("b", 1), True, False, 1, ((0, 16383),)))
    topology.answers = [[], [Node("b", ("b", 2), True, False, 1, ((0, 16383),))]]
    await topology.refresh()
    assert await topology.primary(7) == ("b", 2)
