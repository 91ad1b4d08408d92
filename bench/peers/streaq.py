"""streaQ: a task an event.

Its documentation: "Getting started" and "Tasks" (`enqueue_many`; `ttl=0` keeps no results), "Workers" (defaults;
`worker.redis` is a coredis client). It has no batches.
"""

import asyncio
import json
import sys

from streaq import Worker

from bench.peers.work import FOLD_ONE, Work, fold_one, texts

_FILL = 1_000


async def main(url: str, count: int) -> None:
    """Run it."""
    worker: Worker[None] = Worker(redis_url=url, handle_signals=False)
    work = Work(count)

    @worker.task(ttl=0, silent=True)
    async def fold(data: str) -> None:
        names, arguments = fold_one(data, json.loads(data))
        await worker.redis.evalsha(sha, names, arguments)
        work.done()

    async with worker:
        sha = await worker.redis.script_load(FOLD_ONE)
        all_texts = texts(count)
        for n in range(0, count, _FILL):
            await worker.enqueue_many([fold.enqueue(text) for text in all_texts[n : n + _FILL]])
    print(await work.timed(url, worker.run_async))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
