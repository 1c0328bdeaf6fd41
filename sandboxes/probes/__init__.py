"""Attempts to get out of a sandbox, for every backend, each with a control that shows it can tell."""

from agentgym.sandboxes.probes.rows import Row
from agentgym.sandboxes.probes.runner import CATALOGUE, run_probes

__all__ = ["CATALOGUE", "Row", "run_probes"]
