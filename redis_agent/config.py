"""The settings of the agent: the only module that reads the environment.

Every setting is one field of `Settings`: what it is, its unit, its default and its bounds stand in
one place, and the table in `docs/configuration.md` is generated from there. `Settings(...)` itself
never looks at the environment, so that tests and the demo can build the settings they want;
`load_settings` is the one way in from the outside.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import annotated_types
from pydantic import Field, SecretStr, StringConstraints, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from redis_agent.errors import ConfigError
from redis_agent.store.address import Address, Sentinels, fault_of_url, host_ports, redacted_url
from redis_agent.windows import HOURS_FROM_SECONDS

PREFIX = "REDIS_AGENT_"
FILE_SUFFIX = "_FILE"

# Set by and for others: the test suite's own switches, and what Kubernetes puts into every pod for
# a service that is called `redis-agent`. Neither is a misspelt setting.
_FOREIGN = re.compile(rf"{PREFIX}(TEST_\w+|SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")

_SHOWN_CHARACTERS = 60

Durability = Literal["memory", "disk", "replica"]
Evidence = Literal["early", "confirmed"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]


@dataclass(frozen=True, slots=True)
class Variable:
    """The environment variable that sets a field.

    Attributes:
        name: the variable's whole name, or "" where it is `REDIS_AGENT_` and the field's name.
        unit: what a number counts, in the plural ("seconds"), or "" where there is no number.
        form: what a text must be, for people, where the type does not say it.
    """

    name: str = ""
    unit: str = ""
    form: str = ""


Channel = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^\S+$")]


class Settings(BaseSettings):
    """Every setting of the agent, checked. Immutable; secrets stay out of its repr."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    # --- Redis ------------------------------------------------------------------------

    redis_url: Annotated[
        SecretStr,
        Variable("REDIS_URL", form="a URL that begins with redis://, rediss:// or unix://"),
    ] = Field(SecretStr("redis://redis:6379"), description="The Redis (7.0 or later) or Valkey server.")

    sentinels: Annotated[str, Variable(form="host:port of each Sentinel, separated by commas")] = Field(
        "",
        max_length=2_000,
        description="The Sentinels to ask for the master's address; any of them may be down. Then the host and port "
        "of `REDIS_URL` are not used, but its user, password, database and TLS options are. Empty: none.",
    )
    sentinel_master: Annotated[str, Variable(form="the name under which the Sentinels watch the master")] = Field(
        "",
        max_length=200,
        pattern=r"^\S*$",
        description="The master's name at the Sentinels.",
    )
    sentinel_username: Annotated[str, Variable(form="a user's name, without spaces")] = Field(
        "", max_length=200, pattern=r"^\S*$", description="The user that the Sentinels themselves ask for, if they do."
    )
    sentinel_password: Annotated[SecretStr | None, Variable(form="a password")] = Field(
        None, description="The password that the Sentinels themselves ask for, if they do."
    )
    cluster_nodes: Annotated[str, Variable(form="host:port of nodes, separated by commas")] = Field(
        "",
        max_length=2_000,
        description="Nodes of a Redis Cluster to ask for all others; any of them may be down. Then the host and port "
        "of `REDIS_URL` are not used, but its user, password and TLS options are (docs/cluster.md). Empty: no cluster.",
    )
    partitions: Annotated[int, Variable(unit="partitions")] = Field(
        1,
        ge=1,
        le=256,
        description="How many streams the events are divided into, each with its experiments. More than one is for a "
        "Redis Cluster, over which they are spread. Recorded in Redis, and changed with `redis-agent repartition` "
        "(docs/cluster.md).",
    )
    durability: Annotated[Durability, Variable()] = Field(
        "memory",
        description="When a batch of events counts as written, or as applied: `memory` as soon as the server has "
        "executed it; `disk` when it is in the append-only file and fsynced; `replica` when replicas have it, too. "
        "docs/reliability.md says what each survives and costs.",
    )
    durability_replicas: Annotated[int, Variable(unit="replicas")] = Field(
        1, ge=1, le=100, description="How many replicas must have a batch with `REDIS_AGENT_DURABILITY=replica`."
    )

    metrics_channel: Annotated[
        Channel,
        Variable("METRICS_CHANNEL", form="a channel's name, without spaces, of at most 256 characters"),
    ] = Field("fullsend:metrics", description="The pub/sub channel that events arrive on.")

    orchestrator_channel: Annotated[
        Channel,
        Variable(
            "ORCHESTRATOR_CHANNEL",
            form="a channel's name, without spaces, of at most 256 characters",
        ),
    ] = Field("fullsend:to_orchestrator", description="The pub/sub channel that alerts are delivered on.")

    # --- Bridge -----------------------------------------------------------------------

    max_event_bytes: Annotated[int, Variable(unit="bytes")] = Field(
        262_144,
        ge=1024,
        le=16_777_216,
        description="A larger event goes to the dead letters, unread.",
    )
    bridge_buffer_bytes: Annotated[int, Variable(unit="bytes")] = Field(
        67_108_864,
        ge=1_048_576,
        le=4_294_967_296,
        description="How much a bridge holds of what is not yet confirmed as written. "
        "Past it events are lost, counted and logged.",
    )
    stream_max_length: Annotated[int, Variable(unit="entries")] = Field(
        1_000_000,
        ge=1_000,
        le=1_000_000_000,
        description="Length that the stream of events is trimmed to. What a group has not read and acked stays.",
    )
    stream_hard_limit: Annotated[int, Variable(unit="entries")] = Field(
        10_000_000,
        ge=1_000,
        le=10_000_000_000,
        description="Past this length the stream is trimmed whatever groups have read; what is removed is counted "
        "and logged.",
    )

    stream_max_age_seconds: Annotated[int, Variable(unit="seconds; 0: whatever their age")] = Field(
        0,
        ge=0,
        le=315_360_000,
        description="Age past which entries of the stream are trimmed, too. What a group has not read and acked stays. "
        "Off unless set: aggregates are kept for ever, and `replay` can check them only against what is still in "
        "the stream; its length bounds it anyway.",
    )

    # --- Worker -----------------------------------------------------------------------

    batch_size: Annotated[int, Variable(unit="events")] = Field(
        2_000,
        ge=1,
        le=4_000,
        description="The most events that a worker reads and applies, or a bridge writes, at once. A worker comes to "
        "it only with a backlog, and above 500 only while a batch keeps the server busy for less than about 20 ms.",
    )
    batch_bytes: Annotated[int, Variable(unit="bytes")] = Field(
        8_388_608,
        ge=65_536,
        le=268_435_456,
        description="The most bytes of events that one batch applies, but that a larger event goes alone. A worker "
        "asks for fewer events at once when they are large, and reads no further while it holds more than twice as "
        "much.",
    )
    reclaim_idle_seconds: Annotated[float, Variable(unit="seconds")] = Field(
        5.0,
        ge=0.1,
        le=3_600,
        description="Events that a worker holds unfinished for so long are taken over by another. "
        "Shorter recovers sooner; longer forgives slow workers.",
    )
    max_deliveries: Annotated[int, Variable(unit="deliveries")] = Field(
        5,
        ge=1,
        le=1_000,
        description="An event that was handed out more often than this and never finished goes to the dead letters. "
        "From the third time on each is tried alone.",
    )
    dead_letters_max_length: Annotated[int, Variable(unit="entries")] = Field(
        10_000,
        ge=100,
        le=10_000_000,
        description="How many dead letters are kept; the oldest go first.",
    )
    metrics_list: Annotated[bool, Variable()] = Field(
        default=True,
        description="Whether the agent itself pushes every event onto `metrics:{id}`. "
        "Turn it off where the executor already does.",
    )
    metrics_list_length: Annotated[int, Variable(unit="events")] = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="How many events `metrics:{id}` keeps; the oldest go first.",
    )
    max_fields: Annotated[int, Variable(unit="fields")] = Field(
        1_000,
        ge=10,
        le=100_000,
        description="The most fields in one experiment's aggregate. Further names are counted, not stored.",
    )
    window_minutes_ttl_seconds: Annotated[int, Variable(unit="seconds; 0: none are kept")] = Field(
        172_800,
        ge=0,
        le=31_536_000,
        description="How long the sums of each minute of an experiment are kept, in which anomalies are looked for. "
        "Each minute with events is a key of its own.",
    )
    window_hours_ttl_seconds: Annotated[int, Variable(unit="seconds; 0: none are kept")] = Field(
        7_776_000,
        ge=0,
        le=315_360_000,
        description="How long the sums of each hour of an experiment are kept, for `experiments ID --history`.",
    )
    definitions_ttl_seconds: Annotated[float, Variable(unit="seconds")] = Field(
        1.0,
        ge=0,
        le=3_600,
        description="How long an experiment's definition is used before it is read again, and how often the scheduler "
        "looks for changed ones (once a second at most).",
    )
    consumer: Annotated[str, Variable(form="a name without spaces, of at most 100 characters")] = Field(
        "",
        max_length=100,
        pattern=r"^\S*$",
        description="A stable name of this process in the consumer group. "
        "Empty: made of the host's name and the process id.",
    )
    consumer_expiry_seconds: Annotated[int, Variable(unit="seconds")] = Field(
        3_600,
        ge=10,
        le=2_592_000,
        description="A consumer that holds nothing and was not seen for so long is removed.",
    )

    # --- Judging and alerts -----------------------------------------------------------

    min_samples: Annotated[int, Variable(unit="samples")] = Field(
        20,
        ge=1,
        le=1_000_000,
        description="The least denominator at which a rate's crossing is told as early.",
    )
    anomaly_window_seconds: Annotated[int, Variable(unit="seconds, whole minutes; 0: no anomalies")] = Field(
        600,
        ge=0,
        le=3_600,
        multiple_of=60,
        description="Length of the windows in which anomalies are looked for. Shorter ones tell sooner; longer ones "
        "see more in sparse events.",
    )
    anomaly_max_series: Annotated[int, Variable(unit="series")] = Field(
        100,
        ge=1,
        le=10_000,
        description="How many event names, gauges and rates of one experiment are watched for anomalies.",
    )
    maturity_seconds: Annotated[int, Variable(unit="seconds; 0: all count at once")] = Field(
        0,
        ge=0,
        le=7_776_000,
        description="How long a trial, such as an email sent, needs to succeed. Younger ones are left out of a rate "
        "that a criterion asks to be below something, so that a campaign does not fail for emails sent a minute ago. "
        "Counted in whole minutes, from three hours on in whole hours; at the end, and past a deadline, all count.",
    )
    alert_alpha: Annotated[float, Variable(form="a probability between 0.000001 and 0.5")] = Field(
        0.05,
        ge=0.000_001,
        le=0.5,
        description="Of rates that sit exactly on their threshold, the share that may ever be confirmed as crossed.",
    )
    alert_evidence: Annotated[Evidence, Variable()] = Field(
        "early",
        description="`early` also tells of crossings that are not confirmed yet; `confirmed` waits.",
    )
    alert_cooldown_seconds: Annotated[int, Variable("ALERT_COOLDOWN_SECONDS", unit="seconds")] = Field(
        300,
        ge=1,
        le=604_800,
        description="The least time between two alerts about the same thing.",
    )
    alert_backoff: Annotated[float, Variable(form="a factor between 1 and 100")] = Field(
        2.0,
        ge=1,
        le=100,
        description="While a criterion stays met it is told again; by this factor each wait is longer than the one "
        "before, up to a day.",
    )
    notify_cleared: Annotated[bool, Variable()] = Field(
        default=False,
        description="Whether it is told, too, that a failure criterion which was told is not met any more.",
    )
    max_error_alerts: Annotated[int, Variable(unit="alerts")] = Field(
        5,
        ge=1,
        le=10_000,
        description="How many different errors of one experiment are told within one cooldown; more are counted.",
    )
    alert_delivery_ttl_seconds: Annotated[int, Variable(unit="seconds")] = Field(
        86_400,
        ge=1,
        le=2_592_000,
        description="How long an alert waits for a subscriber before it is given up.",
    )
    alerts_max_length: Annotated[int, Variable(unit="entries")] = Field(
        10_000,
        ge=100,
        le=10_000_000,
        description="How many alerts the outbox and its history keep. The oldest go first, also such as nobody "
        "has received yet; these are counted and logged.",
    )

    # --- Scheduler --------------------------------------------------------------------

    threshold_check_interval_seconds: Annotated[float, Variable("THRESHOLD_CHECK_INTERVAL_SECONDS", unit="seconds")] = (
        Field(
            60.0,
            ge=0.1,
            le=86_400,
            description="How often criteria are checked besides after each event.",
        )
    )
    summary_interval_seconds: Annotated[float, Variable("SUMMARY_INTERVAL_SECONDS", unit="seconds")] = Field(
        3_600.0, ge=1, le=2_592_000, description="How often a summary of all experiments is sent."
    )
    quiet_after_seconds: Annotated[int, Variable(unit="seconds")] = Field(
        3_600,
        ge=1,
        le=2_592_000,
        description="An experiment without events for so long counts as quiet in summaries.",
    )
    lease_seconds: Annotated[float, Variable(unit="seconds")] = Field(
        5.0,
        ge=1,
        le=300,
        description="How long a leader keeps its lease without renewing it: the longest wait after a leader died.",
    )

    # --- Analyst ----------------------------------------------------------------------

    google_api_key: Annotated[SecretStr | None, Variable("GOOGLE_API_KEY", form="an API key of Gemini")] = Field(
        None,
        description="The key for Gemini, which words alerts and summaries. Without it, and whenever Gemini cannot be "
        "asked, a plain template says the same facts.",
    )
    gemini_base_url: Annotated[
        SecretStr | None, Variable("GOOGLE_GEMINI_BASE_URL", form="a URL that begins with http:// or https://")
    ] = Field(None, description="Where the Gemini API is reached instead of Google's own address, as through a proxy.")
    use_vertexai: Annotated[bool, Variable("GOOGLE_GENAI_USE_VERTEXAI")] = Field(
        default=False,
        description="Whether Gemini is asked on Vertex AI: with the project below and the credentials that Google's "
        "libraries find (Application Default Credentials), or without a project with the key. The SDK's other "
        "variables, such as `GOOGLE_VERTEX_BASE_URL`, work as well.",
    )
    use_enterprise: Annotated[bool, Variable("GOOGLE_GENAI_USE_ENTERPRISE")] = Field(
        default=False, description="The same as `GOOGLE_GENAI_USE_VERTEXAI`, under its newer name."
    )
    google_cloud_project: Annotated[str, Variable("GOOGLE_CLOUD_PROJECT", form="a project's id, without spaces")] = (
        Field("", max_length=200, pattern=r"^\S*$", description="The project, with Vertex AI.")
    )
    google_cloud_location: Annotated[str, Variable("GOOGLE_CLOUD_LOCATION", form="a location, without spaces")] = Field(
        "", max_length=100, pattern=r"^\S*$", description="The location, with Vertex AI. Empty: `global`."
    )
    model: Annotated[str, Variable(form="a model's name, without spaces")] = Field(
        "gemini-3.5-flash-lite",
        min_length=1,
        max_length=200,
        pattern=r"^\S+$",
        description="The Gemini model that is asked first. One that was shut down, such as `gemini-2.0-flash-exp`, is "
        "replaced by the default, with a warning.",
    )
    model_fallbacks: Annotated[str, Variable(form="names of models, separated by commas")] = Field(
        "gemini-3.6-flash,gemini-2.5-flash-lite",
        max_length=2_000,
        description="The models that are asked, in this order, when the first is not there (404).",
    )
    llm_calls_per_minute: Annotated[int, Variable(unit="calls; 0: none")] = Field(
        10,
        ge=0,
        le=1_000,
        description="The most calls of Gemini within any minute, of all replicas together. What is beyond gets the "
        "plain template.",
    )
    llm_calls_per_day: Annotated[int, Variable(unit="calls; 0: none")] = Field(
        2_000,
        ge=0,
        le=1_000_000,
        description="The most calls of Gemini within a day (UTC), of all replicas together.",
    )
    llm_cache_seconds: Annotated[int, Variable(unit="seconds; 0: not at all")] = Field(
        3_600,
        ge=0,
        le=604_800,
        description="How long an answer of Gemini is used again when the facts are equal.",
    )

    analysis_deadline_seconds: Annotated[float, Variable(unit="seconds; 0: no analysis is added")] = Field(
        5.0,
        ge=0,
        le=60,
        description="How long an alert may wait for its analysis before it is delivered with a plainer one; how long "
        "a summary may wait for better words.",
    )
    daily_summary_at: Annotated[str, Variable(form="a time of the day, HH:MM in UTC")] = Field(
        "",
        pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$",
        description="When a summary of the last day is sent, in UTC. Empty: none is.",
    )

    translate_criteria: Annotated[bool, Variable()] = Field(
        default=False,
        description="Whether a criterion that nobody understands is offered to Gemini, once a text. What comes of it "
        "counts if it parses and reads only metrics that the experiment declares; `check` shows it as translated.",
    )

    # --- Process ----------------------------------------------------------------------

    http_host: Annotated[str, Variable(form="a host's name or address")] = Field(
        "127.0.0.1",
        min_length=1,
        max_length=253,
        pattern=r"^\S+$",
        description="Where the endpoint listens. A container sets 0.0.0.0.",
    )
    http_port: Annotated[int, Variable(form="a port between 0 and 65535; 0 turns it off")] = Field(
        9464,
        ge=0,
        le=65_535,
        description="The port of `/metrics`, `/healthz`, `/readyz` and the status page at `/`.",
    )
    http_token: Annotated[
        SecretStr | None,
        Variable(form="16 to 512 letters, digits and signs of ASCII, without spaces"),
    ] = Field(
        None,
        description="Who wants to see the status page or `/status.json` must name it, as `Authorization: Bearer ...` "
        "or `?token=...`. Not set: whoever reaches the port sees them. `/metrics`, `/healthz` and `/readyz` never ask.",
    )
    shutdown_seconds: Annotated[float, Variable(unit="seconds")] = Field(
        10.0,
        ge=0.1,
        le=600,
        description="The most time that a stop takes to finish and ack what was read.",
    )
    log_level: Annotated[LogLevel, Variable()] = Field("info", description="The least severe event that is logged.")
    log_format: Annotated[LogFormat, Variable()] = Field(
        "auto",
        description="`text` for people, `json` for programs; `auto` is text on a terminal and JSON elsewhere.",
    )

    # --- Traces -----------------------------------------------------------------------

    traces_per_second: Annotated[float, Variable(unit="traces")] = Field(
        10.0,
        ge=0,
        le=10_000,
        description="How many traces a process begins in a second, at most, while `OTEL_TRACES_SAMPLER` is not set "
        "(docs/tracing.md).",
    )
    otel_traces_exporter: Annotated[str, Variable("OTEL_TRACES_EXPORTER", form="otlp or none")] = Field(
        "",
        description="`otlp` exports traces; so does a collector's address below, unless this is `none`. With any other "
        "value nothing is traced, and that is said at the start.",
    )
    otel_exporter_otlp_endpoint: Annotated[
        str, Variable("OTEL_EXPORTER_OTLP_ENDPOINT", form="a URL, of which `/v1/traces` is asked")
    ] = Field("", repr=False, description="The collector that traces are exported to.")
    otel_exporter_otlp_traces_endpoint: Annotated[
        str, Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", form="a URL, whole")
    ] = Field("", repr=False, description="The same, for traces alone.")
    otel_exporter_otlp_protocol: Annotated[
        str, Variable("OTEL_EXPORTER_OTLP_PROTOCOL", form="http/protobuf; with another nothing is traced")
    ] = Field("", description="What the collector speaks there.")
    otel_exporter_otlp_traces_protocol: Annotated[
        str, Variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", form="http/protobuf; with another nothing is traced")
    ] = Field("", description="The same, for traces alone.")
    otel_traces_sampler: Annotated[str, Variable("OTEL_TRACES_SAMPLER", form="a sampler of OpenTelemetry")] = Field(
        "",
        description="Which events are traced, with `OTEL_TRACES_SAMPLER_ARG`; then every event is put to it, and "
        "`REDIS_AGENT_TRACES_PER_SECOND` does not count.",
    )
    otel_sdk_disabled: Annotated[str, Variable("OTEL_SDK_DISABLED", form="true; anything else is false")] = Field(
        "", description="Whether nothing is traced, whatever the others say."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes what the constructor was given; only `load_settings` reads the environment."""
        return (init_settings,)

    @field_validator("log_level", "log_format", "alert_evidence", "durability", mode="before")
    @classmethod
    def _accept_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("orchestrator_channel")
    @classmethod
    def _check_channels_differ(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("metrics_channel"):
            raise ValueError("it is METRICS_CHANNEL, too: every alert would come back as an event")
        return value

    @field_validator("maturity_seconds")
    @classmethod
    def _check_maturity(cls, value: int, info: ValidationInfo) -> int:
        kept = {"MINUTES": "window_minutes_ttl_seconds", "HOURS": "window_hours_ttl_seconds"}
        kind = "HOURS" if value >= HOURS_FROM_SECONDS else "MINUTES"
        if value > info.data.get(kept[kind], value):
            raise ValueError(f"is longer than windows are kept (REDIS_AGENT_WINDOW_{kind}_TTL_SECONDS)")
        return value

    @field_validator("stream_hard_limit")
    @classmethod
    def _check_hard_limit(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("stream_max_length", 0):
            raise ValueError("it is below REDIS_AGENT_STREAM_MAX_LENGTH")
        return value

    @field_validator("http_token")
    @classmethod
    def _check_http_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{16,512}", value.get_secret_value()):
            raise ValueError("it has another length or other characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        fault = fault_of_url(value.get_secret_value())
        if fault:
            raise ValueError(fault)
        return value

    @field_validator("gemini_base_url")
    @classmethod
    def _check_base_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"https?://[^\s/]", value.get_secret_value()):
            raise ValueError("it is no such URL")
        return value

    @field_validator("sentinels")
    @classmethod
    def _check_sentinels(cls, value: str, info: ValidationInfo) -> str:
        addresses = host_ports(value)
        url = info.data.get("redis_url")
        if addresses and url is not None and url.get_secret_value().startswith("unix:"):
            raise ValueError("REDIS_URL names a socket of this machine, where no Sentinel can lead elsewhere")
        return value

    @field_validator("sentinel_master")
    @classmethod
    def _check_sentinel_master(cls, value: str, info: ValidationInfo) -> str:
        if "sentinels" in info.data and bool(value) != bool(host_ports(info.data["sentinels"])):
            missing = "REDIS_AGENT_SENTINELS" if value else "it"
            raise ValueError(
                f"REDIS_AGENT_SENTINELS and REDIS_AGENT_SENTINEL_MASTER belong together: {missing} is empty"
            )
        return value

    @field_validator("cluster_nodes")
    @classmethod
    def _check_cluster_nodes(cls, value: str, info: ValidationInfo) -> str:
        nodes = host_ports(value)
        if nodes and info.data.get("sentinels"):
            raise ValueError("REDIS_AGENT_SENTINELS is set, too: a cluster looks after its primaries itself")
        url = info.data.get("redis_url")
        if nodes and url is not None and url.get_secret_value().startswith("unix:"):
            raise ValueError("REDIS_URL names a socket of this machine, which is no way to the other nodes")
        return value

    @property
    def address(self) -> Address:
        """Where the server is. Holds secrets."""
        url = self.redis_url.get_secret_value()
        nodes = host_ports(self.cluster_nodes)
        if nodes:
            return Address(url, cluster=nodes)
        addresses = host_ports(self.sentinels)
        if not addresses:
            return Address(url)
        password = "" if self.sentinel_password is None else self.sentinel_password.get_secret_value()
        return Address(url, Sentinels(addresses, self.sentinel_master, self.sentinel_username, password))

    @property
    def asks_gemini(self) -> bool:
        """Whether somebody may word analyses and summaries; else templates do."""
        return self.google_api_key is not None or self.use_vertexai or self.use_enterprise

    @property
    def asks_for_traces(self) -> bool:
        """Whether OpenTelemetry's variables ask for traces, whether or not they can be had."""
        if self.otel_sdk_disabled.lower() == "true" or self._exporters == {"none"}:
            return False
        has_endpoint = self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint
        return bool(self._exporters or has_endpoint)

    @property
    def trace_fault(self) -> str:
        """Why the traces that are asked for cannot be had with these settings; "" where they can."""
        if not self.asks_for_traces:
            return ""
        if self._exporters and "otlp" not in self._exporters:
            return f"OTEL_TRACES_EXPORTER={_shown(self.otel_traces_exporter)}: only otlp and none are known"
        protocol = self.otel_exporter_otlp_traces_protocol or self.otel_exporter_otlp_protocol
        if protocol.lower() not in ("", "http/protobuf"):
            name = "otel_exporter_otlp_protocol"
            if self.otel_exporter_otlp_traces_protocol:
                name = "otel_exporter_otlp_traces_protocol"
            return f"{variable_name(name)}={_shown(protocol)}: only http/protobuf is spoken"
        return ""

    @property
    def _exporters(self) -> set[str]:
        return {name.strip().lower() for name in self.otel_traces_exporter.split(",")} - {""}

    @property
    def address_shown(self) -> str:
        """Where the server is, for people; without secrets."""
        address = self.address
        if address.cluster:
            return f"the cluster of {', '.join(f'{host}:{port}' for host, port in address.cluster)}"
        if address.sentinels is not None:
            return str(address.sentinels)
        return redacted_url(self.redis_url.get_secret_value())


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting and is none.

    Attributes:
        name: the variable as it was found.
        closest: the setting that was probably meant, or None.
    """

    name: str
    closest: str | None

    def __str__(self) -> str:
        """Words it for a log or a terminal."""
        hint = f"; did you mean {self.closest}?" if self.closest else ""
        return f"{self.name} is not a setting{hint}"


def load_settings(environ: Mapping[str, str] | None = None, *, overrides: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings from the environment and checks them.

    An empty variable counts as one that is not set. A secret may be given in a file:
    `REDIS_URL_FILE` and `GOOGLE_API_KEY_FILE` name it.

    Args:
        environ: the variables; the process's own environment when None.
        overrides: variables that stand above the environment, such as the options of a command.
            An override of a secret also stands above its file.

    Returns:
        The settings, complete and within their bounds.

    Raises:
        ConfigError: one line for each wrong variable, with its name, its value (never that of a
            secret) and what is allowed.
    """
    variables = dict(os.environ if environ is None else environ)
    for name, text in (overrides or {}).items():
        variables.pop(name + FILE_SUFFIX, None)
        variables[name] = text

    source = _EnvironmentSource(Settings, variables)
    values = source()
    faults = dict(source.faults)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            field_name = str(detail["loc"][0])
            faults.setdefault(field_name, _explain(field_name, variables, _own_words(detail)))
        raise ConfigError("\n".join(faults[name] for name in Settings.model_fields if name in faults)) from None
    if faults:
        raise ConfigError("\n".join(faults[name] for name in Settings.model_fields if name in faults))
    return settings


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[UnknownVariable]:
    """Finds variables that begin with `REDIS_AGENT_` and set nothing: most of them are misspelt.

    Args:
        environ: the variables; the process's own environment when None.

    Returns:
        The unknown variables, sorted by name, each with the setting that it resembles most.
    """
    names = os.environ if environ is None else environ
    known = set(variable_names())
    return [
        UnknownVariable(name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None))
        for name in sorted(names)
        if name.startswith(PREFIX) and name not in known and not _FOREIGN.fullmatch(name)
    ]


