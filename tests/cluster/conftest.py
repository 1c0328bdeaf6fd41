"""A cluster of several nodes in this machine, fake SGLang servers that start at once, and what is played on them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

MakeCluster = Callable[..., Any]

FORKED = Path(__file__).parents[1] / "engines" / "sglang" / "forked.py"
INTERPRETER = """#!/bin/sh
# an interpreter that "has sglang", and whose servers are fakes
case "$1" in -c) exit 0;; esac
shift
exec {python} -S -E {forked} {socket} "$@"
"""


@pytest.fixture(scope="session")
def fake_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For `engine.python`."""
    folder = tmp_path_factory.mktemp("forked")
    socket, script = folder / "socket", folder / "python"
    script.write_text(INTERPRETER.format(python=sys.executable, forked=FORKED, socket=socket))
    script.chmod(0o755)
    with subprocess.Popen([sys.executable, str(FORKED), "--hold", str(socket)], stdin=subprocess.PIPE) as holder:
        until = time.monotonic() + 120
        while not socket.exists() and holder.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert socket.exists()
        yield str(script)
        holder.kill()


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[MakeCluster]:
    """A cluster of a head, which has no core to play on, and nodes, by what each of them has."""
    import ray
    from ray.cluster_utils import Cluster

    made = []

    def make(*nodes: Mapping[str, float], head: Mapping[str, float] | None = None) -> Any:
        small = {"object_store_memory": 80 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small, **(head or {})})
        made.append(cluster)
        for node in nodes:
            cluster.add_node(**small, **node)
        return cluster

    yield make
    ray.shutdown()
    for cluster in made:
        cluster.shutdown()
