"""Alerts and the dashboard: rules that promtool proves, metrics that there are, queries that a real Prometheus answers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from perdure import telemetry
from tests.servers.node import Nodes
from tests.servers.process import Missing, free_port
from tests.servers.prometheus import RULES, Prometheus
from tests.support.docs.pages import ROOT
from tests.support.needs import missing

pytestmark = [pytest.mark.server, pytest.mark.fetched, pytest.mark.xdist_group("prometheus")]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "perdure.json").read_text())
QUERIES = [target["expr"].replace("$__rate_interval", "1m") for panel in DASHBOARD["panels"] for target in panel["targets"]]
OTHERS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
"""Metrics that are not Perdure's own."""
SECONDS = {
    telemetry.REQUEST_DURATION, telemetry.DURATION, telemetry.APPEND_DURATION, telemetry.LAG, telemetry.SWEEP_OVERDUE, telemetry.SPOOL_AGE,
}  # fmt: skip
ELSEWHERE = ("perdure_consumer", "perdure_sweep")
"""Metrics of consumers and sweepers, which are no nodes."""


def promtool(*words: str) -> str:
    """Run it beside the rules."""
    try:
        tool = Prometheus.tool()
    except Missing as reason:
        missing(str(reason))
    ran = subprocess.run([tool, *words], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_rules_are_rules() -> None:
    """They are read by promtool, and the example of a configuration."""
    assert "16 rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", ["alerts_test.yml", "alerts_days_test.yml"])
def test_alerts_fire_when_they_should_and_not_before(file: str) -> None:
    """Series in, alerts out: burn rates, lag, overdue sweeps, storms of conflicts."""
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_alert_is_proven() -> None:
    """Each fires in one of the tests."""
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule}
    proven = set()
    for file in ("alerts_test.yml", "alerts_days_test.yml"):
        for case in yaml.safe_load((RULES.parent / file).read_text())["tests"]:
            proven |= {check["alertname"] for check in case["alert_rule_test"] if check["exp_alerts"]}
    assert proven == alerts and len(alerts) == 11


def names() -> set[str]:
    """Perdure's metrics as Prometheus calls them, without what a kind appends."""
    constants = [value for name, value in vars(telemetry).items() if name.isupper() and isinstance(value, str) and value.count(".")]
    return {name.replace(".", "_") + ("_seconds" if name in SECONDS else "") for name in constants}


def test_queries_name_metrics_that_there_are() -> None:
    """In the rules and on the dashboard."""
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    known = names() | OTHERS
    for query in [*rules, *QUERIES]:
        for word in re.findall(r"\b(?:perdure_[a-z_]+|http_server_[a-z_]+|process_[a-z_]+|up(?={))", re.sub(r"by \([^)]*\)", "", query)):
            assert word == "perdure_consumer" or word in known or re.sub(r"_(total|count|sum|bucket)$", "", word) in known, word


def test_the_dashboard_shows_a_real_node(tmp_path: Path) -> None:
    """A node that works, a Prometheus that scrapes it: each query is answered, with something to see for all that happened."""
    metrics = free_port()
    nodes = Nodes(tmp_path / "nodes", options=("--metrics-port", str(metrics)))
    try:
        prometheus = Prometheus(tmp_path / "prometheus", (f"127.0.0.1:{metrics}",))
    except Missing as reason:
        missing(str(reason))
    try:
        nodes.start()
        prometheus.start()
        url = nodes.url_of("node0")

        def work() -> None:
            for number in range(30):
                ask(f"{url}/v1/sessions/s{number % 3}/commits", {"ops": [{"op": "add", "path": "/n", "value": 1}]})
                ask(f"{url}/v1/sessions/s{number % 3}")
                ask(f"{url}/v1/sessions/nobody")

        def shown() -> bool:
            work()
            return all(prometheus.ask(query) for query in QUERIES if "http_server_request" in query and "5.." not in query)

        prometheus.wait("requests are shown", shown)
        empty = [query for query in QUERIES if not prometheus.ask(query)]
        quiet = (*ELSEWHERE, "5..", "leases_", "conflicts_total")
        assert [query for query in empty if not any(word in query for word in quiet)] == []
        assert prometheus.ask("perdure:errors:ratio_rate5m") == [] and prometheus.ask('up{job="perdure"}')[0]["value"][1] == "1"
    finally:
        prometheus.stop()
        nodes.stop()


def ask(url: str, body: object = None) -> None:
    """One request, whatever its answer is."""
    data = None if body is None else json.dumps(body).encode()
    try:
        urlopen(Request(url, data=data, headers={"content-type": "application/json"}), timeout=30).close()
    except HTTPError as error:
        error.close()