def analyst_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the section Analyst that are set, for those who take no others from outside: the demo."""
    variables = os.environ if environ is None else environ
    from_there_on = dropwhile(lambda name: name != "google_api_key", Settings.model_fields)
    fields = takewhile(lambda name: name != "http_host", from_there_on)
    names = {form for name in map(variable_name, fields) for form in (name, name + FILE_SUFFIX)}
    return {name: variables[name] for name in sorted(names) if variables.get(name)}


def variable_names() -> Iterator[str]:
    """Yields every environment variable that is read, also those that name a secret's file."""
    for field_name, field in Settings.model_fields.items():
        name = variable_name(field_name)
        yield name
        if _is_secret(field):
            yield name + FILE_SUFFIX


def variable_name(field_name: str) -> str:
    """Names the environment variable that sets a field of `Settings`."""
    return _variable(Settings.model_fields[field_name]).name or PREFIX + field_name.upper()


def markdown_table() -> str:
    """Renders every setting as a Markdown table: variable, default, unit and bounds, what it is."""
    lines = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    for field_name, field in Settings.model_fields.items():
        name = f"`{variable_name(field_name)}`"
        if _is_secret(field):
            name += f", or `{variable_name(field_name)}{FILE_SUFFIX}`"
        lines.append(f"| {name} | {_default(field)} | {_allowed(field)} | {field.description} |")
    return "\n".join(lines) + "\n"


