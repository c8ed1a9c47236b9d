"""What the monitoring role asks Prometheus for exists: in a real node's metrics, or in those of a gateway's watchdog."""

import importlib.util
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.lab import NodeProcess
from tools import tree

ROLES = Path(tree.ROOT, "ansible/roles")
RULES = ROLES / "monitoring/files/granum.rules.yml"
DASHBOARD = ROLES / "monitoring/files/granum-dashboard.json"
WATCHDOG = ROLES / "union_gateway/files/branch_watchdog.py"

METRIC = re.compile(r"\bgranum_[a-z0-9_]+")
QUOTED = re.compile(r'"[^"]*"')  # label values, as job="granum_gateway"
TYPE = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
LABELS = re.compile(r"[{,](\w+)=\"")
BY = re.compile(r"\bby \(([^)]*)\)")
OF_PROMETHEUS = {"node", "gateway"}  # labels that the role's own scrape configuration gives to targets


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression of rules and dashboard, with the name of the rule or panel that it is in."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def names(page: str) -> set[str]:
    """Return the names of all time series that *page*, metrics as text, declares, whether they have a number yet or not."""
    found = set()
    for name, kind in TYPE.findall(page):
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return found


def asked(expression: str) -> set[str]:
    """Return the metrics of granum in *expression*."""
    return set(METRIC.findall(QUOTED.sub('""', expression)))


@pytest.fixture(scope="module")
def node_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metrics of a real node that has answered a request."""
    with NodeProcess(tmp_path_factory.mktemp("monitored") / "node") as node:
        urllib.request.urlopen(f"{node.url}/__healthz").close()
        with urllib.request.urlopen(f"{node.url}/__metrics") as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def gateway_page() -> str:
    """The metrics of the watchdog."""
    spec = importlib.util.spec_from_file_location("branch_watchdog_of_monitoring", WATCHDOG)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return str(module.exposition({"n1": True}, 0.0))


def test_every_metric_that_is_asked_for_exists(node_page: str, gateway_page: str) -> None:
    """An alert on a metric that nobody has would be silent for ever."""
    known = names(node_page) | names(gateway_page)
    missing = {(where, name) for where, expression in expressions() for name in asked(expression) - known}
    assert missing == set()


def test_every_label_that_is_asked_for_exists(node_page: str, gateway_page: str) -> None:
    """Nor does anybody notice a sum over a label that is spelt otherwise."""
    known = set(LABELS.findall(node_page)) | set(LABELS.findall(gateway_page)) | OF_PROMETHEUS
    wanted = {
        label.strip()
        for _, expression in expressions()
        for found in BY.findall(expression)
        for label in found.split(",")
    }
    written = set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", RULES.read_text() + DASHBOARD.read_text()))
    assert (wanted | written) - known == set()
    assert {"node", "le"} <= wanted


def test_rules_and_dashboard_ask_both_kinds_of_machines() -> None:
    """Were the expressions not found where they are looked for, the tests above would pass with nothing."""
    found = {name for _, expression in expressions() for name in asked(expression)}
    assert {"granum_writable", "granum_union_branch_up", "granum_fsync_duration_seconds_bucket"} <= found
    assert asked('up{job="granum_gateway"} > granum_nothing') == {"granum_nothing"}


def test_every_alert_says_what_to_do() -> None:
    """With a severity, what happened, and a remedy."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "remedy"}, rule["alert"]
            assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
