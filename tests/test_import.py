"""`import agentgym` is light: heavy parts load when they are used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "matplotlib", "tensorboard", "sympy", "pandas", "rich", "typer", "tokenizers", "ray"}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a statement loads in a fresh interpreter."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_the_package_is_light() -> None:
    assert not loaded_by("import agentgym") & HEAVY


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
    assert not loaded_by(statement) & {"torch", "transformers", "matplotlib", "tensorboard"}
