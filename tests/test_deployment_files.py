"""Image, compose file and monitoring, checked without a Docker engine: by schemas, by promtool, and against the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client import CollectorRegistry

from shared.config import ENVIRONMENT_NAMES, SECRET_KEYS, SERVICE_PORTS
from shared.metrics import MetricFamilies

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "rules" / "trading.yml"
RULE_TESTS = MONITORING / "tests" / "alerts_test.yml"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
MEMBERS = [path.parent.name for path in ROOT.glob("services/*/pyproject.toml")] + ["shared", "cli"]
# of the machine, not of the platform: Prometheus' own, and what its client library tells of every process
OTHER_METRICS = {
    "up",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
}
METRIC_IN_EXPRESSION = re.compile(r"\b(up|(?:trading|process)_[a-z_]+)\b")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def services_of_ours() -> dict[str, Any]:
    return {name: compose()["services"][name] for name in SERVICE_PORTS}


def tool(name: str) -> str:
    """Return a program's path, or skip with the name of the Debian package that has it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: Debian package prometheus (make deps-debian)")
    return found


def run(*command: str | Path) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def expressions() -> Iterator[tuple[str, str]]:
    """Return every expression of dashboards and alarms with where it stands."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def exposed_names() -> dict[str, set[str]]:
    """Return the names under which our metrics are scraped, and the labels of each."""
    found: dict[str, set[str]] = {}
    for family in vars(MetricFamilies(CollectorRegistry())).values():
        (described,) = family.describe()
        labels = set(family._labelnames)  # the library has no public word for them
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(described.type, ("",))
        found |= {described.name + suffix: labels for suffix in suffixes}
    return found


# --- compose ------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_compose_file_fits_the_published_schema() -> None:
    run(Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")  # fmt: skip


def test_every_image_is_pinned_to_a_version() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?\b", image) for image in images), images


def test_every_service_restarts_is_checked_and_keeps_its_data_in_named_volumes() -> None:
    declared = compose()["volumes"]
    for name, service in compose()["services"].items():
        assert service["restart"], name
        assert "healthcheck" in service or name == "migrate", name
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        assert [source for source in sources if source not in declared and not source.startswith("./")] == [], name
        assert all(volume.endswith(":ro") for volume in service["volumes"] if volume.startswith("./")), name


def test_neither_database_nor_bus_is_published_and_the_rest_on_this_machine_only() -> None:
    published = {name: service.get("ports", []) for name, service in compose()["services"].items()}
    assert published["postgres"] == published["redis"] == published["migrate"] == []
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert compose()["networks"]["inside"] == {"internal": True}
    assert compose()["services"]["postgres"]["networks"] == compose()["services"]["redis"]["networks"] == ["inside"]


def test_the_password_is_demanded_and_stands_in_no_url() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert len(re.findall(r"\$\{POSTGRES_PASSWORD:\?", text)) == len(re.findall(r"\$\{POSTGRES_PASSWORD", text)) == 3
    for service in services_of_ours().values():
        assert service["environment"]["DATABASE_URL"] == "postgresql://trading@postgres:5432/trading"


def test_every_setting_reaches_the_services_and_every_secret_only_those_that_need_it() -> None:
    # set by the file itself, of no use in a container, or given as an option only
    own = {"HEALTH_PORT", "STATE", "TRADING_STATE", "DATA", "DRY_RUN", "I_UNDERSTAND_LIVE"}
    secrets = {key.upper() for key in SECRET_KEYS if not key.endswith("_url")}
    needed = {"POSTGRES_PASSWORD", "TELEGRAM_BOT_TOKEN"}
    orders = {"BINANCE_API_KEY", "BINANCE_API_SECRET"}
    for name, service in services_of_ours().items():
        expected = ENVIRONMENT_NAMES - own - secrets | needed | (orders if name == "order-executor" else set())
        assert set(service["environment"]) - {"PGPASSWORD"} == expected, f"{name}: x-settings of docker-compose.yml"


def test_our_services_run_without_rights_and_end_in_their_own_time() -> None:
    for name, service in services_of_ours().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["stop_grace_period"] == "15s", name  # the services themselves need at most 10 s
        assert service["command"] == ["run", name]
        assert str(SERVICE_PORTS[name]) in service["healthcheck"]["test"][-1]


def test_monitoring_is_a_profile_of_its_own() -> None:
    profiles = {name: service.get("profiles") for name, service in compose()["services"].items()}
    assert {name for name, profile in profiles.items() if profile == ["monitoring"]} == {"prometheus", "grafana"}
    ports = {name: compose()["services"][name]["ports"] for name in ("prometheus", "grafana")}
    assert ports == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}


# --- image --------------------------------------------------------------------------------------------------------


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = text.split("\nFROM ")[1:]
    assert len(stages) == 2
    assert re.search(r"^USER 10001:10001$", stages[1], re.M)
    assert "pip install" not in stages[1]
    installs = re.findall(r"pip install (.*)", stages[0])
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert re.search(r'^ENTRYPOINT \["trading"\]$', stages[1], re.M)


def test_every_path_that_the_image_copies_exists_and_passes_the_ignore_file() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / "Dockerfile").read_text(), re.M)
    assert set(copied) == allowed
    assert all((ROOT / path).exists() for path in copied)


def test_the_image_installs_exactly_what_the_members_need() -> None:
    printed = run(sys.executable, "tools/locked_subset.py", "members")
    chosen = set(re.findall(r"^([\w.-]+)==", printed, re.M))
    assert printed.count("--hash=sha256:") >= len(chosen)
    needed: set[str] = set()
    waiting = [f"trading-{name}" for name in MEMBERS]
    while waiting:
        for line in requires(waiting.pop()) or []:
            wanted = Requirement(line)
            name = re.sub(r"[-_.]+", "-", wanted.name).lower()
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and name not in needed:
                needed.add(name)
                waiting.append(name)
    needed = {name for name in needed if not name.startswith("trading-")}
    assert needed - chosen == set(), "not in the image"
    for_other_machines = {"winloop", "tomli"}
    from_extras = {"greenlet", "cryptography", "cffi", "pycparser", "coincurve", "aiodns", "pycares"}
    assert chosen - needed - for_other_machines - from_extras == set(), "in the image, but nobody asks for it"


# --- monitoring ---------------------------------------------------------------------------------------------------


def test_prometheus_reads_the_four_services_every_fifteen_seconds() -> None:
    loaded = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = loaded["scrape_configs"]
    assert job["job_name"] == "trading-services"
    (targets,) = job["static_configs"]
    assert targets["targets"] == [f"{name}:{port}" for name, port in SERVICE_PORTS.items()]
    assert loaded["global"]["scrape_interval"] == "15s"


def test_promtool_accepts_configuration_and_rules() -> None:
    run(tool("promtool"), "check", "config", MONITORING / "prometheus.yml")
    run(tool("promtool"), "check", "rules", RULES)


@pytest.mark.thorough
def test_every_alarm_fires_and_clears() -> None:
    run(tool("promtool"), "test", "rules", RULE_TESTS)
    alarms = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    seen: set[str] = set()
    for case in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        asked = [(each["alertname"], bool(each.get("exp_alerts"))) for each in case["alert_rule_test"]]
        for alarm in sorted({name for name, _ in asked}):
            course = [fires for name, fires in asked if name == alarm]
            where = f"{case['name']}: {alarm}"
            assert course == [False, True, False], f"{where}: quiet, firing and quiet again must be seen, were {course}"
            seen.add(alarm)
    assert seen == alarms, f"never asked: {alarms - seen}"


def test_every_alarm_says_what_is_wrong_and_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
            assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]


def test_every_expression_names_metrics_and_labels_that_exist() -> None:
    known = exposed_names()
    for where, expression in expressions():
        used = set(METRIC_IN_EXPRESSION.findall(expression))
        assert used, where
        assert used <= set(known) | OTHER_METRICS, f"{where}: {used - set(known) - OTHER_METRICS} is never exposed"
        labels = set().union(*(known.get(name, set()) for name in used)) | {"le", "job", "instance"}
        named = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"", expression))
        for clause in re.findall(r"\b(?:by|ignoring|on)\s*\(([^)]*)\)", expression):
            named |= {name.strip() for name in clause.split(",") if name.strip()}
        assert named <= labels, f"{where}: {named - labels} is no label of {used}"


def test_every_metric_of_the_platform_stands_on_the_dashboard() -> None:
    shown = {name for _, expression in expressions() for name in METRIC_IN_EXPRESSION.findall(expression)}
    stems = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed_names()}
    assert stems - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(tool("promtool"), "check", "rules", file)


def test_the_dashboard_and_its_data_come_by_provisioning_alone() -> None:
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (datasource,) = source["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/trading.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    mounts = [volume.split(":")[1] for volume in compose()["services"]["grafana"]["volumes"]]
    assert folder in mounts
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {datasource["uid"]}
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(places)
