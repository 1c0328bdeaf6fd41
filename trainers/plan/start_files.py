"""Files that start a planned run elsewhere: a batch script for Slurm, a RayJob for KubeRay.

They are written from the plan: machines, their cards, and the command. Both make the plan again where they run, before
anything starts, and end there if it does not fit.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agentgym.trainers.plan.memory import itemsize
from agentgym.trainers.plan.resolve import Plan
from agentgym.trainers.plan.words import several

PORT = 6379
WAIT_SECONDS = 600
"""For all machines to join: on some the file system is slow."""
WORKER_GIB, SPARE_GIB = 2, 16
"""Memory of a rollout worker, and of what else a machine does."""
CORES_A_CARD = 4


@dataclass(frozen=True, slots=True)
class Start:
    """A plan, and the arguments of `agentgym train` that it was made of."""

    name: str
    arguments: tuple[str, ...]
    plan: Plan

    @property
    def on_ray(self) -> bool:
        return self.plan.config.cluster.kind == "ray" or self.plan.layout.nodes > 1

    @property
    def cards(self) -> int:
        """GPUs of a machine that the run uses."""
        layout = self.plan.layout
        return min(layout.per_node, layout.gpus)

    def command(self, *more: str) -> str:
        return shlex.join(("agentgym", "train", *self.arguments, *more))

    @property
    def about(self) -> str:
        layout = self.plan.layout
        learner, engines = several(layout.ranks, "learner rank"), several(layout.replicas, "engine")
        return f"{learner}, {engines} of {several(layout.gpus_each, 'GPU')}, on {several(layout.nodes, 'machine')}"


def sbatch(start: Start, *, partition: str = "", account: str = "", time: str = "") -> str:
    """A batch script; empty options are left to the cluster's defaults."""
    options = {
        "job-name": start.name,
        "nodes": str(start.plan.layout.nodes),
        "ntasks-per-node": "1",
        "gpus-per-node": str(start.cards) if start.cards else "",
        "partition": partition,
        "account": account,
        "time": time,
        "output": "%x-%j.log",
    }
    given = [f"#SBATCH --{name}={value}" for name, value in options.items() if value]
    return "\n".join(["#!/bin/bash", *given, "#SBATCH --exclusive", "#SBATCH --requeue", *_body(start), ""])


def _body(start: Start) -> list[str]:
    ray = ("--cluster.kind=ray", "--cluster.address=auto") if start.on_ray else ()
    lines = [
        f"# {start.about}",
        "set -euo pipefail",
        'cd "$SLURM_SUBMIT_DIR"',
        f'run="runs/{start.name}-$SLURM_JOB_ID"',
        "",
        "# ends here where the plan does not fit",
        start.command("--dry-run"),
        "",
        "# a job that was put back into the queue goes on with its run",
        'if [ -f "$run/config.toml" ]; then',
        '  train=(agentgym train --resume "$run")',
        "else",
        f'  train=({start.command("--run.live=off", *ray)} --run.dir="$run")',
        "fi",
        "",
    ]
    if not start.on_ray:
        return [*lines, 'srun "${train[@]}"']
    cards = f" --num-gpus={start.cards}" if start.cards else ""
    return [
        *lines,
        "# Ray on every machine, the run on the first of them, which is this one",
        f"export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT={WAIT_SECONDS}",
        "head=$(hostname --all-ip-addresses | awk '{print $1}')",
        f'srun ray symmetric-run --address="$head:{PORT}" --min-nodes="$SLURM_JOB_NUM_NODES"{cards} -- "${{train[@]}}"',
    ]


def rayjob(start: Start, *, image: str, claim: str) -> str:
    """A RayJob as YAML: a cluster of the plan's machines, one pod each, that ends with the run.

    image: with this package, its extra `cluster` and SGLang; claim: of a volume that keeps the run's folder.
    """
    import yaml  # type: ignore[import-untyped]  # transformers brings it

    workers = start.plan.layout.nodes - 1
    run = f"--run.dir=/runs/{start.name}"
    train = start.command("--run.live=off", "--cluster.kind=ray", "--cluster.address=auto", run)
    cluster: dict[str, Any] = {
        **({"rayVersion": found} if (found := _ray_version()) else {}),
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"},
            "template": _pod("ray-head", start, image, claim),
        },
    }
    if workers:
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "machines",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": _pod("ray-worker", start, image, claim),
            }
        ]
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": start.name},
        "spec": {
            # the plan is made again first; a run that is there is gone on with
            "entrypoint": _shell(f"{start.command('--dry-run')} && {_or_resume(train, f'/runs/{start.name}')}"),
            "shutdownAfterJobFinishes": True,
            "backoffLimit": 0,
            "rayClusterSpec": cluster,
        },
    }
    text: str = yaml.safe_dump(job, sort_keys=False, width=1000)
    return f"# {start.about}\n{text}"


def _or_resume(train: str, run: str) -> str:
    return f"if [ -f {run}/config.toml ]; then agentgym train --resume {run}; else {train}; fi"


def _shell(script: str) -> str:
    return f"bash -c {shlex.quote(script)}"


def _pod(name: str, start: Start, image: str, claim: str) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": _cores(start), "memory": f"{_memory_gib(start)}Gi"}
    if start.cards:
        resources["nvidia.com/gpu"] = start.cards
    volumes = {"runs": {"persistentVolumeClaim": {"claimName": claim}}, "shm": {"emptyDir": {"medium": "Memory"}}}
    return {
        "spec": {
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "resources": {"limits": resources, "requests": dict(resources)},
                    # Ray's object store and NCCL use shared memory, of which a pod has 64 MiB by itself
                    "volumeMounts": [
                        {"name": "runs", "mountPath": "/runs"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [{"name": volume, **what} for volume, what in volumes.items()],
        }
    }


def _cores(start: Start) -> int:
    rollout, nodes = start.plan.config.rollout, start.plan.layout.nodes
    return math.ceil(rollout.workers / nodes) * math.ceil(rollout.cpus_each) + CORES_A_CARD * max(1, start.cards)


def _memory_gib(start: Start) -> int:
    """Of one machine: the weights twice (as they are loaded, and as they are handed on), workers, and the rest."""
    plan = start.plan
    weights = 2 * itemsize(plan.config.model.dtype) * plan.model.parameters
    workers = math.ceil(plan.config.rollout.workers / plan.layout.nodes)
    return math.ceil(weights / 2**30) + WORKER_GIB * workers + SPARE_GIB


def _ray_version() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return ""
