"""A node that the others cannot reach, while clients still reach it: what they saw has one order, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from tests.backends.partitioned import CLUSTERS
from tests.servers.fixture import REQUIRED, make
from tests.servers.network import Network


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_node_cut_off_from_the_others(engine: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The leader of three is cut off, and later a follower: a leader that knows nothing of its successor answers no read and no write."""
    if missing := Network.missing():
        assert os.environ.get(REQUIRED) != "1", missing
        pytest.skip(missing)
    make(CLUSTERS[engine], tmp_path_factory)
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(Path(perdure.__file__).parents[1])])
    with Network(f"pd{os.getpid()}", 3) as network:
        command = [sys.executable, "-m", "tests.backends.partitioned", engine, network.name, str(tmp_path / "cluster")]
        ran = subprocess.run(
            network.inside(network.client, command),
            check=False, capture_output=True, text=True, timeout=240, cwd=root, env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "acknowledged" in ran.stdout
