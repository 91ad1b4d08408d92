"""The bridges' scripts and the model that the explorer runs them as never differ."""

import random
from collections import deque
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from redis_agent.lockstep import Announcement, Batch, Claim
from redis_agent.store import keys
from redis_agent.store.address import Address
from redis_agent.store.client import connect
from redis_agent.store.mirror import DeafError, Mirror
from tests.bridges.server_model import TTL_MS, ServerModel
from tests.mirrors import mirror_of
from tests.seeds import SEED

OWNERS = ("ann", "bob", "cyd")
EPOCHS = ("", "e1", "e2", "e3")
STEPS = (
    *("claim", "claim", "claim", "claim", "renew", "release", "broken", "announce", "write", "write"),
    *("lease", "sign", "subscription", "time", "time", "time"),
)
# In lease times; no sum of them comes near a whole lease time or half of one, where real time would make a difference.
PASSED = (0.23, 0.41, 1.3)


@pytest.mark.parametrize("seed", range(SEED, SEED + 12))
async def test_random_scripts_answer_and_say_what_the_model_does(redis_url: str, client: Redis, seed: int) -> None:
    raw = connect(Address(redis_url), name="model")
    rng = random.Random(seed)
    model = ServerModel()
    inbox = model.inboxes["listener"] = deque()
    mirrors = {owner: mirror_of(raw, owner=owner, ttl_ms=TTL_MS) for owner in OWNERS}
    events = iter(range(10**6))
    try:
        async with raw.pubsub() as listener, raw.pubsub() as bridges:
            await listener.subscribe(mirrors["ann"].channel)
            await listener.get_message(timeout=5)
            for owner, mirror in mirrors.items():
                await subscribe(model, bridges, mirror, owner)
            first_token: int | None = None
            for step in range(150):
                real, expected = await one_step(rng, model, mirrors, bridges, events)
                if first_token is None and model.lease:
                    # Real tokens start at the time of the day, the model's at 1.
                    first_token = int((await raw.get(keys.LEASE_BRIDGE) or b"0.").partition(b".")[0]) - 1
                shift = first_token or 0
                assert shown(real, shift) == shown(expected, 0), f"seed {seed}, step {step}"
                said = []
                while (message := await listener.get_message(timeout=0.01 if not inbox else 5)) is not None:
                    said.append(message["data"])
                    if len(said) >= len(inbox):
                        break
                assert said == [message for _, message in inbox], f"seed {seed}, step {step}"
                inbox.clear()
            entries = [fields[b"data"] for _, fields in await raw.xrange(keys.STREAM)]
            assert entries == model.stream
            assert int(await raw.hget(keys.BRIDGE, "given_up") or 0) == model.hash.given_up
            assert int(await raw.hget(keys.BRIDGE, "gaps") or 0) == model.hash.gaps
    finally:
        await raw.aclose()


def shown(answer: Any, shift: int) -> str:
    """An answer without what no model can know: times, and where tokens start."""
    value = getattr(answer, "value", None)
    if value is not None:
        token, _, offered_by = value.partition(".")
        lease = f"{int(token) - shift}.{offered_by}"
        return f"{lease} {answer.written} {answer.epoch} {answer.epoch_before} {answer.continues}"
    return repr(answer)


async def one_step(
    rng: random.Random, model: ServerModel, mirrors: dict[str, Mirror], bridges: PubSub, events: Any
) -> tuple[Any, Any]:
    raw = mirrors["ann"]._client
    owner, epoch, new_epoch = rng.choice(OWNERS), rng.choice(EPOCHS), rng.choice(EPOCHS[1:])
    mirror = mirrors[owner]
    mine = rng.random() < 0.8 and bool(model.lease)
    value = (await raw.get(keys.LEASE_BRIDGE) or b"9:ghost").decode() if mine else "9:ghost"
    modelled = model.lease if mine else "9:ghost"
    if mine:
        owner = value.partition(":")[2]
        mirror = mirrors[owner]
    if rng.random() < 0.5:
        epoch = model.hash.epoch or epoch
    match rng.choice(STEPS):
        case "claim":
            owner = rng.choice(OWNERS)
            new_epoch = f"{new_epoch}-{next(events)}"
            return (
                await or_deaf(mirrors[owner].claim(epoch=epoch, new_epoch=new_epoch)),
                await or_deaf(modelled_claim(model, owner, epoch, new_epoch)),
            )
        case "renew":
            said = {"epoch": epoch, "mark": rng.choice(["", "m1", "m2"]), "confirmed": rng.choice([None, 1])}
            return await mirror.renew(value, **said), model.renew(owner, modelled, **said)
        case "release":
            return await mirror.release(value), model.release(owner, modelled)
        case "broken":
            new_epoch = rng.choice(["", "", new_epoch])
            gap, may_yield = rng.random() < 0.5, rng.random() < 0.5
            return (
                await mirror.broken(value, new_epoch=new_epoch, gap_ms=5 if gap else None, may_yield=may_yield),
                model.broken(owner, modelled, new_epoch=new_epoch, gap=gap, may_yield=may_yield),
            )
        case "announce":
            said = Announcement(epoch, "m", 7)
            return await mirror.announce(value, said), model.announce(modelled, str(said))
        case "write":
            first = max(1, model.hash.written + rng.randint(-3, 3))
            given_up_from = max(1, first - rng.randint(0, 3))
            batch = Batch(first, given_up_from, [(1, b"%d" % next(events)) for _ in range(rng.randint(1, 4))])
            wanted = {"epoch": epoch, "batch": batch, "confirmed": rng.choice([None, 1])}
            return await mirror.write(value, **wanted), model.write(modelled, **wanted)
        case "lease":
            await raw.delete(keys.LEASE_BRIDGE)
            model.lease = ""
        case "sign":
            gone = rng.choice(OWNERS)
            await raw.zrem(keys.BRIDGE_READY, gone)
            model._ready(gone, False)
        case "subscription":
            owner = rng.choice(OWNERS)
            if owner not in model.inboxes:
                await subscribe(model, bridges, mirrors[owner], owner)
            elif rng.random() < 0.3:
                del model.inboxes[owner]
                await bridges.unsubscribe(mirrors[owner].alive)
                await bridges.get_message(timeout=5)
        case _:
            await pass_time(raw, model, int(rng.choice(PASSED) * TTL_MS))
    return None, None


async def subscribe(model: ServerModel, bridges: PubSub, mirror: Mirror, owner: str) -> None:
    model.inboxes[owner] = deque()
    await bridges.subscribe(mirror.alive)
    await bridges.get_message(timeout=5)


async def or_deaf(claim: Awaitable[Claim | None]) -> Claim | str | None:
    try:
        return await claim
    except DeafError:
        return "deaf"


async def modelled_claim(model: ServerModel, owner: str, epoch: str, new_epoch: str) -> Claim | None:
    return model.claim(owner, epoch=epoch, new_epoch=new_epoch)


async def pass_time(raw: Redis, model: ServerModel, passed_ms: int) -> None:
    """Make everything that the server has noted older; the lease stays as it is."""
    model.now_ms += passed_ms
    for owner in await raw.zrange(keys.BRIDGE_READY, 0, -1):
        await raw.zincrby(keys.BRIDGE_READY, -passed_ms, owner)
    for name in ("called", "asked"):
        if await raw.hexists(keys.BRIDGE, name):
            await raw.hincrby(keys.BRIDGE, name, -passed_ms)
