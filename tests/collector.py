"""A collector of traces: takes what is exported to it as OTLP over HTTP, and keeps it."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Exported:
    """A span as it came in."""

    resource: dict[str, Any]
    name: str
    kind: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]

    @property
    def step(self) -> str:
        return self.name.partition(" ")[0]


@dataclass
class Collector:
    url: str = ""
    spans: list[Exported] = field(default_factory=list)

    def traces(self) -> list[dict[str, Exported]]:
        """The spans of each trace by their steps, each step being there once."""
        found: dict[bytes, dict[str, Exported]] = defaultdict(dict)
        for span in self.spans:
            assert span.step not in found[span.trace_id], f"{span.name} is twice in a trace"
            found[span.trace_id][span.step] = span
        return list(found.values())

    async def take(self, request: web.Request) -> web.Response:
        for of in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            resource = _plain(of.resource.attributes)
            self.spans += [_exported(resource, span) for scope in of.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


def _exported(resource: dict[str, Any], span: Any) -> Exported:
    return Exported(
        resource,
        span.name,
        span.kind,
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _plain(span.attributes),
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
