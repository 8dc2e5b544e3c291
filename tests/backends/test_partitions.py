"""Nodes that cannot reach one another, while clients still reach them: what they saw has one order, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from tests.servers.fixture import make
from tests.servers.network import Network
from tests.support.backends.partitioned import PARTITIONS
from tests.support.needs import missing

pytestmark = [pytest.mark.server, pytest.mark.slow("partitions: nodes that are cut off for seconds, on clusters of their own")]


@pytest.mark.parametrize("name", PARTITIONS)
def test_nodes_cut_off_from_the_others(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A node that knows nothing of its successor answers no read and no write, but for what `failover_loss` declares; what each partition
    does, and claims, is in its scenario's docstring."""
    if reason := Network.missing():
        missing(reason)
    partition = PARTITIONS[name]
    make(partition.server, tmp_path_factory)
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(Path(perdure.__file__).parents[1])])
    with Network(f"pd{os.getpid()}", partition.hosts) as network:
        command = [sys.executable, "-m", "tests.support.backends.partitioned", name, network.name, str(tmp_path / "cluster")]
        ran = subprocess.run(
            network.inside(network.client, command),
            check=False, capture_output=True, text=True, timeout=280, cwd=root, env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print(ran.stdout)
    assert "acknowledged" in ran.stdout
