"""`import agentgym` is light: heavy parts load when they are used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "matplotlib", "tensorboard", "sympy", "pandas", "rich", "typer", "tokenizers", "ray"}


def loaded_by(statement: str) -> tuple[set[str], float]:
    """The top-level modules that a statement loads in a fresh interpreter, and its CPU-seconds."""
    script = (
        "import json, sys, time; began = time.process_time()\n"
        f"{statement}\n"
        "print(json.dumps([sorted({m.partition('.')[0] for m in sys.modules}), time.process_time() - began]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules, seconds = json.loads(run.stdout.splitlines()[-1])
    return set(modules), seconds


def test_importing_the_package_is_light() -> None:
    modules, seconds = loaded_by("import agentgym")
    assert not modules & HEAVY
    assert seconds < 5.0, "the bar is 1.2 CPU-seconds on an idle core; this bound only catches accidents"


@pytest.mark.parametrize(
    "statement",
    [
        "import agentgym.config, agentgym.protocols, agentgym.registry, agentgym.types",
        "import agentgym.rollout.record, agentgym.run_folder, agentgym.report.metrics, agentgym.report.curve",
        "import agentgym.report.console, agentgym.report.transcript, agentgym.cli",
        "import agentgym.trainers.api",
        "import agentgym; agentgym.make_env('agentgym/Store-v0').tasks('test')",
    ],
)
def test_these_need_no_torch(statement: str) -> None:
    modules, _ = loaded_by(statement)
    assert not modules & {"torch", "transformers", "matplotlib", "tensorboard"}
