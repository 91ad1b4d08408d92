"""What the agent is doing and what it knows, read from Redis: for the commands and for the status page alike."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from redis_agent.catalogue import parse_definition
from redis_agent.criteria import is_base_field
from redis_agent.experiments import Experiment, judge, with_translations
from redis_agent.maturity import Maturity
from redis_agent.store import keys
from redis_agent.store.definitions import Definition, Definitions
from redis_agent.store.flow import Flow, together
from redis_agent.store.partitions import Partition, Partitions
from redis_agent.store.translations import Translations
from redis_agent.store.union import AllAggregates, AllInspection, answering

_T = TypeVar("_T")


class Parts:
    """Reads one part after the other; a part that the server refuses costs only itself.

    Args:
        lenient: so does one whose server does not answer: there are others.

    Attributes:
        problems: name of a part -> what the server said.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.problems: dict[str, str] = {}
        self._costs_itself = (RedisError, OSError) if lenient else (ResponseError,)
        self._read = 0
        self._refused: Exception | None = None

    async def read(self, name: str, reading: Awaitable[_T]) -> _T | None:
        """The part; None where the server refuses it."""
        try:
            found = await reading
        except self._costs_itself as error:
            self.problems[name] = _said(error)
            self._refused = error
            return None
        self._read += 1
        return found

    def check(self) -> None:
        """Refuse to show a page on which nothing could be read.

        Raises:
            RedisError, OSError: what was the matter with the last.
        """
        if self._refused is not None and not self._read:
            raise self._refused


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


async def read_status(partitions: Partitions, address_shown: str) -> dict[str, Any]:
    """The document that `status --json` prints; what could not be read is null, and `problems` says why.

    Of several partitions it says what they come to together, and each for itself under `partitions`. One that does not
    answer is left out, which is a problem, too.

    Args:
        partitions: all of them.
        address_shown: where they are, without secrets.

    Raises:
        ResponseError: nothing of it may be read.
        RedisError, OSError: no server answers.
    """
    parts = Parts(lenient=partitions.several)
    there = list(partitions.all)
    if partitions.several:
        there, silent = await answering(partitions.all)
        if not there:
            raise next(iter(silent.values()))
        parts.problems |= {f"partition {n}": _said(error) for n, error in silent.items()}
    inspection = AllInspection(there)
    now_ms = await inspection.now_ms()
    info = await parts.read("redis", inspection.server())
    flows = await parts.read("stream", inspection.groups())
    group = together(flows) if flows else None
    dead_letters = await parts.read("dead letters", inspection.dead_letters())
    leaders = {
        role: await parts.read(role, inspection.leaders(lease)) or []
        for role, lease in (
            ("bridge", keys.LEASE_BRIDGE),
            ("scheduler", keys.LEASE_SCHEDULER),
            ("dispatcher", keys.LEASE_DISPATCHER),
        )
    }
    replicas = None
    if there[0] is partitions.home:
        replicas = await parts.read("replicas", inspection.replicas(now_ms))
    else:
        parts.problems["replicas"] = f"they are in partition {partitions.home.number}, which does not answer"
    in_step = await parts.read("in step", inspection.bridges_in_step(now_ms))
    bridge = await parts.read("gaps", inspection.bridge())
    experiments = await parts.read("experiments", inspection.experiment_count())
    alerts = await parts.read("alerts", inspection.alert_counts())
    undelivered = await parts.read("undelivered", inspection.undelivered())
    parts.check()
    return {
        "redis": {"url": address_shown, **_server_facts(info or {}), **await _nodes(partitions)},
        "stream": {
            "length": group and group.length,
            "group_exists": group and group.exists,
            "lag": group and group.lag,
            "pending": group and group.pending,
            "oldest_pending_seconds": group.oldest_pending_ms(now_ms) / 1000 if group and group.pending else None,
            "oldest_unread_seconds": group.oldest_unread_ms(now_ms) / 1000 if group and group.oldest_unread else None,
            "dead_letters": dead_letters,
        },
        "bridge": {
            "leader": _leader(leaders["bridge"]),
            "replicas": None if replicas is None else [r.name for r in replicas if "bridge" in r.roles],
            "in_step": None if in_step is None else len(in_step),
            "gaps": bridge and bridge.gaps,
            "gap_seconds": bridge and bridge.gap_ms / 1000,
            "given_up": bridge and bridge.given_up,
            "written": bridge and bridge.written,
        },
        "scheduler": {"leader": _leader(leaders["scheduler"])},
        "dispatcher": {"leader": _leader(leaders["dispatcher"])},
        "replicas": None
        if replicas is None
        else [
            {
                "name": r.name,
                "roles": r.roles,
                **({"in_step": in_step is not None and r.name in in_step} if "bridge" in r.roles else {}),
            }
            for r in replicas
        ],
        "experiments": experiments,
        "alerts": {
            "total": alerts and alerts.total,
            "delivered": None
            if alerts is None or undelivered is None
            else max(0, alerts.total - alerts.waiting - undelivered),
            "waiting": alerts and alerts.waiting,
            "undelivered": undelivered,
        },
        **({"partitions": _each_partition(there, flows, leaders)} if partitions.several else {}),
        "problems": parts.problems,
    }


