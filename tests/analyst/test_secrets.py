"""No key and no URL with a password leaves the process, also when the API repeats it."""

import pytest
from redis.asyncio import Redis

from redis_agent import log
from redis_agent.analyst.gemini import Access
from redis_agent.app import gemini_for
from redis_agent.config import Settings
from redis_agent.store.address import secrets_in
from redis_agent.telemetry import Telemetry
from tests.analyst.conftest import FACTS, Making, ask, came
from tests.gemini_stub import KEY, GeminiStub, error

PASSWORD = "hunter2-very-secret"
URL = f"redis://user:{PASSWORD}@redis:6379/0"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500])
async def test_key_that_the_api_repeats_is_in_no_log(
    stub: GeminiStub, making: Making, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    log.configure(level="info", form="json")  # whatever a test before has made of it
    stub.standing = error(code, "STATUS", f"about {KEY} and {KEY[:20]} and {URL} and key={KEY}", [{"key": KEY}])
    gemini = making(secrets=secrets_in(URL))
    await ask(gemini, seconds=3)
    printed = "".join(capsys.readouterr())
    assert "llm_" in printed or "model_gone" in printed
    assert KEY[:12] not in printed
    assert PASSWORD not in printed


async def test_key_and_password_in_facts_are_in_no_prompt(stub: GeminiStub, making: Making) -> None:
    gemini = making(secrets=secrets_in(URL))
    facts = {**FACTS, "message": f"{KEY} {PASSWORD} {URL}", PASSWORD: {KEY: 1}}
    assert came(await ask(gemini, facts)) == "answer"
    assert KEY not in str(stub.asked[0].body)
    assert PASSWORD not in str(stub.asked[0].body)


async def test_settings_with_everything_secret_show_none_of_it(raw: Redis) -> None:
    settings = Settings(
        redis_url=f"redis://:{PASSWORD}@redis",
        google_api_key=KEY,
        gemini_base_url=f"https://me:{PASSWORD}@proxy.test/x",
    )
    gemini = gemini_for(settings, raw, Telemetry())
    assert gemini.available
    access = Access(api_key=KEY, base_url=f"https://me:{PASSWORD}@proxy.test")
    for shown in (repr(settings), repr(access), repr(vars(gemini))):
        assert KEY not in shown
        assert PASSWORD not in shown
    await gemini.aclose()


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("redis://redis", ()),
        ("redis://:p%2Fw@redis", ("p%2Fw", "p/w")),
        ("rediss://u:pw@redis?ssl_password=other&db=1", ("pw", "other")),
        ("redis://[broken", ("redis://[broken",)),
    ],
)
def test_passwords_of_a_url_are_found_wherever_they_stand(url: str, secrets: tuple[str, ...]) -> None:
    assert secrets_in(url) == secrets
