"""Docket (pydocket): a task an event.

Its documentation: "Docket in Production", "Fire-and-Forget Mode" (`execution_ttl=0`, for maximum throughput),
concurrency 50 as in its production worker, and `add_many` to fill. It has no batches. A worker whose slots are taken
sleeps for `minimum_check_interval`: with the default of a quarter of a second, 50 slots do 200 tasks a second however
short they are. Here it is 10 ms.
"""

import asyncio
import json
import logging
import sys
from datetime import timedelta

from docket import Docket, Worker
from redis.asyncio import Redis

from bench.peers.work import FOLD_ONE, Work, fold_one, texts

_CHECK = timedelta(milliseconds=10)


async def main(url: str, count: int) -> None:
    """Run it."""
    logging.getLogger("docket").setLevel(logging.ERROR)
    work = Work(count)
    client = Redis.from_url(url, protocol=2)
    sha = await client.script_load(FOLD_ONE)

    async def fold(data: str) -> None:
        names, arguments = fold_one(data, json.loads(data))
        await client.evalsha(sha, len(names), *names, *arguments)
        work.done()

    async with Docket(name="bench", url=url, execution_ttl=timedelta(0)) as docket:
        docket.register(fold)
        await docket.add_many([docket.call(fold)(text) for text in texts(count)])
        async with Worker(docket, concurrency=50, minimum_check_interval=_CHECK) as worker:
            print(await work.timed(url, worker.run_forever))
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