def _leader(leaders: Sequence[str | None]) -> str | None:
    """Who leads: of several partitions all who do, and nobody where one of them is led by nobody."""
    return None if None in leaders else ", ".join(sorted(set(filter(None, leaders)))) or None


def _each_partition(
    there: Sequence[Partition], flows: Sequence[Flow] | None, leaders: Mapping[str, Sequence[str | None]]
) -> list[dict[str, Any]]:
    return [
        {
            "partition": partition.number,
            "stream": flows and {"length": flows[n].length, "lag": flows[n].lag, "pending": flows[n].pending},
            **{role: {"leader": of_each[n] if of_each else None} for role, of_each in leaders.items()},
        }
        for n, partition in enumerate(there)
    ]


async def _nodes(partitions: Partitions) -> dict[str, Any]:
    """How the nodes of a cluster are, as one of them has it; nothing where there is no cluster."""
    if partitions.topology is None:
        return {}
    await partitions.topology.refresh()
    nodes = partitions.topology.nodes
    failed = sum(node.failed for node in nodes)
    primaries = sum(node.primary and not node.failed for node in nodes)
    return {"nodes": {"primaries": primaries, "replicas": len(nodes) - primaries - failed, "failed": failed}}


def _server_facts(info: dict[str, Any]) -> dict[str, Any]:
    name = str(info.get("server_name", "redis"))
    return {
        "name": name,
        "version": str(info.get(f"{name}_version", info.get("redis_version", "?"))),
        "role": info.get("role"),
        "used_memory_human": info.get("used_memory_human"),
        "maxmemory_human": info.get("maxmemory_human"),
        "uptime_seconds": info.get("uptime_in_seconds"),
        "connected_clients": info.get("connected_clients"),
        "aof_enabled": bool(info["aof_enabled"]) if "aof_enabled" in info else None,
    }


@dataclass(frozen=True, slots=True)
class _Judged:
    """Verdicts, and what they were found on: the same again where nothing of it has changed."""

    experiment: Experiment
    fields: Mapping[str, str]
    mature: Mapping[str, str] | None
    criteria: list[dict[str, Any]]


