"""Writes down which environments have been seen to be learned: agentgym/recipes/curves.json, shown by `agentgym envs`.

    python benchmarks/curves.py

Read off the studies in benchmarks/results (`benchmarks/seeds.py --recipe R --json FILE`), those of a recipe as it
ships: medians over the seeds of success on held-out tasks, sampled, after the warm start and after the last step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentgym.config import load_config

RESULTS = Path(__file__).with_name("results")
CURVES = Path(__file__).parents[1] / "agentgym" / "recipes" / "curves.json"


def curves() -> dict[str, dict[str, Any]]:
    """By environment: the recipe, how many seeds, success before and after."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        study = json.loads(path.read_text())
        settings = study.get("settings", {})
        whole = isinstance(study.get("seeds"), dict) and "sampled" in study.get("before", {})
        if not whole or "recipe" not in settings or settings.get("overrides"):
            continue
        before, after = (round(study[when]["sampled"]["median"], 3) for when in ("before", "after"))
        row = {"recipe": settings["recipe"], "seeds": len(study["seeds"]), "before": before, "after": after}
        env = load_config(settings["recipe"]).env.id
        known = found.get(env)
        if known is None or row["seeds"] > known["seeds"]:  # of several recipes, the one that was tried most
            found[env] = row
    return dict(sorted(found.items()))


def main() -> None:
    CURVES.write_text(json.dumps(curves(), indent=1) + "\n")
    print(CURVES.read_text())


if __name__ == "__main__":
    main()
