"""The table of failures against what servers, redis-py and the network really come up with."""

import asyncio
import contextlib
import errno
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError

from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.aggregates import Aggregates
from redis_agent.store.client import connect
from redis_agent.store.definitions import Definitions
from redis_agent.store.failures import CLASSES, CODES, FAILURES, OS_CLASSES, OS_CODES, PHRASES, Remedy, classify
from redis_agent.store.outbox import Outbox
from tests.conftest import OwnServerFactory
from tests.processes import unused_port
from tests.waiting import eventually


def self_signed(path: Path) -> Path:
    """A certificate for "localhost" and its key, trusted by nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()) + certificate.public_bytes(pem))
    return path


async def failing(answer: Awaitable[object]) -> Exception:
    """What it fails with."""
    with pytest.raises(Exception) as caught:
        await answer
    return caught.value


@contextlib.asynccontextmanager
async def client_of(url: str, **replace: str) -> AsyncIterator[Redis]:
    for old, new in replace.items():
        url = url.replace(old, new)
    client = connect(Address(url), name="test-failures")
    try:
        yield client
    finally:
        await client.aclose()


# Completeness -----------------------------------------------------------------------------------------------------


def test_every_exception_class_of_redis_py_has_its_place_in_the_table() -> None:
    """A new one in an upgrade is noticed here."""
    listed = {cls for cls, _ in CLASSES}
    defined = {
        cls
        for cls in vars(redis.exceptions).values()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == redis.exceptions.__name__
    }
    assert defined - listed == set()


def test_every_code_that_redis_py_knows_is_in_the_table() -> None:
    assert set(BaseParser.EXCEPTION_CLASSES) - {"ERR"} - set(CODES) == set()


def test_no_class_hides_behind_a_more_general_one_of_another_kind() -> None:
    for table in (CLASSES, OS_CLASSES):
        for n, (cls, kind) in enumerate(table):
            before = next(k for earlier, k in table[: n + 1] if issubclass(cls, earlier))
            assert before == kind, cls


def test_every_kind_can_come_up_and_says_what_it_means() -> None:
    named = {kind for _, kind in (*CODES.items(), *OS_CODES.items(), *OS_CLASSES, *CLASSES)}
    named |= {kind for *_, kind in PHRASES}
    assert named == set(FAILURES)
    for failure in FAILURES.values():
        assert len(failure.meaning) > 10
        assert not failure.meaning.endswith(".")


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_is_recognised_alone_with_a_dash_and_inside_a_script(code: str) -> None:
    said = "3999 127.0.0.1:6381" if code in ("MOVED", "ASK") else "something"
    kind = CODES[code]
    assert classify(BaseParser.parse_error(f"{code} {said}")).kind == kind
    assert classify(redis.exceptions.ResponseError(f"{code} {said} script: 0123abc, on @user_script:1.")).kind == kind
    older = f"ERR Error running script (call to f_0123abc): @user_script:1: -{code} {said}"
    assert classify(BaseParser.parse_error(older)).kind == kind
    assert classify(BaseParser.parse_error(f"EXECABORT Transaction discarded because of: {code} {said}")).kind in (
        kind,
        "execabort",
    )


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("ERR max number of clients reached", "maxclients"),
        ("ERR max number of clients + cluster connections reached", "maxclients"),
        ("ERR The user executing the script can't run this command or subcommand script: 01", "noperm"),
        ("NOPERM ACL failure in script: User weak has no permissions to run the 'incr' command script: 01", "noperm"),
        ("ERR Lua script killed by user with SCRIPT KILL.", "script_killed"),
        ("ERR Can not execute the command on a stale replica script: 01", "masterdown"),
        ("ERR Protocol error: invalid bulk length", "protocol"),
        ("ERR Client sent AUTH, but no password is set", "auth"),
        ("ERR invalid password", "auth"),
        ("ERR hash value is not an integer", "response"),
        ("ERR value for key OOM or NOGROUP is odd", "response"),
        ("SOMETHING nobody has heard of", "response"),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
         "instance_changed"),
    ],
)  # fmt: skip
def test_replies_in_words_are_recognised(reply: str, kind: str) -> None:
    assert classify(BaseParser.parse_error(reply)).kind == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "dns"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refused"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "connection"),
        (OSError(errno.EMFILE, "too many open files"), "too_many_files"),
        (OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        (ssl.SSLCertVerificationError("expired"), "tls_certificate"),
        (asyncio.IncompleteReadError(b"", 1), "connection"),
        (TimeoutError(), "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_errors_of_the_system_are_recognised_bare_and_wrapped_by_redis_py(error: Exception, kind: str) -> None:
    assert classify(error).kind == kind
    wrapped = redis.exceptions.ConnectionError("Error connecting")
    wrapped.__context__ = error
    assert classify(wrapped).kind == kind


def test_other_classes_are_recognised() -> None:
    assert classify(MasterNotFoundError("none")).remedy is Remedy.PAUSE
    assert classify(redis.exceptions.MaxConnectionsError("full")).kind == "pool"
    assert classify(hiredis.ProtocolError("junk")).kind == "protocol"
    assert classify(redis.exceptions.DataError("None")).remedy is Remedy.FATAL
    assert classify(KeyError("x")).kind == "other"


# Real replies -----------------------------------------------------------------------------------------------------

WRITE = "return redis.call('SET', KEYS[1], 'x')"


async def both_fail(client: Redis, kind: str) -> None:
    """A write fails in this way, by itself and inside a script."""
    assert classify(await failing(client.set("k", "x"))).kind == kind
    assert classify(await failing(client.eval(WRITE, 1, "k"))).kind == kind


async def test_no_password_and_a_wrong_one(own_server: OwnServerFactory) -> None:
    url = own_server(requirepass="right").url
    async with client_of(url, **{":right@": ""}) as client:
        await both_fail(client, "noauth")
    async with client_of(url, right="wrong") as client:
        await both_fail(client, "wrongpass")


async def test_rights_that_are_missing(own_server: OwnServerFactory) -> None:
    url = own_server().url
    async with client_of(url) as admin, client_of(url, **{"redis://": "redis://weak:secret@"}) as weak:
        await admin.execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "&*", "+@all", "-set")
        await both_fail(weak, "noperm")
        await admin.execute_command("ACL", "SETUSER", "weak", "+@all", "resetkeys", "~other")
        await both_fail(weak, "noperm")
        await admin.execute_command("ACL", "SETUSER", "weak", "resetchannels")
        assert classify(await failing(weak.publish("c", "x"))).kind == "noperm"


async def test_what_a_server_refuses_as_a_whole(own_server: OwnServerFactory) -> None:
    server = own_server(dbfilename="dump.rdb")
    async with client_of(server.url) as client:
        for name, value, kind in (("maxmemory", "1", "oom"), ("min-replicas-to-write", "1", "noreplicas")):
            await client.config_set(name, value)
            await both_fail(client, kind)
            await client.config_set(name, "0")

        await client.execute_command("REPLICAOF", "127.0.0.1", str(unused_port()))
        await both_fail(client, "readonly")
        await client.config_set("replica-serve-stale-data", "no")
        assert classify(await failing(client.get("k"))).kind == "masterdown"
        assert classify(await failing(client.eval("return 1", 0))).kind == "masterdown"
        await client.execute_command("REPLICAOF", "NO", "ONE")

        (server.directory / "dump.rdb").mkdir()
        await client.config_set("save", "3600 1000000")
        await client.bgsave()
        await eventually(lambda: refuses(client, "MISCONF"))
        await both_fail(client, "misconf")


async def refuses(client: Redis, code: str) -> bool:
    try:
        await client.set("k", "x")
    except redis.exceptions.RedisError as error:
        return code in str(error)
    return False


async def test_what_a_server_refuses_of_one_command(own_server: OwnServerFactory) -> None:
    url = own_server().url
    async with client_of(url) as client:

        async def kind(*command: Any) -> str:
            return classify(await failing(client.execute_command(*command))).kind

        await client.rpush("list", "x")
        assert await kind("INCR", "list") == "wrongtype"
        assert await kind("EVAL", "return redis.call('INCR', KEYS[1])", 1, "list") == "wrongtype"
        assert await kind("XREADGROUP", "GROUP", "g", "c", "STREAMS", "none", ">") == "nogroup"
        assert await kind("EVAL", "return redis.call('XPENDING', KEYS[1], 'g')", 1, "none") == "nogroup"
        assert await kind("XGROUP", "CREATE", "none", "g", "0") == "nogroup"
        await client.xgroup_create("stream", "g", mkstream=True)
        assert await kind("XGROUP", "CREATE", "stream", "g", "0") == "exists"
        assert await kind("NONSENSE") == "unknown_command"
        assert await kind("XGROUP", "NONSENSE", "stream") == "unknown_command"
        assert await kind("EVAL", "return redis.call('NONSENSE')", 0) == "unknown_command"
        assert await kind("EVALSHA", "0" * 40, 0) == "noscript"
        assert await kind("RESTORE", "list", 0, await client.dump("list")) == "exists"
        assert await kind("HINCRBY", "hash", "f", "x") == "response"
        assert await kind("SCRIPT", "KILL") == "response"  # NOTBUSY
        assert await kind("HELLO", "9") == "noproto"
    async with client_of(url, **{"/0": "/99"}) as client:
        assert classify(await failing(client.ping())).kind == "database"


async def test_what_fails_in_a_pipeline_is_recognised(own_server: OwnServerFactory) -> None:
    async with client_of(own_server(min_replicas_to_write="1").url) as client, client.pipeline() as pipe:
        pipe.hset("it's OOM", "k", "x")
        assert classify(await failing(pipe.execute())).kind == "noreplicas"


async def test_a_missing_right_is_not_taken_for_a_fault_of_an_experiments_key(own_server: OwnServerFactory) -> None:
    url = own_server().url
    async with client_of(url) as admin, client_of(url, **{"redis://": "redis://weak:secret@"}) as weak:
        await admin.execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "+@all", "-hgetall")
        for reading in (Definitions(weak).read(["e"]), Aggregates(weak).read(["e"]), Outbox(weak).states(["e"])):
            assert classify(await failing(reading)).kind == "noperm"


@pytest.mark.parametrize("key", sorted(keys.SHARED_TYPES))
async def test_a_shared_key_of_the_wrong_type_is_named(raw: Redis, key: str) -> None:
    await raw.execute_command("SET" if keys.SHARED_TYPES[key] != "string" else "SADD", key, "x")
    command = {"string": "GET", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN"}[
        keys.SHARED_TYPES[key]
    ]
    for answer in (raw.execute_command(command, key), raw.eval(f"return redis.call('{command}', KEYS[1])", 1, key)):
        error = await failing(answer)
        assert classify(error).kind == "wrongtype"
        assert f"the key {key} is a " in str(error)


async def test_a_blocked_read_that_ends(own_server: OwnServerFactory) -> None:
    url = own_server().url
    async with client_of(url) as client, client_of(url) as reader:
        await client.xgroup_create("stream", "g", mkstream=True)

        async def ended_by(*command: str) -> str:
            reading = asyncio.create_task(failing(reader.xreadgroup("g", "c", {"stream": ">"}, block=9000)))
            blocked = await eventually(lambda: blocked_clients(client), what="it reads")
            await client.execute_command(*(word.format(id=blocked[0]) for word in command))
            return classify(await reading).kind

        assert await ended_by("CLIENT", "UNBLOCK", "{id}", "ERROR") == "unblocked_by_hand"
        assert await ended_by("XGROUP", "DESTROY", "stream", "g") in ("nogroup", "unblocked")
        await client.xgroup_create("stream", "g", mkstream=True)
        assert await ended_by("DEL", "stream") in ("nogroup", "unblocked")
        await client.xgroup_create("stream", "g", mkstream=True)
        assert await ended_by("REPLICAOF", "127.0.0.1", str(unused_port())) == "instance_changed"


async def blocked_clients(client: Redis) -> list[str]:
    return [c["id"] for c in await client.client_list() if "b" in c["flags"]]


async def test_a_script_that_runs_for_long_and_is_killed(own_server: OwnServerFactory) -> None:
    url = own_server(busy_reply_threshold="1").url
    async with client_of(url) as client, client_of(url) as other:
        await client.ping()
        running = asyncio.create_task(failing(other.eval("while true do end", 0)))
        await eventually(lambda: refuses(client, "BUSY"))
        await both_fail(client, "busy")
        await client.script_kill()
        assert classify(await running).kind == "script_killed"


async def test_a_server_that_reads_its_data_set(own_server: OwnServerFactory) -> None:
    server = own_server(enable_debug_command="yes", loading_process_events_interval_bytes="1024")
    async with client_of(server.url) as client, client_of(server.url) as other:
        await client.mset({f"key {n}": "x" * 100 for n in range(1000)})
        await client.config_set("key-load-delay", "1000")
        loading = asyncio.create_task(other.execute_command("DEBUG", "RELOAD"))
        await eventually(lambda: refuses(client, "is loading"))
        await both_fail(client, "loading")
        await client.config_set("key-load-delay", "0")
        await loading


async def test_a_server_that_takes_no_more_connections(own_server: OwnServerFactory) -> None:
    url = own_server().url
    async with client_of(url) as client, client_of(url) as late:
        await client.config_set("maxclients", "1")
        await both_fail(late, "maxclients")


# The network ------------------------------------------------------------------------------------------------------


async def kind_at(url: str) -> str:
    async with client_of(url) as client:
        return classify(await failing(client.ping())).kind


async def test_nobody_listens_or_only_somebody_else(tmp_path: Path) -> None:
    assert await kind_at(f"redis://127.0.0.1:{unused_port()}") == "refused"
    assert await kind_at(f"unix://{tmp_path}/none.sock") == "refused"
    answers = {"junk": b"HTTP/1.1 400 Bad Request\r\n\r\n", "nothing": b""}
    for said, kind in (("junk", "protocol"), ("nothing", "connection")):
        async with listening(answers[said]) as port:
            assert await kind_at(f"redis://127.0.0.1:{port}") == kind


async def test_a_certificate_that_nobody_trusts_is_fatal(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "untrusted.pem"))
    async with listening(b"+OK\r\n", context) as port:
        assert await kind_at(f"rediss://localhost:{port}") == "tls_certificate"
    assert FAILURES["tls_certificate"].remedy is Remedy.FATAL


@contextlib.asynccontextmanager
async def listening(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that gives everybody this answer and hangs up."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
