"""A stub of Gemini's REST API on 127.0.0.1, which the real SDK talks to: `generateContent`, well and badly.

Each request takes the next reply of the queue; when that is empty, the standing one.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]

GOOD = {
    "status": "at_risk",
    "key_metric": "response_rate",
    "insight": "The response rate of 4.2 % is below the 8 % that were hoped for.",
    "action": "Look at the subject line before sending more.",
}
KEY = "AIzaSyTestKeyOfTheStub0123456789abcdefgh"


@dataclass
class Asked:
    """One request as it came."""

    model: str
    version: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def message(self) -> str:
        return str(self.body["contents"][0]["parts"][0]["text"])

    @property
    def instruction(self) -> str:
        return str(self.body["systemInstruction"]["parts"][0]["text"])

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["generationConfig"]
        return found


@dataclass
class GeminiStub:
    url: str = ""
    standing: Serve | None = None
    queue: deque[Serve] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.asked)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        model = request.match_info["model"].rpartition("/")[2]
        at, version = asyncio.get_running_loop().time(), request.match_info["version"]
        self.asked.append(Asked(model, version, request.path, body, dict(request.headers), at))
        reply = self.queue.popleft() if self.queue else self.standing or answer(GOOD)
        return await reply(request)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[GeminiStub]:
    """The stub, listening; its `url` is what GOOGLE_GEMINI_BASE_URL wants."""
    stub = GeminiStub()
    app = web.Application(client_max_size=10_000_000)
    for prefix in ("models", "publishers/google/models"):
        app.router.add_post(rf"/{{version:v1|v1beta|v1beta1}}/{prefix}/{{model}}:generateContent", stub.serve)
    # With a project, Vertex AI has another path, and a service account asks for a token first.
    of_project = "/{version:v1beta1}/projects/{project}/locations/{location}/publishers/google/models"
    app.router.add_post(of_project + "/{model}:generateContent", stub.serve)
    app.router.add_post("/token", _token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    stub.url = f"http://{host}:{port}"
    try:
        yield stub
    finally:
        await runner.cleanup()


async def _token(_: web.Request) -> web.StreamResponse:
    return web.json_response({"access_token": "ya29.token-of-the-stub", "expires_in": 3600, "token_type": "Bearer"})


# Replies -------------------------------------------------------------------------------------------------------


def answer(value: Any, *, finish: str = "STOP", tokens: tuple[int, int, int] = (100, 20, 5)) -> Serve:
    """A candidate whose text is this value as JSON, or this text as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish}
    return response({"candidates": [candidate]}, tokens)


def response(body: dict[str, Any], tokens: tuple[int, int, int] = (100, 20, 5)) -> Serve:
    usage = dict(zip(("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"), tokens, strict=True))

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.json_response({**body, "usageMetadata": usage, "modelVersion": "stub"})

    return serve


def error(code: int, status: str, message: str, details: list[dict[str, Any]] | None = None, **headers: str) -> Serve:
    body = {"error": {"code": code, "message": message, "status": status, "details": details or []}}

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=code, headers={n.replace("_", "-"): v for n, v in headers.items()})

    return serve


def html(code: int) -> Serve:
    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text="<html><h1>Service Unavailable</h1></html>", content_type="text/html")

    return serve


def hanging() -> Serve:
    async def serve(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return serve


def trickling() -> Serve:
    """The right answer, one byte a second."""

    async def serve(request: web.Request) -> web.StreamResponse:
        body = json.dumps({"candidates": [{"content": {"parts": [{"text": json.dumps(GOOD)}]}}]}).encode()
        reply = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await reply.prepare(request)
        for byte in body:
            await reply.write(bytes([byte]))
            await asyncio.sleep(1)
        return reply

    return serve


def cutting(after: int = 0) -> Serve:
    """Break the connection, before the reply or after some bytes of it."""

    async def serve(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
        if after:
            await reply.prepare(request)
            await reply.write(b'{"candidates": [' + b" " * after)
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0)
        return reply

    return serve


def retry_info(seconds: str) -> list[dict[str, Any]]:
    return [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerDay"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds},
    ]


def modes() -> dict[str, Serve]:
    """Every way in which Gemini was seen, or can be imagined, to answer; by name."""
    quota = "You exceeded your current quota."
    invalid = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    return {
        "good": answer(GOOD),
        "fenced JSON": answer(f"```json\n{json.dumps(GOOD)}\n```"),
        "400": error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
        "400, key invalid": error(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}", invalid),
        "401": error(401, "UNAUTHENTICATED", f"Request had invalid credentials {KEY}."),
        "403": error(403, "PERMISSION_DENIED", f"Your key {KEY} was reported as leaked."),
        "404": error(404, "NOT_FOUND", "models/x is not found for API version v1."),
        "429": error(429, "RESOURCE_EXHAUSTED", quota),
        "429, Retry-After: 1": error(429, "RESOURCE_EXHAUSTED", quota, Retry_After="1"),
        "429, Retry-After: 60": error(429, "RESOURCE_EXHAUSTED", quota, Retry_After="60"),
        "429, RetryInfo 34.5s": error(429, "RESOURCE_EXHAUSTED", quota, retry_info("34.5s")),
        "500": error(500, "INTERNAL", "An internal error has occurred."),
        "503 as HTML": html(503),
        "hanging": hanging(),
        "trickling, a byte a second": trickling(),
        "cutting before the reply": cutting(),
        "cutting within the reply": cutting(200),
        "truncated JSON": answer(json.dumps(GOOD)[:50]),
        "truncated (MAX_TOKENS)": answer(json.dumps(GOOD)[:50], finish="MAX_TOKENS"),
        "not JSON": answer("I am glad to help! The experiment goes well."),
        "wrong schema": answer({**GOOD, "status": "great"}),
        "invented number": answer({**GOOD, "insight": "The response rate is 99.9 %."}),
        "blocked prompt": response({"promptFeedback": {"blockReason": "SAFETY"}}),
        "blocked answer": answer("", finish="SAFETY"),
        "empty candidates": response({"candidates": []}),
        "no text": response({"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}),
    }
