"""The dashboard and the alerts: each metric and label that they name exists, PromQL is valid."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobledger.worker.metrics import METRICS as WORKER_METRICS
from jobledger_gateway.metrics import METRICS as GATEWAY_METRICS
from jobledger_server.metrics import METRICS
from tests.support.manifests import DEPLOY, documents
from tests.support.pages import OBSERVABILITY, ROOT, blocks

ALERTS = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = DEPLOY / "grafana/jobledger.json"
RUNBOOK = ROOT / "docs/operate/runbook.md"
REPOSITORY = "https://github.com/jobledger/jobledger"
OF_ALL_TARGETS = {"instance", "job", "le"}
OF_PROMETHEUS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def series() -> dict[str, set[str]]:
    """Return the labels of each series that a server has, by its name."""
    known: dict[str, set[str]] = {name: set() for name in OF_PROMETHEUS}
    for metric in METRICS:
        labels = {label.replace(".", "_") for label in metric.labels}
        histogram = metric.kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count") if histogram else ("",):
            known[metric.prometheus_name + suffix] = labels
    for other in (*GATEWAY_METRICS, *WORKER_METRICS):
        known[other.name] = set(other.labels)
    return known


def rules() -> list[Any]:
    ((*groups,),) = [each["groups"] for each in documents(ALERTS)]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> Iterator[Any]:
    yield from json.loads(DASHBOARD.read_text("utf-8"))["panels"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title and the PromQL of each alert and each line of a panel."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_every_metric_and_label_of_a_query_exists() -> None:
    known = series()
    for title, query in queries():
        named = set(re.findall(r"\b(?:jobledger_|grpc_server_|process_|up\b)\w*", query))
        assert named, title
        assert named - known.keys() == set(), title
        labels = {
            label
            for selector in re.findall(r"{(.*?)}", query)
            for label in re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)
        }
        labels |= {
            label.strip() for by in re.findall(r"\bby \((.*?)\)", query) for label in by.split(",")
        }
        available = OF_ALL_TARGETS.union(*(known[name] for name in named))
        assert labels - available == set(), title


def test_each_alert_has_a_section_in_the_runbook_and_links_to_it() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    page = f"{REPOSITORY}/blob/main/{RUNBOOK.relative_to(ROOT)}"
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"{page}#{rule['alert'].lower()}"


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    """promtool runs them: see below."""
    (made,) = documents(ALERTS.with_name("alerts.test.yaml"))
    cases = [case for test in made["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        named = {case["alertname"] for case in cases if ("exp_alerts" in case) is fires}
        assert named == {rule["alert"] for rule in rules()}, fires


@pytest.mark.manifests
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """Debian has it in the package `prometheus`."""
    as_rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, (_, query) in enumerate(queries())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": as_rules}]}))
    for command in (
        ["check", "rules", str(ALERTS), str(file)],
        ["test", "rules", str(ALERTS.with_name("alerts.test.yaml"))],
    ):
        run = subprocess.run(
            ["promtool", *command], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_scrape_config_has_the_job_names_of_the_alerts() -> None:
    (shown,) = [block.text for block in blocks(OBSERVABILITY, "yaml")]
    configured = yaml.safe_load(shown)
    assert configured["rule_files"] == [ALERTS.name]
    assert {job["job_name"] for job in configured["scrape_configs"]} == {
        name for _, query in queries() for name in re.findall(r'\bjob="([\w-]+)"', query)
    }
