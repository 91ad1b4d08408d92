"""taskiq with taskiq-redis: a task an event, on `RedisStreamBroker`, the broker that acks.

Its documentation: the README of taskiq-redis ("RedisStreamBroker"), and taskiq's guide, "Dynamic Environments"
(`run_receiver_task` with its defaults, which are those of `taskiq worker`). No results are kept. The batches that
taskiq's guide describes are not in the release that is pinned.
"""

import asyncio
import json
import logging
import sys

from redis.asyncio import Redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from bench.peers.work import FOLD_ONE, Work, fold_one, texts


async def main(url: str, count: int) -> None:
    """Run it."""
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    broker = RedisStreamBroker(url=url, consumer_id="0")
    work = Work(count)
    client = Redis.from_url(url, protocol=2)
    sha = await client.script_load(FOLD_ONE)

    @broker.task
    async def fold(data: str) -> None:
        names, arguments = fold_one(data, json.loads(data))
        await client.evalsha(sha, len(names), *names, *arguments)
        work.done()

    await broker.startup()
    for text in texts(count):
        await fold.kiq(text)
    print(await work.timed(url, lambda: run_receiver_task(broker)))
    await broker.shutdown()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
