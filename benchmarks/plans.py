"""Plans the recipes that are for GPUs and puts what `agentgym train RECIPE --dry-run` prints into docs/planning.md.

    python benchmarks/plans.py

Needs no GPU and no network: where the hub cannot be reached, the built-in table of architectures is used.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "planning.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"
COMMANDS = (
    ("Qwen3-4B, adapters, one card of 24 GB", "qwen3-4b-24gb"),
    ("Qwen3-4B, all weights, one card of 80 GB", "qwen3-4b-80gb"),
    ("Qwen3-30B-A3B, adapters, one machine of 8 cards", "qwen3-30b-a3b-8gpu"),
    ("Qwen3-32B, all weights, 64 cards", "qwen3-32b-64gpu"),
    ("Qwen3-32B, all weights, 1,024 cards", "qwen3-32b-1024gpu"),
    ("One that does not fit", "qwen3-4b-24gb --model.lora_rank=0"),
)


def plan(arguments: str) -> str:
    """What the command prints, errors too."""
    command = [sys.executable, "-m", "agentgym", "train", *arguments.split(), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    printed = "\n".join(line.rstrip() for line in (done.stdout + done.stderr).splitlines())
    return re.sub(r"(.{1,118})(?: |$)", r"\1\n", printed[printed.rfind("error:") :]) if done.returncode else printed


def main() -> None:
    parts = [
        f"### {title}\n\n```\n$ agentgym train {arguments} --dry-run\n{plan(arguments).rstrip()}\n```"
        for title, arguments in COMMANDS
    ]
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
