"""FastStream: a subscriber of a stream with a consumer group.

Its documentation: Redis / Redis Streams / "Consumer Groups" and "Subscription" (`StreamSub(..., group=...,
consumer=..., batch=True, max_records=...)`), "Redis Pipeline" for many commands at once, and the annotation `Redis` for
commands of one's own.
"""

import asyncio
import json
import logging
import sys
from typing import Any

from faststream.redis import RedisBroker, StreamSub
from faststream.redis.annotations import Redis, RedisStreamMessage
from redis.asyncio import Redis as Client

from bench.peers.work import BATCH, FOLD_ONE, Work, fold_many, fold_one, texts

_STREAM = "bench:faststream"
_FILL = 1_000


async def main(mode: str, url: str, count: int) -> None:
    """Run one of `single`, `batch` and `folded`."""
    logging.getLogger("faststream").setLevel(logging.ERROR)
    broker = RedisBroker(url, logger=None)
    work = Work(count)
    stream = {"group": "bench", "consumer": "bench", "max_records": BATCH}

    if mode == "single":

        @broker.subscriber(stream=StreamSub(_STREAM, **stream))
        async def on_event(event: dict[str, Any], message: RedisStreamMessage, redis: Redis) -> None:
            names, arguments = fold_one(message.body, event)
            await redis.evalsha(sha, len(names), *names, *arguments)
            work.done()

    elif mode == "batch":

        @broker.subscriber(stream=StreamSub(_STREAM, batch=True, **stream))
        async def on_events(events: list[dict[str, Any]], redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                for event in events:
                    names, arguments = fold_one(json.dumps(event), event)
                    pipe.evalsha(sha, len(names), *names, *arguments)
                await pipe.execute()
            work.done(len(events))

    else:

        @broker.subscriber(stream=StreamSub(_STREAM, batch=True, **stream))
        async def on_batch(events: list[dict[str, Any]], redis: Redis) -> None:
            await fold_many(redis, ((json.dumps(event), event) for event in events))
            work.done(len(events))

    async with Client.from_url(url) as client:
        sha = await client.script_load(FOLD_ONE)
        await client.xgroup_create(_STREAM, "bench", id="0", mkstream=True)
        await broker.connect()
        pipe = client.pipeline(transaction=False)
        for n, text in enumerate(texts(count), 1):
            await broker.publish(json.loads(text), stream=_STREAM, pipeline=pipe)
            if n % _FILL == 0 or n == count:
                await pipe.execute()
    print(await work.timed(url, broker.start))
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
