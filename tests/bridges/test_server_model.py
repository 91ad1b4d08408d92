"""The bridges' scripts and the model that the explorer runs them as never differ."""

import random
from collections import deque
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_agent.lockstep import Announcement, Batch
from redis_agent.store import keys
from redis_agent.store.client import connect
from redis_agent.store.mirror import Mirror
from tests.bridges.server_model import ServerModel

OWNERS = ("ann", "bob", "cyd")
EPOCHS = ("", "e1", "e2", "e3")


@pytest.mark.parametrize("seed", random.sample(range(10**9), 12))
async def test_random_scripts_answer_and_say_what_the_model_does(redis_url: str, client: Redis, seed: int) -> None:
    raw = connect(redis_url, name="model")
    rng = random.Random(seed)
    model = ServerModel()
    inbox = model.inboxes["listener"] = deque()
    mirrors = {owner: Mirror(raw, owner=owner, ttl_ms=600_000) for owner in OWNERS}
    events = iter(range(10**6))
    try:
        async with raw.pubsub() as listener:
            await listener.subscribe(mirrors["ann"].channel)
            await listener.get_message(timeout=5)
            first_token: int | None = None
            for step in range(150):
                real, expected = await one_step(rng, model, mirrors, raw, events)
                if first_token is None and model.lease:
                    # Real tokens start at the time of the day, the model's at 1.
                    first_token = int((await raw.get(keys.LEASE_BRIDGE) or b"0:").partition(b":")[0]) - 1
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
        token, _, owner = value.partition(":")
        return f"{int(token) - shift}:{owner} {answer.written} {answer.epoch} {answer.epoch_before} {answer.continues}"
    return repr(answer)


async def one_step(
    rng: random.Random, model: ServerModel, mirrors: dict[str, Mirror], raw: Redis, events: Any
) -> tuple[Any, Any]:
    owner, epoch, new_epoch = rng.choice(OWNERS), rng.choice(EPOCHS), rng.choice(EPOCHS[1:])
    mirror = mirrors[owner]
    mine = rng.random() < 0.8 and bool(model.lease)
    value = (await raw.get(keys.LEASE_BRIDGE) or b"9:ghost").decode() if mine else "9:ghost"
    modelled = model.lease if mine else "9:ghost"
    if mine:
        owner = value.partition(":")[2]
        mirror = mirrors[owner]
    if rng.random() < 0.6:
        epoch = model.hash.epoch or epoch
    match rng.choice(["claim", "claim", "renew", "release", "broken", "announce", "write", "write", "lease", "sign"]):
        case "claim":
            owner = rng.choice(OWNERS)
            new_epoch = f"{new_epoch}-{next(events)}"
            return (
                await mirrors[owner].claim(epoch=epoch, new_epoch=new_epoch),
                model.claim(owner, epoch=epoch, new_epoch=new_epoch),
            )
        case "renew":
            mark = rng.choice(["", "m1", "m2"])
            return (
                await mirror.renew(value, epoch=epoch, mark=mark, confirmed=None),
                model.renew(owner, modelled, epoch=epoch, mark=mark),
            )
        case "release":
            return await mirror.release(value), model.release(owner, modelled)
        case "broken":
            new_epoch = rng.choice(["", new_epoch])
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
            return (
                await mirror.write(value, epoch=epoch, batch=batch),
                model.write(modelled, epoch=epoch, batch=batch),
            )
        case "lease":
            await raw.delete(keys.LEASE_BRIDGE)
            model.lease = ""
        case _:
            gone = rng.choice(OWNERS)
            await raw.zrem(keys.BRIDGE_READY, gone)
            model._ready(gone, False)
    return None, None
