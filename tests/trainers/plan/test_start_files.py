"""Start files hold together with the plan, with their schedulers' syntax, and with the command line."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from transformers import AutoConfig

from agentgym.arguments import split_overrides
from agentgym.config import load_config
from agentgym.trainers.plan.architectures import ARCHITECTURES
from agentgym.trainers.plan.model import count
from agentgym.trainers.plan.resolve import Plan, make_plan
from agentgym.trainers.plan.start_files import Start, rayjob, sbatch

ODD = "--env.data=my tasks/it's.jsonl"


def start(recipe: str, *arguments: str) -> Start:
    config = load_config(recipe, [argument.removeprefix("--") for argument in arguments])
    settings = dict(ARCHITECTURES[config.model.path])
    model = count(AutoConfig.for_model(settings.pop("model_type"), **settings), config, config.model.path, "table")
    plan: Plan = make_plan(config, model)
    return Start("the-run", (recipe, *arguments), plan)


@pytest.mark.parametrize(("recipe", "nodes", "cards"), [("qwen3-32b-64gpu", 8, 8), ("qwen3-30b-a3b-8gpu", 1, 8)])
def test_a_batch_script_asks_for_the_plans_machines(recipe: str, nodes: int, cards: int, tmp_path: Path) -> None:
    text = sbatch(start(recipe), partition="gpu", time="1-00:00:00")
    options = dict(line[10:].partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH --"))
    assert (options["nodes"], options["gpus-per-node"], options["ntasks-per-node"]) == (str(nodes), str(cards), "1")
    assert (options["partition"], options["time"]) == ("gpu", "1-00:00:00")
    assert "account" not in options
    script = tmp_path / "job.sh"
    script.write_text(text)
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False).returncode == 0


def test_the_batch_script_plans_then_runs_and_goes_on(tmp_path: Path) -> None:
    """It is run, with programs of those names that only tell how they were called."""
    calls, log = tmp_path / "bin", tmp_path / "log"
    calls.mkdir()
    for name in ("agentgym", "srun"):
        program = calls / name
        program.write_text(f'#!/bin/bash\nprintf "%s|" {name} "$@" >> {log}\necho >> {log}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    script = tmp_path / "job.sh"
    script.write_text(sbatch(start("qwen3-32b-64gpu", ODD)))
    where = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "8"}
    env = {**os.environ, **where, "PATH": f"{calls}:{os.environ['PATH']}"}
    run = lambda: subprocess.run(["bash", str(script)], env=env, check=True, capture_output=True)  # noqa: E731
    run()
    planned, started = (line.rstrip("|").split("|") for line in log.read_text().splitlines())
    assert planned == ["agentgym", "train", "qwen3-32b-64gpu", ODD, "--dry-run"]
    assert started[:3] == ["srun", "ray", "symmetric-run"]
    assert started[3].startswith("--address=")
    assert started[3].endswith(":6379")
    assert started[4:7] == ["--min-nodes=8", "--num-gpus=8", "--"]
    assert started[7:11] == ["agentgym", "train", "qwen3-32b-64gpu", ODD]
    assert {"--cluster.kind=ray", "--cluster.address=auto", "--run.dir=runs/the-run-7"} <= set(started[11:])
    (tmp_path / "runs" / "the-run-7").mkdir(parents=True)
    (tmp_path / "runs" / "the-run-7" / "config.toml").touch()
    run()
    assert log.read_text().splitlines()[-1].endswith("|--|agentgym|train|--resume|runs/the-run-7|")


def test_a_plan_that_does_not_fit_ends_the_job_before_it_starts(tmp_path: Path) -> None:
    calls = tmp_path / "bin"
    calls.mkdir()
    for name, body in (("agentgym", "exit 2"), ("srun", f"touch {tmp_path}/started")):
        (calls / name).write_text(f"#!/bin/bash\n{body}\n")
        (calls / name).chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(sbatch(start("qwen3-32b-64gpu")))
    env = {
        **os.environ,
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "PATH": f"{calls}:{os.environ['PATH']}",
    }
    assert subprocess.run(["bash", str(script)], env=env, check=False, capture_output=True).returncode == 2
    assert not (tmp_path / "started").exists()


def test_one_card_needs_no_ray() -> None:
    text = sbatch(start("qwen3-4b-24gb"))
    assert "symmetric-run" not in text
    assert "--cluster" not in text
    assert text.splitlines()[-1] == 'srun "${train[@]}"'


@pytest.mark.parametrize(("recipe", "nodes"), [("qwen3-32b-64gpu", 8), ("qwen3-30b-a3b-8gpu", 1)])
def test_a_rayjob_has_a_pod_for_each_machine(recipe: str, nodes: int) -> None:
    begun = start(recipe, ODD)
    job = yaml.safe_load(rayjob(begun, image="there/image:1", claim="runs-here"))
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "the-run")
    cluster = job["spec"]["rayClusterSpec"]
    workers = cluster.get("workerGroupSpecs", [])
    assert 1 + sum(group["replicas"] for group in workers) == nodes
    pods = [cluster["headGroupSpec"], *workers]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        assert container["image"] == "there/image:1"
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == begun.plan.layout.per_node
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
    assert _gpus(pods) == begun.plan.layout.gpus
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pods[0]["template"]["spec"]["volumes"][:1]]
    assert claims == ["runs-here"]


def _gpus(pods: list[dict[str, Any]]) -> int:
    found = 0
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        found += int(pod.get("replicas", 1)) * int(container["resources"]["limits"]["nvidia.com/gpu"])
    return found


def test_the_rayjobs_command_plans_then_runs(tmp_path: Path) -> None:
    job = yaml.safe_load(rayjob(start("qwen3-32b-64gpu", ODD), image="i", claim="c"))
    shell, flag, script = shlex.split(job["spec"]["entrypoint"])
    assert (shell, flag) == ("bash", "-c")
    log = tmp_path / "log"
    program = tmp_path / "agentgym"
    program.write_text(f'#!/bin/bash\nprintf "%s|" "$@" >> {log}\necho >> {log}\n')
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([shell, flag, script], env=env, check=True)
    planned, started = (line.rstrip("|").split("|") for line in log.read_text().splitlines())
    assert planned == ["train", "qwen3-32b-64gpu", ODD, "--dry-run"]
    assert started[:3] == ["train", "qwen3-32b-64gpu", ODD]
    assert started[-1] == "--run.dir=/runs/the-run"


def test_what_they_call_is_what_the_command_line_takes() -> None:
    """The overrides in a start file are keys that there are."""
    begun = start("qwen3-32b-64gpu", ODD)
    arguments = shlex.split(begun.command("--run.live=off", "--cluster.kind=ray", "--cluster.address=auto"))[2:]
    left, overrides = split_overrides(arguments, {"--dry-run"})
    assert left == ["qwen3-32b-64gpu"]
    assert load_config("qwen3-32b-64gpu", overrides).cluster.address == "auto"
