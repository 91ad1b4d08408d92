"""The HTTP endpoint: /metrics for Prometheus, /healthz (the process lives), /readyz (it does its work), / for people.

/healthz answers also while Redis is away: restarting the process would not bring it back.
"""

import asyncio
import json
from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from redis_agent import log
from redis_agent.clock import Clock
from redis_agent.errors import EndpointError
from redis_agent.page.site import StatusPage
from redis_agent.store.flow import Flow, flow, outbox_flow, together
from redis_agent.telemetry import Liveness, Telemetry

# A loop that has not gone round for so long is stuck.
STALLED_SECONDS = 15.0
# Scrapers and health checks must not load Redis: its answer is used again for so long.
_FRESH_SECONDS = 0.5
# A scrape gets an answer within this time, also when Redis gives none.
_REDIS_SECONDS = 2.0


class Endpoint:
    """Serves the process's state.

    Args:
        clients: of each partition, to ask Redis how its stream flows.
        roles: the roles of this process, shown by /readyz.
        page: the status page at /.
        hindrances: says what else keeps the process from its work, in words; empty when nothing does.
        host, port: where to listen; port 0 serves nothing.
        required: whether a port in use stops the start (it was asked for) or is only said.
    """

    def __init__(
        self,
        *,
        clients: Sequence[Redis],
        telemetry: Telemetry,
        liveness: Liveness,
        clock: Clock,
        roles: frozenset[str],
        page: StatusPage,
        hindrances: Callable[[], list[str]],
        host: str,
        port: int,
        required: bool,
    ) -> None:
        self._clients = clients
        self._telemetry = telemetry
        self._liveness = liveness
        self._clock = clock
        self._roles = roles
        self._page = page
        self._hindrances = hindrances
        self._host = host
        self._port = port
        self._required = required
        self._log = log.get("endpoint")
        self._asking = asyncio.Lock()
        self._asked = -1.0
        self._flow: Flow | None = None
        self._outbox: Flow | None = None
        self._problem = ""
        self._answers = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            EndpointError: the address cannot be had, and it was asked for.
        """
        if self._port == 0:
            return
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._page.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.stop()
            problem = f"cannot listen on {self._host}:{self._port}: {error.strerror or error}"
            if self._required:
                raise EndpointError(f"{problem} (REDIS_AGENT_HTTP_HOST, REDIS_AGENT_HTTP_PORT)") from error
            self._log.error("no_endpoint", problem=problem, remedy="set REDIS_AGENT_HTTP_PORT")
            return
        self._log.info("endpoint", url=f"http://{self._host}:{self._port}/")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _request: web.Request) -> web.Response:
        self._show(await self._look())
        body = generate_latest(self._telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        state = await self._look()
        problems = [
            f"{name} has not gone round for {STALLED_SECONDS:.0f} s" for name in self._liveness.stalled(STALLED_SECONDS)
        ]
        if state is None:
            problems.append(self._problem)
        elif not state.exists and "worker" in self._roles:
            problems.append("the consumer group does not exist")
        problems += self._hindrances()
        answer = {"ready": not problems, "roles": sorted(self._roles), "problems": problems}
        status = 200 if not problems else 503
        return web.json_response(answer, status=status, dumps=lambda a: json.dumps(a) + "\n")

    async def _look(self) -> Flow | None:
        """How the stream flows, at most half a second old; None when Redis does not say."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked > _FRESH_SECONDS:
                self._flow, self._outbox, self._answers = None, None, False
                try:
                    async with asyncio.timeout(_REDIS_SECONDS):
                        self._flow = together(await asyncio.gather(*map(flow, self._clients)))
                        self._answers = True
                        # Other roles may have no right to look at the outbox.
                        if "dispatcher" in self._roles:
                            self._outbox = together(await asyncio.gather(*map(outbox_flow, self._clients)))
                except ResponseError as error:
                    self._answers, self._problem = True, f"Redis answers: {error}"[:200]
                except (RedisError, OSError):
                    self._answers = False
                    self._problem = "Redis does not answer"
                self._asked = asyncio.get_running_loop().time()
            return self._flow

    def _show(self, state: Flow | None) -> None:
        t = self._telemetry
        t.redis_up.set(1 if self._answers else 0)
        lag = None if state is None else state.lag
        # An unknown lag is never shown as 0.
        t.stream_lag.set(float("nan") if lag is None else lag)
        t.stream_lag_known.set(0 if lag is None else 1)
        nan = float("nan")
        t.stream_length.set(nan if state is None else state.length)
        t.pending_entries.set(nan if state is None else state.pending)
        now_ms = self._clock.now_ms()
        waiting = None if self._outbox is None or self._outbox.lag is None else self._outbox
        t.alerts_waiting.set(nan if waiting is None else waiting.pending + (waiting.lag or 0))
        t.oldest_alert.set(nan if self._outbox is None else self._outbox.oldest_ms(now_ms) / 1000)
        t.oldest_pending.set(nan if state is None else state.oldest_pending_ms(now_ms) / 1000)
        t.oldest_unread.set(nan if state is None else state.oldest_unread_ms(now_ms) / 1000)
