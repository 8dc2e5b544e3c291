"""Manifests, units and the container: they fit together, and name options and ports that the program has. Offline: no cluster is asked."""

from __future__ import annotations

import configparser
import copy
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from perdure import telemetry
from perdure.cli.commands.serve import make_options
from perdure.cli.commands.serve_flags import Access, Limits
from tests.support.docs.pages import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS: list[Any] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "perdure.yaml").read_text()))
VERSIONS = {
    "Service": "v1", "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2",
}  # fmt: skip
HELP = subprocess.run([sys.executable, "-m", "perdure", "serve", "--help"], capture_output=True, text=True, check=True).stdout
OPTIONS = set(re.findall(r"--[a-z-]+", HELP))


def of(kind: str) -> list[Any]:
    """The manifests of a kind."""
    return [each for each in MANIFESTS if each["kind"] == kind]


def seconds(words: list[str], option: str) -> float:
    """The value of an option in a command line."""
    return float(words[words.index(option) + 1])


def test_manifests_belong_together() -> None:
    """Each has its kind's version and a name; selectors find the pods, named ports are there, the autoscaler finds the Deployment."""
    (deployment,) = of("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert {each["kind"]: each["apiVersion"] for each in MANIFESTS} == VERSIONS
    assert len({(each["kind"], each["metadata"]["name"]) for each in MANIFESTS}) == len(MANIFESTS)
    selectors = [service["spec"]["selector"] for service in of("Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in (deployment, *of("PodDisruptionBudget"))]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    assert all(selector.items() <= labels.items() for selector in selectors)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert all(port["targetPort"] in ports for service in of("Service") for port in service["spec"]["ports"])
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe", "startupProbe")} == {"perdure"}
    (scaler,) = of("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    (requests, _) = scaler["spec"]["metrics"]
    assert requests["pods"]["metric"]["name"] == telemetry.REQUESTS_OPEN.replace(".", "_")
    assert "replicas" not in deployment["spec"] and scaler["spec"]["minReplicas"] >= 2
    assert [service["spec"].get("clusterIP") for service in of("Service")] == ["None", None]


def test_the_manifests_are_what_kubernetes_takes() -> None:
    """By the schemas of its newest version, which refuse a field that they do not know, and a value of another type."""
    for manifest in MANIFESTS:
        assert kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    (scaler,) = of("HorizontalPodAutoscaler")
    for name, value in (("minReplica", 2), ("minReplicas", "two")):
        wrong = copy.deepcopy(scaler)
        wrong["spec"][name] = value
        with pytest.raises(kubernetes_validate.ValidationError, match=str(name if name == "minReplica" else value)):
            kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_record_of_the_nodes_is_that_of_the_docs() -> None:
    """A headless service's record is named by its port and itself: the manifest and the page on clients say so."""
    headless = of("Service")[0]
    record = f"_{headless['spec']['ports'][0]['name']}._tcp.{headless['metadata']['name']}.NAMESPACE.svc.cluster.local"
    assert record.startswith("_perdure._tcp.perdure.")
    assert f"http+srv://{record}" in (DEPLOY / "kubernetes" / "perdure.yaml").read_text()
    assert f"`{record}`" in (ROOT / "docs" / "clients.md").read_text()


def test_the_rule_for_the_adapter_is_for_the_metric_of_the_autoscaler() -> None:
    """The page on deploying has prometheus-adapter's rule: it is about that metric, a sum for each pod."""
    (block,) = re.findall(r"```yaml\n(rules:.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    (rule,) = yaml.safe_load(block)["rules"]
    (requests, _) = of("HorizontalPodAutoscaler")[0]["spec"]["metrics"]
    series, _, labels = rule["seriesQuery"].partition("{")
    assert series == requests["pods"]["metric"]["name"]
    assert set(re.findall(r"(\w+)!=", labels)) == set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert [each["resource"] for each in rule["resources"]["overrides"].values()] == ["namespace", "pod"]
    assert rule["metricsQuery"] == "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"


def test_a_pod_ends_within_its_grace_period() -> None:
    """`preStop`, the node's delay and its time-out together are shorter; a roll-out takes none away before another one is there."""
    (deployment,) = of("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = sum(seconds(container["args"], option) for option in ("--drain-delay", "--drain-timeout"))
    assert pause + drain < pod["terminationGracePeriodSeconds"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    probe = container["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz" and probe["periodSeconds"] * probe["failureThreshold"] < pause
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_pods_have_few_rights() -> None:
    """No root, no rights to gain, nothing to write on, no token of the cluster."""
    pod = of("Deployment")[0]["spec"]["template"]["spec"]
    rights = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"] and rights["capabilities"] == {"drop": ["ALL"]}


def test_commands_are_those_that_the_program_has() -> None:
    """In manifests and units: each option is one of `perdure serve`, and the options together are accepted."""
    lines = [of("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]]
    for unit in ("perdure.service", "perdure@.service"):
        words = shlex.split(service(unit)["ExecStart"].replace("%i", "8421"))
        assert words[:2] == ["/opt/perdure/bin/perdure", "serve"]
        lines.append(words[2:])
    for words in lines:
        options = {word for word in words if word.startswith("--")}
        assert options <= OPTIONS, options - OPTIONS
        given: dict[str, Any] = {}
        for word, value in zip(words, [*words[1:], "--"], strict=True):
            if word.startswith("--") and not value.startswith("--"):
                given[word[2:].replace("-", "_")] = value
        assert make_options(given, {}).port in (8420, 8421)


def service(unit: str) -> dict[str, str]:
    """The section [Service] of a unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / unit)
    assert parser.sections() == ["Unit", "Service", "Install"]
    return dict(parser["Service"])


@pytest.mark.parametrize("unit", ["perdure.service", "perdure@.service"])
def test_systemd_waits_for_the_drain(unit: str) -> None:
    """Longer than the delay and the time-out that a node has by default; and it may do little."""
    found, defaults = service(unit), make_options({}, {})
    assert float(found["TimeoutStopSec"]) > defaults.drain_delay + defaults.drain_timeout
    assert found["KillSignal"] == "SIGTERM" and found["NoNewPrivileges"] == found["DynamicUser"] == "yes"


@pytest.mark.parametrize("unit", ["perdure.service", "perdure@.service"])
def test_systemd_knows_what_the_units_say(unit: str, tmp_path: Path) -> None:
    """Its own check has nothing to say of them, and names a key that there is not."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze, of systemd, is not on this machine")
    text = (DEPLOY / "systemd" / unit).read_text().replace("/opt/perdure/bin/perdure", sys.executable)

    def said(text: str) -> list[str]:
        (tmp_path / unit).write_text(text)
        checked = subprocess.run([program, "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False)
        return [line for line in checked.stderr.splitlines() if unit.partition(".")[0] in line]

    assert said(text) == []
    assert "KillSignl" in "".join(said(text.replace("KillSignal", "KillSignl")))


def test_the_container_says_what_the_program_reads() -> None:
    """Extras that there are, variables that `perdure serve` reads, ports that it listens on, no root."""
    text = (DEPLOY / "container" / "Containerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"\[([a-z,]+)\]", text)
    assert set(wanted.split(",")) <= extras.keys()
    environment = dict(re.findall(r"\b(PERDURE_[A-Z_]+)=(\S+)", text))
    options = make_options({}, environment)
    assert (options.host, options.port, options.metrics_port) == ("0.0.0.0", 8420, 9420)
    assert Access().options(environment).tokens and Limits().options(environment).turns == 256
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE) and 'ENTRYPOINT ["perdure", "serve"]' in text