class KnownExperiments:
    """What is known of experiments: aggregate, definition and verdicts.

    It remembers those that it was asked for last, so that asking again costs little: a definition is parsed when it has
    changed, and criteria are judged when a number or the hour may make another verdict.

    Args:
        partitions: all of them.
        maturity: which counts are old enough.
        alpha: level of the test of rates.
        min_samples: trials from which a rate counts as early.
        translate: whether translations of criteria that nobody understands are used.
        definitions_seconds: how long a definition is used before it is read again.
    """

    def __init__(
        self,
        partitions: Partitions,
        *,
        maturity: Maturity,
        alpha: float,
        min_samples: int,
        translate: bool,
        definitions_seconds: float = 0.0,
    ) -> None:
        self._aggregates = AllAggregates(partitions)
        self._definitions = Definitions(partitions.wide)
        self._maturity = maturity
        self._alpha = alpha
        self._min_samples = min_samples
        self._translations = Translations(partitions.home.client) if translate else None
        self._definitions_seconds = definitions_seconds
        self._read_at: dict[str, float] = {}
        self._parsed: dict[str, tuple[Definition, Experiment | str]] = {}
        self._judged: dict[str, _Judged] = {}

    async def read(self, ids: Sequence[str], now: datetime) -> dict[str, dict[str, Any]]:
        """Each experiment, as `experiments ID --json` prints it; what is not known of it is empty.

        Raises:
            RedisError, OSError: it could not be read.
        """
        aggregates = await self._aggregates.read(ids)
        mature = await self._maturity.fields(aggregates)
        await self._read_definitions(ids)
        known = {}
        for experiment_id in ids:
            fields = aggregates.get(experiment_id, {})
            definition, parsed = self._parsed[experiment_id]
            problems: list[str] = []
            criteria: list[dict[str, Any]] = []
            state, hypothesis = None, None
            if isinstance(parsed, Experiment):
                state, hypothesis = parsed.state, parsed.hypothesis
                problems += parsed.problems
                criteria = self._criteria(parsed, fields, mature.get(experiment_id), now)
                await asyncio.sleep(0)  # many criteria take a while: others have their turn
            elif parsed:
                problems.append(parsed)
            known[experiment_id] = {
                "experiment_id": experiment_id,
                "defined": definition.exists,
                "state": state,
                "hypothesis": hypothesis,
                "events_total": _whole(fields),
                "rates": {name: _number(value) for name, value in sorted(fields.items()) if not is_base_field(name)},
                "aggregate": fields,
                "criteria": criteria,
                "problems": problems,
            }
        self._keep(frozenset(ids))
        return known

    async def _read_definitions(self, ids: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        wanted = [i for i in ids if i not in self._parsed or now - self._read_at[i] >= self._definitions_seconds]
        if not wanted:
            return
        for experiment_id, definition in (await self._definitions.read(wanted)).items():
            self._read_at[experiment_id] = now
            before = self._parsed.get(experiment_id)
            if before is None or before[0].digest != definition.digest:
                self._parsed[experiment_id] = definition, parse_definition(experiment_id, definition)
                await asyncio.sleep(0)
        if self._translations is not None:
            await self._translate(wanted, self._translations)

    async def _translate(self, ids: Sequence[str], translations: Translations) -> None:
        """Put translations in the place of what nobody understands, where there are some by now."""
        known = {i: parsed for i in ids if isinstance(parsed := self._parsed[i][1], Experiment)}
        found = await translations.of(sorted({key for parsed in known.values() for key in parsed.untranslated}))
        for experiment_id, parsed in known.items() if found else ():
            self._parsed[experiment_id] = self._parsed[experiment_id][0], with_translations(parsed, found)

    def _criteria(
        self, experiment: Experiment, fields: Mapping[str, str], mature: Mapping[str, str] | None, now: datetime
    ) -> list[dict[str, Any]]:
        last = self._judged.get(experiment.id)
        if (
            last is None
            or experiment.has_time_clauses
            or last.experiment is not experiment
            or last.fields != fields
            or last.mature != mature
        ):
            verdicts = judge(
                experiment, fields, now=now, alpha=self._alpha, min_samples=self._min_samples, mature=mature
            )
            last = _Judged(experiment, fields, mature, [verdict.as_json() for verdict in verdicts])
            self._judged[experiment.id] = last
        return last.criteria

    def _keep(self, ids: frozenset[str]) -> None:
        """Forget the others."""
        for memory in (self._read_at, self._parsed, self._judged):
            for gone in memory.keys() - ids:
                del memory[gone]


def _whole(fields: Mapping[str, str]) -> int:
    text = fields.get("events_total", "0")
    return int(text) if text.isdecimal() else 0


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return value if value - value == 0 else text  # NaN and infinities are no JSON
