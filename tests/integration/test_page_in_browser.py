"""The status page in a real browser: it renders, lives, and stays harmless, whatever the events are called."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.browser import Tab, browser_tab, find_chromium
from tests.conftest import OwnServerFactory
from tests.integration.flow import DEAD, OUTBOX, publish
from tests.integration.test_page import HOSTILE, TOKEN
from tests.processes import AgentProcess, Agents
from tests.waiting import eventually

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")

# Contrast of every text against what is behind it, as WCAG 2 computes it; the least for large text is 3, else 4.5.
CONTRASTS = """
(() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const ground = rgb(getComputedStyle(e).backgroundColor);
      if (ground.length < 4 || ground[3] > 0) return ground;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, style, noscript")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), large = parseFloat(getComputedStyle(e).fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) poor.push([walker.currentNode.data.slice(0, 40), ratio]);
  }
  return poor;
})()
"""


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    async with browser_tab(CHROMIUM, tmp_path) as opened:
        yield opened


def page_of(agent: AgentProcess, rest: str = "") -> str:
    return f"http://127.0.0.1:{agent.port}/{rest}"


async def test_the_page_shows_what_is_known_and_follows_what_is_published(
    agents: Agents, client: Redis, tab: Tab
) -> None:
    agent = await agents.start(http=True).ready()
    criteria = {"success_criteria": '["replies >= 3"]', "failure_criteria": '["bounces / emails_sent > 5%"]'}
    await client.hset("experiments:exp_live", mapping={**criteria, "state": "running"})
    await client.publish(
        "fullsend:metrics", json.dumps({"experiment_id": "exp_live", "event": "email_sent", "count": 40})
    )

    await tab.open(page_of(agent))
    await tab.says("exp_live")
    await tab.says("1 event,")
    await tab.evaluate("document.querySelector('article').isTheSame = true")
    await tab.evaluate("document.querySelector('article summary').click()")
    await tab.says("email_sent")

    await publish(client, experiment_id="exp_live", event="bounce", count=30)
    await publish(client, experiment_id="exp_live", event="reply", count=4)

    await tab.says("✕ met, confirmed")
    await tab.says("✓ met")
    await tab.says("1 experiment fails")
    await tab.says("is above the failure threshold")
    # Nodes stay, so that what somebody opened, selected or focused does; reasons and hours are still open.
    assert await tab.evaluate("document.querySelector('article').isTheSame")
    assert await tab.evaluate("document.querySelector('article details').open")
    assert await tab.evaluate("document.querySelectorAll('article table').length") == 2
    assert await tab.evaluate("document.querySelector('.criteria svg .mark') !== null")
    assert "fails" in await tab.evaluate("document.title")

    # Nobody has to watch it move.
    await tab.evaluate("document.getElementById('pause').focus(); document.getElementById('pause').click()")
    await tab.says("paused")
    assert await tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert tab.problems == []


async def test_hostile_names_are_letters_on_the_page_and_nothing_else(agents: Agents, client: Redis, tab: Tab) -> None:
    agent = await agents.start(http=True).ready()
    for n, text in enumerate(HOSTILE):
        hostile = json.dumps([text, f"{text} > 1"])
        await client.zadd("redis_agent:experiments", {text: 1_000 + n})
        await client.hset(
            f"experiments:{text}", mapping={"hypothesis": text, "state": text, "failure_criteria": hostile}
        )
        await client.hset(f"metrics_aggregated:{text}", mapping={f"{text}_count": "3", text: text, "events_total": "3"})
        await client.zadd("redis_agent:replicas", {f"{text}|{text}": 9e15})
        await client.xadd(DEAD, {"data": text.encode(), "reason": text})
        await client.xadd(OUTBOX, {"data": json.dumps({"type": text, "experiment_id": text, "message": text})})

    await tab.screen(360, 800, mobile=True)
    await tab.open(page_of(agent))
    await tab.says("<img src=x onerror=alert(1)>")
    await tab.evaluate("for (const s of document.querySelectorAll('summary')) s.click()")
    await tab.says("</script><script>alert(1)</script>")

    assert await tab.evaluate("document.querySelectorAll('img, iframe, object, embed, base, form').length") == 0
    assert await tab.evaluate("document.querySelectorAll('script').length") == 1
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.problems == []


async def test_it_fits_a_phone_reads_in_the_dark_and_has_a_text_for_every_drawing(
    agents: Agents, client: Redis, tab: Tab
) -> None:
    agent = await agents.start(http=True).ready()
    criteria = '["replies / emails_sent >= 8%", "replies > 1", "a criterion nobody understands at all"]'
    await client.hset("experiments:exp", mapping={"success_criteria": criteria, "failure_criteria": criteria})
    for event in ("email_sent", "reply"):
        await publish(client, event=event, count=30, some_gauge_with_a_long_name_that_goes_on=3.5)
    await client.xadd(DEAD, {"data": b"{" * 5000, "reason": "not_json"})
    await tab.screen(360, 780, mobile=True)
    await tab.open(page_of(agent))
    await tab.says("✓ met")

    grounds = []
    for scheme in ("light", "dark"):
        for width in (320, 390, 768, 1280):
            await tab.screen(width, 800, mobile=width < 700)
            await tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            wide = await tab.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px on a screen of {width}"
        assert await tab.evaluate(CONTRASTS) == []
        grounds.append(await tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert await tab.evaluate("getComputedStyle(document.querySelector('.bar')).transitionDuration") == "0s"
    assert grounds[0] != grounds[1]
    svgs = "[...document.querySelectorAll('svg')]"
    assert await tab.evaluate(f"{svgs}.every((s) => s.closest('[aria-hidden]') || s.getAttribute('aria-label'))")
    assert await tab.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption.textContent)")
    assert await tab.evaluate(
        "[...document.querySelectorAll('section')].every((s) => s.hasAttribute('aria-labelledby'))"
    )
    assert tab.problems == []


async def test_the_token_in_the_address_is_used_and_taken_out_of_it(agents: Agents, tab: Tab) -> None:
    agent = await agents.start(http=True, REDIS_AGENT_HTTP_TOKEN=TOKEN).ready()

    await tab.open(page_of(agent, f"?token={TOKEN}"))
    await tab.says("Replicas")
    await tab.says("(leads)")

    assert await tab.evaluate("location.href") == page_of(agent)
    assert await tab.evaluate("localStorage.length + sessionStorage.length") == 0
    assert tab.problems == []


async def test_when_redis_or_the_process_goes_the_page_says_so_and_stays(
    own_server: OwnServerFactory, tmp_path: Path, tab: Tab
) -> None:
    server = own_server()
    agents = Agents(server.url, tmp_path)
    try:
        agent = await agents.start(http=True).ready()
        await tab.open(page_of(agent))
        await tab.says("(leads)")
        server.kill()
        await tab.says("Redis is away", 25)
        await tab.says("(leads)")
        assert tab.problems == []
        agent.kill()
        await tab.says("This process does not answer any more")
        await tab.says("(leads)")

        async def noticed() -> bool:
            return "▲" in await tab.evaluate("document.title")

        await eventually(noticed)
    finally:
        agents.end()
