"""A client with a namespace names every key with it in front, and nothing else."""

import re
from importlib import resources

import pytest

import redis_agent.store
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.namespace import in_namespace, namespace_of

TAG = "{redis_agent-3}:"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("GET", "a"), ["GET", f"{TAG}a"]),
        (("GET", b"a"), ["GET", f"{TAG}a".encode()]),
        (("SET", "a", "b", "EX", 3), ["SET", f"{TAG}a", "b", "EX", 3]),
        (("DEL", "a", "b"), ["DEL", f"{TAG}a", f"{TAG}b"]),
        (("MGET", "a", "b"), ["MGET", f"{TAG}a", f"{TAG}b"]),
        (("EVALSHA", "sha", 2, "a", "b", "c"), ["EVALSHA", "sha", 2, f"{TAG}a", f"{TAG}b", "c"]),
        (("EVALSHA", "sha", 0, "c"), ["EVALSHA", "sha", 0, "c"]),
        (("XINFO GROUPS", "a"), ["XINFO GROUPS", f"{TAG}a"]),
        (("XINFO", "GROUPS", "a"), ["XINFO", "GROUPS", f"{TAG}a"]),
        (
            ("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, b"STREAMS", "a", "b", ">", ">"),
            ["XREADGROUP", "GROUP", "g", "me", "COUNT", 1, b"STREAMS", f"{TAG}a", f"{TAG}b", ">", ">"],
        ),
        (("SCAN", 0, b"MATCH", "a*"), ["SCAN", 0, b"MATCH", f"{TAG}a*"]),
        (("SCAN", 0), ["SCAN", 0, "MATCH", f"{TAG}*"]),
        (("PUBLISH", "channel", "a"), ["PUBLISH", "channel", "a"]),
        (("ACL", "DRYRUN", "user", "GET", "a"), ["ACL", "DRYRUN", "user", "GET", f"{TAG}a"]),
        (("PING",), ["PING"]),
    ],
)
def test_every_key_of_a_command_has_the_namespace_and_nothing_else(
    command: tuple[object, ...], named: list[object]
) -> None:
    assert list(in_namespace(TAG, command)) == named
    assert in_namespace("", command) == command


def test_command_whose_keys_are_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="SORT"):
        in_namespace(TAG, ("SORT", "a"))


def test_no_script_makes_a_name_of_a_key_by_itself() -> None:
    """The client names keys in KEYS alone: a name made in Lua would stand in no namespace."""
    for path in (resources.files(redis_agent.store) / "lua").iterdir():
        if path.name.endswith(".lua"):
            code = re.sub(r"--.*", "", path.read_text("utf-8"))
            assert not re.search(r"'(redis_agent|fullsend|metrics)\b", code), path.name


async def test_what_a_scan_finds_is_named_as_it_was_written(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test", namespace=keys.namespace(3))
    other = connect(Address(redis_url), name="test")
    assert (namespace_of(client), namespace_of(other)) == (TAG, "")
    await client.set(keys.silence("e", None), "1")
    await other.set(keys.silence("f", None), "1")
    assert [key async for key in client.scan_iter(match=keys.SILENCE_PREFIX + "*")] == [
        keys.silence("e", None).encode()
    ]
    assert await other.get(TAG + keys.silence("e", None)) == b"1"
    await client.aclose()
    await other.aclose()


async def test_wrong_type_is_named_with_the_whole_key(redis_url: str) -> None:
    client = connect(Address(redis_url), name="test", namespace=keys.namespace(3))
    await client.set(keys.STREAM, "1")
    with pytest.raises(Exception, match=re.escape(f"the key {TAG}{keys.STREAM} is a string, not a stream")):
        await client.xlen(keys.STREAM)
    await client.aclose()


def test_partitions_are_spread_over_nodes() -> None:
    """Of 8 partitions on 3 equal primaries none has more than 4 or less than 2; likewise with others."""
    from redis.crc import key_slot

    for partitions, nodes, most, least in ((4, 3, 2, 1), (8, 3, 4, 2), (8, 4, 2, 2), (16, 3, 6, 5), (32, 6, 6, 4)):
        tags = [keys.namespace(n) + "any" for n in range(partitions)]
        owners = [key_slot(tag.encode()) * nodes // 16384 for tag in tags]
        counts = [owners.count(node) for node in range(nodes)]
        assert (max(counts), min(counts)) == (most, least)
