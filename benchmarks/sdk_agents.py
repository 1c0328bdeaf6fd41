"""Programs as they are written elsewhere, on Store-v0: do they learn what agentgym's own agent learns?

    python benchmarks/sdk_agents.py --json FILE [--seeds 0] [--programs openai_sdk,openai_agents] [--trainer.steps=70]

Each is a whole `agentgym train store --agent benchmarks/sdk_agents.py:PROGRAM`; beside it, under the same seed, stands
the same run with our own agent. Needs the extra `agents` and the package openai-agents.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OWN = "own"
PROGRAMS = ("openai_sdk", "openai_agents")


async def openai_sdk(session: Any, client: Any) -> str:
    """The loop of the SDK's manual."""
    messages = list(session.messages)
    while True:
        answer = await client.chat.completions.create(model="policy", messages=messages, tools=session.tools)
        said = answer.choices[0].message
        messages.append(said.model_dump(exclude_none=True))
        if not said.tool_calls:
            return str(said.content)
        messages += await session.step(said)


async def openai_agents(session: Any, client: Any) -> str:
    """The runner of openai-agents drives: its own loop, its own messages, tools as it has them."""
    import agents

    agents.set_tracing_disabled(True)
    model = agents.OpenAIChatCompletionsModel(model="policy", openai_client=client)
    tools = [_tool(agents, session, schema["function"]) for schema in session.tools]
    clerk = agents.Agent(name="clerk", model=model, tools=tools)
    return str((await agents.Runner.run(clerk, list(session.messages), max_turns=16)).final_output)


def _tool(agents: Any, session: Any, function: dict[str, Any]) -> Any:
    async def invoke(_: Any, arguments: str) -> str:
        try:
            given = json.loads(arguments or "{}")
        except ValueError as e:
            return f"error: the arguments are no JSON: {e}"
        return str(await session.call(function["name"], given))

    return agents.FunctionTool(
        name=function["name"],
        description=function.get("description", ""),
        params_json_schema=function["parameters"],
        on_invoke_tool=invoke,
        strict_json_schema=False,
    )


def run(program: str, seed: int, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """The summary of one run."""
    line = [sys.executable, "-m", "agentgym", "train", "store", f"--run.seed={seed}", f"--run.dir={folder}"]
    if program != OWN:
        line += ["--agent", f"{__file__}:{program}"]
    played = (folder / "summary.json").is_file()
    if not played and (code := subprocess.run([*line, "--run.live=off", *overrides]).returncode):
        sys.exit(code)  # the run has said why
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def main() -> None:
    from report import machine, versions, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the run folders here, and go on with what is there")
    args, overrides = parser.parse_known_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds.split(","):
            for program in (OWN, *args.programs.split(",")):
                where = (args.keep or Path(folder)) / f"{program}-{seed}"
                found.setdefault(program, {})[seed] = run(program, int(seed), overrides, where)
    apart: dict[str, dict[str, float]] = {}
    for program in args.programs.split(","):
        for seed, summary in found[program].items():
            own = found[OWN][seed]["after"]
            apart.setdefault(program, {})[seed] = summary["after"]["sampled"] - own["sampled"]
            print(f"{program} seed {seed}: {summary['after']['sampled']:.3f} sampled, our own {own['sampled']:.3f}")
    versioned = versions("openai", "openai-agents", "torch", "transformers")
    settings = {"recipe": "store", "overrides": overrides}
    write(
        args.json,
        {"apart": apart, "runs": found, "settings": settings, "versions": versioned, "machine": machine()},
    )


if __name__ == "__main__":
    main()
