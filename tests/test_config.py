"""Settings come from the environment or a file, within bounds, and secrets stay secret."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from redis_agent.config import (
    PREFIX,
    Settings,
    load_settings,
    unknown_variables,
    variable_name,
    variable_names,
)
from redis_agent.errors import ConfigError
from redis_agent.store.address import redacted_url

ROOT = Path(__file__).parent.parent
SECRET = "hunter2"


def fault(**variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(variables)
    return str(caught.value)


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert settings.redis_url.get_secret_value() == "redis://redis:6379"
    assert settings.metrics_channel == "fullsend:metrics"
    assert settings.orchestrator_channel == "fullsend:to_orchestrator"
    assert settings.alert_cooldown_seconds == 300
    assert settings.summary_interval_seconds == 3600
    assert settings.threshold_check_interval_seconds == 60
    assert settings.google_api_key is None
    assert settings.http_port == 9464


def test_each_variable_sets_its_field() -> None:
    settings = load_settings(
        {
            "REDIS_URL": "rediss://user:pw@example.test:6380/2",
            "ALERT_COOLDOWN_SECONDS": "10",
            "REDIS_AGENT_LEASE_SECONDS": " 2.5 ",
            "REDIS_AGENT_METRICS_LIST": "no",
            "REDIS_AGENT_ALERT_EVIDENCE": "Confirmed",
            "GOOGLE_API_KEY": "key",
            "REDIS_AGENT_CONSUMER": "worker-1",
        }
    )
    assert settings.redis_url.get_secret_value() == "rediss://user:pw@example.test:6380/2"
    assert settings.alert_cooldown_seconds == 10
    assert settings.lease_seconds == 2.5
    assert settings.metrics_list is False
    assert settings.alert_evidence == "confirmed"
    assert settings.google_api_key == SecretStr("key")
    assert settings.consumer == "worker-1"


def test_the_names_of_the_contract_have_no_prefix_and_all_others_have() -> None:
    bare = {name for name in variable_names() if not name.startswith(PREFIX)}
    assert bare == {
        "ALERT_COOLDOWN_SECONDS",
        "GOOGLE_API_KEY",
        "GOOGLE_API_KEY_FILE",
        "GOOGLE_CLOUD_LOCATION",  # those of Google's SDK keep the names that they have there
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_GEMINI_BASE_URL",
        "GOOGLE_GEMINI_BASE_URL_FILE",
        "GOOGLE_GENAI_USE_ENTERPRISE",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "METRICS_CHANNEL",
        "ORCHESTRATOR_CHANNEL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",  # and those of OpenTelemetry
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_SDK_DISABLED",
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
        "REDIS_URL",
        "REDIS_URL_FILE",
        "SUMMARY_INTERVAL_SECONDS",
        "THRESHOLD_CHECK_INTERVAL_SECONDS",
    }
    assert variable_name("model") == "REDIS_AGENT_MODEL"


def test_the_constructor_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_AGENT_BATCH_SIZE", "7")
    monkeypatch.setenv("BATCH_SIZE", "7")
    assert Settings().batch_size == 2_000
    assert load_settings().batch_size == 7


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().batch_size = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in variable_names() if name != "REDIS_URL"])
def test_an_empty_variable_counts_as_one_that_is_not_set(name: str) -> None:
    assert load_settings({name: "  "}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("REDIS_AGENT_LEASE_SECONDS", "abc", "a number of seconds between 1 and 300"),
        ("REDIS_AGENT_LEASE_SECONDS", "nan", "a number of seconds between 1 and 300"),
        ("REDIS_AGENT_LEASE_SECONDS", "inf", "a number of seconds between 1 and 300"),
        ("REDIS_AGENT_BATCH_SIZE", "4001", "a whole number of events between 1 and 4000"),
        ("REDIS_AGENT_BATCH_SIZE", "1.5", "a whole number of events between 1 and 4000"),
        ("ALERT_COOLDOWN_SECONDS", "-1", "a whole number of seconds between 1 and 604800"),
        ("REDIS_AGENT_METRICS_LIST", "maybe", "true or false"),
        ("REDIS_AGENT_ALERT_EVIDENCE", "late", "early or confirmed"),
        ("REDIS_AGENT_LOG_FORMAT", "xml", "auto, text or json"),
        ("REDIS_AGENT_HTTP_PORT", "70000", "a port between 0 and 65535; 0 turns it off"),
        ("REDIS_AGENT_ALERT_ALPHA", "0.9", "a probability between 0.000001 and 0.5"),
        ("REDIS_AGENT_CONSUMER", "a b", "a name without spaces, of at most 100 characters"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    assert fault(**{name: value}) == f"{name}={value!r}: must be {allowed}"


def test_every_wrong_variable_has_its_line() -> None:
    lines = fault(
        REDIS_AGENT_BATCH_SIZE="0",
        METRICS_CHANNEL="two words",
        REDIS_URL="http://redis",
        GOOGLE_API_KEY_FILE="/no/such/file",
    ).splitlines()
    names = ["REDIS_URL", "METRICS_CHANNEL", "REDIS_AGENT_BATCH_SIZE", "GOOGLE_API_KEY_FILE"]
    assert len(lines) == len(names)
    assert all(any(line.startswith(name) for line in lines) for name in names)


def test_a_long_value_with_line_breaks_stays_one_short_line() -> None:
    line = fault(REDIS_AGENT_BATCH_SIZE="1\n" * 5_000)
    assert len(line.splitlines()) == 1
    assert len(line) < 200


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@redis:6379",
        SECRET,
        f"{SECRET}://redis",
        f"redis://:{SECRET}/rest@redis:6379",
        f"redis://:{SECRET}@redis:99999",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@redis/name",
        f"redis:{SECRET}",
        f"unix://:{SECRET}@",
    ],
)
def test_a_wrong_url_is_refused_without_showing_any_of_it(url: str) -> None:
    line = fault(REDIS_URL=url)
    assert line.startswith("REDIS_URL (value not shown): must be a URL that begins with redis://")
    assert SECRET not in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "redis://redis:6379/0",
        "rediss://user:p%40ss@[::1]:6380/15?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
        "unix://user:pw@/run/redis.sock",
    ],
)
def test_every_form_of_url_that_redis_py_knows_is_taken(url: str) -> None:
    assert load_settings({"REDIS_URL": url}).redis_url.get_secret_value() == url


def test_no_secret_shows_in_a_repr_or_an_error() -> None:
    settings = Settings(redis_url=f"redis://:{SECRET}@redis", google_api_key=SECRET)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url=f"http://:{SECRET}@redis")
    assert SECRET not in str(caught.value)


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:pw@redis:6379\n", encoding="utf-8")
    (tmp_path / "key").write_text("  key\n", encoding="utf-8")
    settings = load_settings({"REDIS_URL_FILE": str(tmp_path / "url"), "GOOGLE_API_KEY_FILE": str(tmp_path / "key")})
    assert settings.redis_url == SecretStr("redis://:pw@redis:6379")
    assert settings.google_api_key == SecretStr("key")


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    line = fault(GOOGLE_API_KEY=SECRET, GOOGLE_API_KEY_FILE=str(tmp_path / "key"))
    assert "GOOGLE_API_KEY and GOOGLE_API_KEY_FILE" in line
    assert SECRET not in line


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert fault(GOOGLE_API_KEY_FILE=str(path)) == (
        f"GOOGLE_API_KEY_FILE={str(path)!r}: the file cannot be read: No such file or directory"
    )
    path.write_text("\n", encoding="utf-8")
    assert fault(GOOGLE_API_KEY_FILE=str(path)).endswith("the file is empty")
    path.write_bytes(b"\xff\xfe\x00")
    assert fault(GOOGLE_API_KEY_FILE=str(path)).endswith("it is not a text file")


def test_a_wrong_secret_in_a_file_is_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(f"http://:{SECRET}@redis", encoding="utf-8")
    line = fault(REDIS_URL_FILE=str(path))
    assert line.startswith("REDIS_URL_FILE (value not shown)")
    assert SECRET not in line


def test_an_override_stands_above_the_environment_and_above_a_file(tmp_path: Path) -> None:
    environ = {"REDIS_URL_FILE": str(tmp_path / "missing"), "REDIS_AGENT_HTTP_PORT": "1"}
    overrides = {"REDIS_URL": "redis://127.0.0.1:1", "REDIS_AGENT_HTTP_PORT": "0"}
    settings = load_settings(environ, overrides=overrides)
    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:1"
    assert settings.http_port == 0


def test_a_misspelt_variable_is_found_and_the_right_one_named() -> None:
    environ = {
        "REDIS_AGENT_BATCHSIZE": "1",
        "REDIS_AGENT_NONSENSE_QUX": "1",
        "REDIS_AGENT_BATCH_SIZE": "1",
        "HOME": "/",
    }
    assert [str(unknown) for unknown in unknown_variables(environ)] == [
        "REDIS_AGENT_BATCHSIZE is not a setting; did you mean REDIS_AGENT_BATCH_SIZE?",
        "REDIS_AGENT_NONSENSE_QUX is not a setting",
    ]


def test_variables_that_kubernetes_sets_for_a_service_are_no_mistakes() -> None:
    environ = dict.fromkeys(
        [
            "REDIS_AGENT_PORT",
            "REDIS_AGENT_PORT_9464_TCP",
            "REDIS_AGENT_PORT_9464_TCP_ADDR",
            "REDIS_AGENT_SERVICE_HOST",
            "REDIS_AGENT_SERVICE_PORT",
            "REDIS_AGENT_SERVICE_PORT_HTTP",
            "REDIS_AGENT_TEST_REQUIRE_SERVER",
        ],
        "1",
    )
    assert unknown_variables(environ) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        (f"redis://:{SECRET}@redis:6379/0", "redis://:***@redis:6379/0"),
        (f"rediss://user:{SECRET}@[::1]:6379", "rediss://user:***@[::1]:6379"),
        (f"redis://redis?password={SECRET}&db=1", "redis://redis?password=***&db=1"),
        (f"unix://user:{SECRET}@/run/redis.sock", "unix://user:***@/run/redis.sock"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        (f"redis://:{SECRET}/rest@redis:6379", "(unreadable URL)"),
        (f"redis://user:1/{SECRET}@redis", "(unreadable URL)"),
        (SECRET, "(unreadable URL)"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


def test_every_setting_says_what_it_is_and_has_bounds() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_documentation_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    checked = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_importing_the_module_reads_no_environment() -> None:
    program = (
        "import os\n"
        "class Refusing(dict):\n"
        "    def __getitem__(self, name): raise AssertionError(name)\n"
        "environ, os.environ = os.environ, Refusing()\n"
        "import redis_agent.config\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_channels_must_differ() -> None:
    said = fault(METRICS_CHANNEL="one", ORCHESTRATOR_CHANNEL="one")
    assert said.startswith("ORCHESTRATOR_CHANNEL='one': ")


def test_hard_limit_of_the_stream_is_not_below_its_length() -> None:
    said = fault(REDIS_AGENT_STREAM_MAX_LENGTH="5000", REDIS_AGENT_STREAM_HARD_LIMIT="4000")
    assert said.startswith("REDIS_AGENT_STREAM_HARD_LIMIT='4000': ")


@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=True", "socket_timeout=abc", "foo=x", "db=x"])
def test_url_options_that_the_agent_cannot_work_with_are_refused(option: str) -> None:
    said = fault(REDIS_URL=f"redis://localhost?{option}")
    assert said.startswith("REDIS_URL")
    assert "\n" not in said


def test_name_alone_in_a_url_is_hidden_like_the_password_it_probably_is() -> None:
    assert redacted_url("redis://s3cr3t@host:6379") == "redis://***@host:6379"


def test_sentinels_lead_to_the_master_with_the_credentials_of_the_url() -> None:
    settings = load_settings(
        {
            "REDIS_URL": "redis://user:secret@ignored/3",
            "REDIS_AGENT_SENTINELS": "a:26379, [::1]:26380",
            "REDIS_AGENT_SENTINEL_MASTER": "mymaster",
            "REDIS_AGENT_SENTINEL_PASSWORD": "hush",
        }
    )
    sentinels = settings.address.sentinels
    assert sentinels is not None
    assert sentinels.addresses == (("a", 26379), ("::1", 26380))
    assert (sentinels.master, sentinels.password) == ("mymaster", "hush")
    assert settings.address_shown == "mymaster (Sentinel a:26379, ::1:26380)"
    assert "hush" not in repr(settings.address) + repr(settings) + str(sentinels)
    assert "secret" not in repr(settings.address) + repr(settings)


@pytest.mark.parametrize("wrong", ["a", "a:0", "a:x", "a:26379/0", ":26379", "redis://a:26379", "user:secret@a:26379"])
def test_a_sentinel_that_is_no_address_is_named_without_what_may_be_a_password(wrong: str) -> None:
    words = fault(REDIS_AGENT_SENTINELS=f"b:26379,{wrong}", REDIS_AGENT_SENTINEL_MASTER="m")
    assert words.startswith("REDIS_AGENT_SENTINELS=")
    assert "is no host:port" in words
    assert "secret" not in words


def test_sentinels_and_their_masters_name_belong_together() -> None:
    assert "REDIS_AGENT_SENTINELS is empty" in fault(REDIS_AGENT_SENTINEL_MASTER="m")
    assert "belong together" in fault(REDIS_AGENT_SENTINELS="a:26379")
    assert "socket" in fault(
        REDIS_URL="unix:///tmp/s", REDIS_AGENT_SENTINELS="a:26379", REDIS_AGENT_SENTINEL_MASTER="m"
    )


def test_sharded_pubsub_is_for_a_cluster() -> None:
    assert load_settings({}).pubsub == "plain"
    assert "set REDIS_AGENT_CLUSTER_NODES" in fault(REDIS_AGENT_PUBSUB="sharded")
    assert load_settings({"REDIS_AGENT_PUBSUB": "sharded", "REDIS_AGENT_CLUSTER_NODES": "a:6379"}).pubsub == "sharded"
    assert "must be plain or sharded" in fault(REDIS_AGENT_PUBSUB="both")
