"""What deploy/ and the Dockerfile say agrees with the program: roles, settings, users, metrics, times."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from redis_agent.app import ROLES
from redis_agent.config import Settings, variable_names
from redis_agent.telemetry import Telemetry
from tests.processes import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = ("docker-compose.yml", "docker-compose.tls.yml")
# Time that a drain has, and what the process takes to end after it.
STOP_SECONDS = Settings().shutdown_seconds + 2


def compose(name: str = COMPOSE[0]) -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / name).read_text()))


def kubernetes(name: str = "kubernetes.yaml") -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "examples" / name).read_text()))


def deployments() -> dict[str, dict[str, Any]]:
    found = (d for d in kubernetes() if d["kind"] == "Deployment")
    return {d["metadata"]["labels"]["app.kubernetes.io/component"]: d for d in found}


def agents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Services that run the agent's image."""
    yield from ((n, s) for n, s in compose()["services"].items() if "REDIS_AGENT_IMAGE" in s["image"])


def users() -> set[str]:
    return set(
        re.findall(r"^user (\w+) on >@password@", (DEPLOY / "redis/users.acl.template").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_a_service_of_its_own_under_its_own_user(role: str) -> None:
    service = compose()["services"][role]
    assert service["command"] == ["run", "--roles", role]
    assert service["environment"]["REDIS_URL_FILE"] == f"/run/secrets/redis_url_{role}"
    assert [s for s in service["secrets"] if s.startswith("redis_url")] == [f"redis_url_{role}"]
    container = deployments()[role]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["run", "--roles", role]


def test_every_secret_is_one_that_prepare_makes() -> None:
    for name in COMPOSE:
        for secret, source in compose(name)["secrets"].items():
            made = Path(source["file"]).name
            user = re.fullmatch(r"rediss?_url_(\w+)", made)
            assert user is None or user[1] in users(), secret
    assert users() >= set(ROLES)


@pytest.mark.parametrize(("name", "service"), list(agents()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_service_sets_what_is_a_setting_and_is_closed_as_far_as_it_can_be(name: str, service: dict) -> None:
    assert set(service["environment"]) <= {*variable_names(), "OTEL_TRACES_SAMPLER_ARG"}  # read by OpenTelemetry's SDK
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].rstrip("s")) >= STOP_SECONDS


@pytest.mark.parametrize("role", ROLES)
def test_the_kubernetes_example_fits_the_program(role: str) -> None:
    pod = deployments()[role]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert {variable["name"] for variable in container["env"]} <= set(variable_names())
    assert pod["terminationGracePeriodSeconds"] >= STOP_SECONDS
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["volumes"][0]["secret"]["secretName"] == f"redis-url-{role}"


def test_what_scales_by_metrics_names_metrics_that_exist_and_a_deployment_that_does() -> None:
    [scaled] = kubernetes("keda.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployments()["worker"]["metadata"]["name"]
    names = {sample.name for metric in Telemetry().registry.collect() for sample in metric.samples}
    asked = re.findall(r"redis_agent_\w+", " ".join(t["metadata"]["query"] for t in scaled["spec"]["triggers"]))
    assert asked
    assert set(asked) <= names


def test_only_loopback_is_published_unless_asked_otherwise() -> None:
    for service in compose()["services"].values():
        assert all(str(port).startswith("${BIND:-127.0.0.1}:") for port in service.get("ports", ()))


def test_everything_in_the_environments_example_is_used_and_everything_used_is_in_it() -> None:
    used = set(re.findall(r"\$\{(\w+):-", "".join((DEPLOY / name).read_text() for name in COMPOSE)))
    assert set(re.findall(r"^#(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE)) == used


def test_the_image_runs_as_nobody_gets_the_signal_and_is_asked_through_the_program() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    said = dict(line.split(" ", 1) for line in lines if re.match(r"[A-Z]+ ", line))  # the last of each kind
    assert said["USER"] == "10001:10001"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["ENTRYPOINT"] == '["redis-agent"]'
    assert said["HEALTHCHECK"].endswith('CMD ["redis-agent", "health"]')
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${PYTHON_IMAGE} AS build",
        "FROM ${PYTHON_IMAGE}",
    ]
    installs = [line for line in lines if re.search(r"pip .*install(?!.*uninstall)", line) and "uninstall" not in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_what_builds_the_image_is_what_development_uses() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==[^ ;]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("build.txt") <= pins("dev.txt")
    assert any(pin.startswith("hatchling==") for pin in pins("build.txt"))
    assert pins("runtime.txt") < pins("tracing.txt") < pins("dev.txt")


def test_no_file_names_a_package_index() -> None:
    files = [ROOT / "Dockerfile", ROOT / ".dockerignore", ROOT / "docs/operations.md"]
    files += [p for p in DEPLOY.rglob("*") if p.is_file() and "secrets" not in p.parts]
    for path in files:
        assert not re.search(r"index-url|find-links|pypi|/simple\b", path.read_text()), path
