"""Each error of the SDK, the network and Google's libraries has its reason and its remedy."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from google.auth import exceptions as google_auth
from google.genai import errors

from redis_agent.analyst import failures
from redis_agent.analyst.failures import Remedy, of_error

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def api_error(code: int, status: str = "", message: str = "", details: Any = None, **headers: str) -> errors.APIError:
    body = {"error": {"code": code, "status": status, "message": message, "details": details}}
    response: Any = SimpleNamespace(headers=headers)
    return errors.APIError(code, body, response)


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (api_error(400, "INVALID_ARGUMENT", "bad"), "bad_request", Remedy.PLAINLY),
        (api_error(400, "INVALID_ARGUMENT", "API key expired. Please renew."), "forbidden", Remedy.OFF),
        (api_error(400, "", "", [{"reason": "API_KEY_INVALID"}]), "forbidden", Remedy.OFF),
        (api_error(400, "FAILED_PRECONDITION", "User location is not supported"), "forbidden", Remedy.OFF),
        (api_error(400, "", "The input token count (9) exceeds the maximum"), "too_large", Remedy.GIVE_UP),
        (api_error(401), "forbidden", Remedy.OFF),
        (api_error(403), "forbidden", Remedy.OFF),
        (api_error(404), "no_model", Remedy.NEXT_MODEL),
        (api_error(400, "", "models/gemini-x is not found for API version v1"), "no_model", Remedy.NEXT_MODEL),
        (api_error(408), "timeout", Remedy.AGAIN),
        (api_error(413), "too_large", Remedy.GIVE_UP),
        (api_error(418), "bad_request", Remedy.GIVE_UP),
        (api_error(429), "rate_limited", Remedy.WAIT),
        (api_error(499), "server_error", Remedy.AGAIN),
        (api_error(500), "server_error", Remedy.AGAIN),
        (api_error(503), "server_error", Remedy.AGAIN),
        (api_error(504), "timeout", Remedy.AGAIN),
        (TimeoutError(), "timeout", Remedy.AGAIN),
        (aiohttp.ServerTimeoutError(), "timeout", Remedy.AGAIN),
        (aiohttp.ServerDisconnectedError(), "unreachable", Remedy.AGAIN),
        (aiohttp.ClientPayloadError("cut"), "unreachable", Remedy.AGAIN),
        (ConnectionResetError(), "unreachable", Remedy.AGAIN),
        (OSError(24, "too many files"), "unreachable", Remedy.AGAIN),
        (google_auth.TransportError("no route"), "unreachable", Remedy.AGAIN),
        (google_auth.DefaultCredentialsError("none"), "forbidden", Remedy.GIVE_UP),
        (google_auth.RefreshError("revoked"), "forbidden", Remedy.GIVE_UP),
        (json.JSONDecodeError("x", "y", 0), "not_json", Remedy.GIVE_UP),
        (errors.UnknownApiResponseError("x"), "not_json", Remedy.GIVE_UP),
        (ValueError("of the SDK"), "server_error", Remedy.GIVE_UP),
    ],
)
def test_error_has_its_reason_and_remedy(error: BaseException, reason: str, remedy: Remedy) -> None:
    found = of_error(error, NOW)
    assert (found.reason, found.remedy) == (reason, remedy)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (api_error(429), 0),
        (api_error(429, **{"Retry-After": "12"}), 12),
        (api_error(429, **{"Retry-After": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}), 90),
        (api_error(429, **{"Retry-After": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}), 0),
        (api_error(429, **{"Retry-After": "soon"}), 0),
        (api_error(429, **{"Retry-After": "-5"}), 0),
        (api_error(429, **{"Retry-After": "9" * 300}), 86_400),
        (
            api_error(429, details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]),
            34.07,
        ),
        (api_error(429, details=[{"@type": "google.rpc.RetryInfo", "retryDelay": {"seconds": 7}}]), 7),
        (api_error(429, details=[{"@type": "google.rpc.RetryInfo", "retryDelay": "x"}, 5, None]), 0),
        (api_error(429, details="odd"), 0),
        (api_error(503, **{"Retry-After": "3"}), 3),
    ],
)
def test_wait_that_the_service_asks_for_is_read(error: errors.APIError, seconds: float) -> None:
    assert of_error(error, NOW).wait_seconds == seconds


@pytest.mark.parametrize("body", [[], [1, 2], {}, {"error": None}, {"error": "text"}, {"error": {"details": {"a": 1}}}])
def test_odd_bodies_of_errors_are_no_errors_of_ours(body: Any) -> None:
    try:
        error: BaseException = errors.ClientError(429, body, None)
    except Exception as found:  # noqa: BLE001 - the SDK itself trips over some
        error = found
    assert of_error(error, NOW).reason in ("rate_limited", "server_error")


def test_what_is_said_is_one_short_line() -> None:
    said = failures.for_log(of_error(api_error(500, "INTERNAL", "a\nb " * 10_000), NOW).said)
    assert said.startswith("500 INTERNAL: a b a b")
    assert len(said) <= 300