class _EnvironmentSource(PydanticBaseSettingsSource):
    """Finds the text of each field in a variable, or in the file that a variable names."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._variables = variables
        self.faults: dict[str, str] = {}

    def __call__(self) -> dict[str, Any]:
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            try:
                value, key, _ = self.get_field_value(field, field_name)
            except ConfigError as fault:
                self.faults[field_name] = str(fault)
                continue
            if value is not None:
                found[key] = value
        return found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        name = variable_name(field_name)
        value = self._variables.get(name, "").strip() or None
        if _is_secret(field):
            path = self._variables.get(name + FILE_SUFFIX, "").strip()
            if path and value is not None:
                raise ConfigError(f"{name} and {name}{FILE_SUFFIX}: both are set; set only one of them")
            if path:
                value = _read_secret(name + FILE_SUFFIX, path)
        return value, field_name, False


def _read_secret(name: str, path: str) -> str:
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a text file"
        raise ConfigError(f"{name}={path!r}: the file cannot be read: {reason}") from None
    if not value:
        raise ConfigError(f"{name}={path!r}: the file is empty")
    return value


def _explain(field_name: str, variables: Mapping[str, str], fault: str) -> str:
    field = Settings.model_fields[field_name]
    name = variable_name(field_name)
    allowed = f"must be {_allowed(field)}"
    if _is_secret(field):
        # Not even a part is shown: what cannot be parsed cannot be told from the secret in it.
        given = name + FILE_SUFFIX if variables.get(name + FILE_SUFFIX) else name
        return f"{given} (value not shown): {allowed}{f'; {fault}' if fault else ''}"
    return f"{name}={_shown(variables.get(name, ''))}: {allowed}{f'; {fault}' if fault else ''}"


def _own_words(detail: Any) -> str:
    """Returns the reason that a validator of ours gave, or "" where the words are pydantic's."""
    message = str(detail["msg"])
    return message.removeprefix("Value error, ") if detail["type"] == "value_error" else ""


def _shown(value: str) -> str:
    value = re.sub(r"[^\s,/@]*@", "***@", value)  # a password in the wrong place
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "...")


def _variable(field: FieldInfo) -> Variable:
    return next(item for item in field.metadata if isinstance(item, Variable))


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation in (SecretStr, SecretStr | None)


def _default(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, float):
        default = f"{default:g}"
    return f"`{default}`" if default not in (None, "") else "not set"


def _allowed(field: FieldInfo) -> str:
    """Says in words which values a field takes, in errors and in the documentation alike."""
    variable = _variable(field)
    if variable.form:
        return variable.form
    if field.annotation is bool:
        return "true or false"
    choices = get_args(field.annotation)
    if choices:
        return ", ".join(choices[:-1]) + f" or {choices[-1]}"
    kind = "a whole number" if field.annotation is int else "a number"
    unit = f"of {variable.unit}" if variable.unit else ""
    least = next(item.ge for item in field.metadata if isinstance(item, annotated_types.Ge))
    most = next(item.le for item in field.metadata if isinstance(item, annotated_types.Le))
    return " ".join(part for part in (kind, unit, f"between {_number(least)} and {_number(most)}") if part)


def _number(value: Any) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value}"
