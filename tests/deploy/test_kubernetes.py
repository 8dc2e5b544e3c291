"""The manifest on a real control plane of Kubernetes, its pods as processes with addresses of their own: what is accepted, spread,
evicted, scaled, found and rolled. A small kubelet of these tests stands for the real one; images and cloud balancers are not tried."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from pathlib import Path

import pytest

import perdure
from tests.servers.kube_api import Refused
from tests.servers.kubelet import ZONE
from tests.servers.metrics_api import MetricsApi
from tests.servers.tls import Authority
from tests.support.deploy.cluster import DEPLOYMENT, HPA, PDB, Cluster, cluster, held, inside, manifest
from tests.support.service.writers import WRITERS, writing

__all__ = ["cluster"]

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow("Kubernetes is built from its source, and pods take their time to end"),
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.timeout(600),
]


@inside
def test_the_manifest_is_accepted_and_pods_are_spread(cluster: Cluster, tmp_path: Path) -> None:
    """With strict validation, which refuses a field that there is not. The autoscaler alone brings the least number of pods, a second apply
    leaves its number, and three pods are in three zones although these have one, two and three nodes."""
    with cluster.deployed("applied", tmp_path) as place:
        least = manifest("HorizontalPodAutoscaler")["spec"]["minReplicas"]
        cluster.wait("the least number of pods", lambda: len(place.ready()) == least)
        wrong = copy.deepcopy(manifest("Deployment"))
        wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        with pytest.raises(Refused, match="readinesProbe"):
            place.api.apply(wrong, place.name)
        place.change(HPA, "perdure", {"spec": {"minReplicas": 3}})
        cluster.wait("three pods", lambda: len(place.ready()) == 3)
        again = place.api.apply(manifest("Deployment"), place.name)
        assert again["spec"]["replicas"] == 3
        zones = {node["metadata"]["name"]: node["metadata"]["labels"][ZONE] for node in place.api.ask("GET", "/api/v1/nodes")["items"]}
        assert Counter(zones[pod["spec"]["nodeName"]] for pod in place.ready()) == {"a": 1, "b": 1, "c": 1}


@inside
def test_pods_are_evicted_one_at_a_time_and_end_in_time(cluster: Cluster, tmp_path: Path) -> None:
    """While one pod is away the next eviction is refused with 429; when another one is ready in its place it is let through. A pod whose
    client never ends its request still ends by itself within the grace period."""
    with cluster.deployed("evicted", tmp_path, without=[HPA]) as place:
        place.scale(3)
        cluster.wait("three pods", lambda: len(place.ready()) == 3)
        cluster.wait("one may go", lambda: place.get(PDB, "perdure")["status"]["disruptionsAllowed"])
        first, second, _ = (pod["metadata"]["name"] for pod in place.ready())
        evict = {"apiVersion": "policy/v1", "kind": "Eviction"}
        with held(place.get("Pod", first), place.token, 1):
            with cluster.kube.kubelet.holding():
                place.api.ask("POST", f"{place.path('Pod', first)}/eviction", {**evict, "metadata": {"name": first}})
                cluster.wait("it is ending", lambda: len(place.ready()) == 2)
                with pytest.raises(Refused) as refused:
                    place.api.ask("POST", f"{place.path('Pod', second)}/eviction", {**evict, "metadata": {"name": second}})
                assert refused.value.status == 429
            cluster.wait("one more may go", lambda: place.get(PDB, "perdure")["status"]["disruptionsAllowed"])
            place.api.ask("POST", f"{place.path('Pod', second)}/eviction", {**evict, "metadata": {"name": second}})
            cluster.wait("both are gone", lambda: not {first, second} & {pod["metadata"]["name"] for pod in place.list("Pod")})
        cluster.kube.kubelet.check()
        cluster.wait("three pods again", lambda: len(place.ready()) == 3)


@inside
def test_requests_in_progress_bring_pods_and_take_them_away(cluster: Cluster, tmp_path: Path) -> None:
    """By the metric that the manifest names, as each pod's own /metrics has it, and its target: three times the target brings a third pod,
    five times a fifth; without requests there are as many as the manifest wants at least, but none is taken away while processor time is
    unknown. A minute of the manifest is a second here."""
    scaler = copy.deepcopy(manifest("HorizontalPodAutoscaler"))
    down = scaler["spec"]["behavior"]["scaleDown"]
    down["stabilizationWindowSeconds"] //= 60
    for policy in down["policies"]:
        policy["periodSeconds"] //= 60
    least, target = scaler["spec"]["minReplicas"], int(scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
    metrics = MetricsApi(cluster.kube.api, Authority(tmp_path, "metrics"))
    try:
        metrics.register()
        cluster.wait("the metrics are known", metrics.served)
        with cluster.deployed("scaled", tmp_path, without=[HPA]) as place:
            place.api.apply(scaler, place.name)
            cluster.wait("the least number of pods", lambda: len(place.ready()) == least)
            first = place.ready()[0]
            with held(first, place.token, 3 * target):
                cluster.wait("a third pod", lambda: len(place.ready()) == 3)
                cluster.wait("the average is the target", lambda: place.average() == target)
                with held(first, place.token, 2 * target):
                    cluster.wait("a fifth pod", lambda: len(place.ready()) == 5)
                    cluster.wait("the average is the target", lambda: place.average() == target)
                    metrics.cpu = ""
            cluster.wait("no requests, and nobody knows the processor time", lambda: place.average() == 0 and not place.knows_all_metrics())
            assert place.get(DEPLOYMENT, "perdure")["spec"]["replicas"] == 5
            metrics.cpu = "1m"
            cluster.wait("the least number again", lambda: len(place.list("Pod")) == least)
    finally:
        metrics.close()


@inside
async def test_clients_follow_the_pods(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents write all the time, by the SRV records of the headless service, while there are three pods, five, two, and others of a new
    template: no call fails, the client knows the pods that are ready, and all that was written is there once, in order, on chains that
    verify."""
    with cluster.deployed("served", tmp_path, without=[HPA]) as place:
        monkeypatch.setenv("PERDURE_TOKEN", place.token)

        def is_whole(count: int) -> bool:
            return len(place.ready()) == len(place.list("Pod")) == count

        async def scaled(count: int) -> None:
            place.scale(count)
            await asyncio.to_thread(cluster.wait, f"{count} pods", lambda: is_whole(count))

        await scaled(3)
        await asyncio.to_thread(cluster.wait, "records", lambda: cluster.records(place) == place.names())
        async with perdure.open(cluster.kube.url_in(place.name)) as store, writing(store) as writers:
            for count in (3, 5, 2):
                await scaled(count)
                await writers.listed_hosts(place.names())
            before = place.names()
            template = {"metadata": {"annotations": {"rolled": "yes"}}}
            place.change(DEPLOYMENT, "perdure", {"spec": {"template": template}})
            await asyncio.to_thread(cluster.wait, "two others", lambda: not before & place.names() and is_whole(2))
            await writers.listed_hosts(place.names())
            await writers.check()
        async with perdure.open(place.store) as store:
            for number in range(WRITERS):
                assert (await store.verify(f"s{number}")).version == writers.written[number]
        print(f"{sum(writers.written)} appends, each of them acknowledged")
