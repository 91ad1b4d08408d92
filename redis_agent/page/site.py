"""Serves the status page and the document that it shows.

What is on the page comes from outside: names and texts of events, alerts and definitions. The document carries them as
JSON, the page's one script puts them into text nodes alone, and the browser is told to run nothing else.
"""

import asyncio
import base64
import gzip
import hashlib
import hmac
import ipaddress
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from aiohttp import web
from redis.exceptions import RedisError, ResponseError

from redis_agent import log
from redis_agent.clock import Clock
from redis_agent.page.document import Document

# The document is read at most this often, however many look; and it takes no more than this part of the time.
FRESH_SECONDS: Final = 2.0
_SHARE: Final = 0.2
# An answer comes within this time, also when Redis gives none: then it is the last one, and says so.
_REDIS_SECONDS: Final = 5.0
_GZIP_LEVEL: Final = 5
_VERSION: Final = 1

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Server": "redis-agent",
}
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class _Answer:
    """The document as it is sent: plain and packed, until when it is fresh enough, on the event loop's clock."""

    plain: bytes
    packed: bytes
    until: float


class StatusPage:
    """`/` and `/status.json`.

    Args:
        document: what is shown.
        clock: the time.
        name: of the process that shows it.
        version: of the program.
        token: without it nobody sees the page; "" lets everybody see it who can reach it.
        host: where the endpoint listens. On a loopback address and without a token, requests must name an address of
            this machine: a page elsewhere whose name suddenly means 127.0.0.1 gets nothing.
    """

    def __init__(self, *, document: Document, clock: Clock, name: str, version: str, token: str, host: str) -> None:
        self._document = document
        self._clock = clock
        self._about = {"version": _VERSION, "name": name, "program": version}
        self._token = token.encode()
        self._check_host = not token and _is_loopback(host)
        self._log = log.get("page")
        self._reading = asyncio.Lock()
        self._answer: _Answer | None = None
        self._data: dict[str, Any] | None = None
        self._data_ms = 0
        self._problem = ""
        self._html = resources.files("redis_agent.page").joinpath("index.html").read_bytes()
        self._policy = _policy(self._html.decode())

    def add_routes(self, app: web.Application) -> None:
        """Make them part of an application."""
        app.router.add_get("/", self._page)
        app.router.add_get("/status.json", self._status)

    async def _page(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        if refused is not None:
            return refused
        headers = {**_HEADERS, "Content-Security-Policy": self._policy}
        return web.Response(body=self._html, content_type="text/html", charset="utf-8", headers=headers)

    async def _status(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        if refused is not None:
            return refused
        answer = await self._look()
        headers = {**_HEADERS, "Content-Security-Policy": _NOTHING, "Vary": "Accept-Encoding"}
        body = answer.plain
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers["Content-Encoding"] = answer.packed, "gzip"
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)

    # Who may look ------------------------------------------------------------------------------------------------

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why somebody may not look; None when they may."""
        if self._check_host and not _names_this_machine(request.headers.get("Host", "")):
            return _refuse(
                403, "This page answers to localhost and to addresses. Set REDIS_AGENT_HTTP_TOKEN for names.\n"
            )
        if self._token and not self._knows_token(request):
            return _refuse(
                401,
                "This page needs the token of REDIS_AGENT_HTTP_TOKEN: open /?token=..., "
                "or send it as Authorization: Bearer ...\n",
            )
        return None

    def _knows_token(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = request.query.get("token", "")
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)

    # What they see -----------------------------------------------------------------------------------------------

    async def _look(self) -> _Answer:
        """The document, read anew when it has grown old; one reading serves all who wait for it."""
        async with self._reading:
            loop = asyncio.get_running_loop()
            began = loop.time()
            if self._answer is None or began >= self._answer.until:
                await self._read()
                plain = json.dumps(
                    {
                        **self._about,
                        "at_ms": self._clock.now_ms(),
                        "problem": self._problem,
                        "data_ms": self._data_ms,
                        "data": self._data,
                    },
                    allow_nan=False,
                ).encode()
                packed = gzip.compress(plain, _GZIP_LEVEL)
                # A wait for a server that is away costs nothing; and people want to see soon that it is back.
                ended = loop.time()
                rest = 0.0 if self._problem else (ended - began) / _SHARE
                self._answer = _Answer(plain, packed, max(began + FRESH_SECONDS, ended + rest))
            return self._answer

    async def _read(self) -> None:
        """Read the document; what keeps it from being read is said beside the last one."""
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                self._data = await self._document.read()
            self._data_ms, self._problem = self._clock.now_ms(), ""
        except ResponseError as error:
            self._problem = f"Redis answers: {' '.join(str(error).split())}"[:200]
        except (RedisError, OSError):
            self._problem = "Redis does not answer"
        except Exception as error:  # noqa: BLE001 - what others wrote into Redis may be anything; the page costs only itself
            self._problem = f"the page cannot be made: {type(error).__name__}"
            self._log.error("page_broken", problem=repr(error)[:500])


def _refuse(status: int, text: str) -> web.Response:
    headers = {**_HEADERS, "Content-Security-Policy": _NOTHING}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="redis-agent"'
    return web.Response(status=status, text=text, headers=headers)


def _policy(html: str) -> str:
    """Nothing but the page's own style, script, document and (drawn in place) icon; and no text ever becomes markup."""
    return (
        f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(html: str, tag: str) -> str:
    """What stands in the page's one such element, as a policy names it."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_this_machine(host: str) -> bool:
    """Whether a Host header has an address or localhost, and no name that somebody else can give a meaning."""
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
