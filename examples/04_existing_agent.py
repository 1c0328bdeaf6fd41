"""Train an agent that is there already: its model is an OpenAI-compatible endpoint, and behind that is the policy.

The loop below is what many agents are: ask the model, run the tools it calls, ask again. It could as well use the
`openai` package (docs/agents.md). It plays the bookings of example 01 here, and whatever else there is:
`agentgym train store --agent examples/04_existing_agent.py:agent`.
"""

import tempfile
from pathlib import Path
from typing import Any

import httpx

import agentgym as ag


async def agent(session: Any, base_url: str, api_key: str) -> str:
    """Answer the episode's question with the env's tools; the env's own reward scores what is returned."""
    messages = list(session.messages)
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, verify=False, timeout=60) as http:  # on loopback
        while True:
            body = {"model": "policy", "messages": messages, "tools": session.tools}
            answer = (await http.post("chat/completions", json=body)).raise_for_status().json()
            message = answer["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                return str(message["content"])
            messages += await session.step(message)  # this episode's own tools, which the env runs


def main() -> None:
    summary = ag.train(
        env__id=f"{Path(__file__).with_name('01_custom_tool_env.py')}:bookings",
        rollout__agent=f"{__file__}:agent",
        run={"dir": str(Path(tempfile.mkdtemp()) / "run"), "live": "off", "processes": 1},
        model={"layers": 2, "width": 64},
        sft={"steps": 110, "examples": 64, "lr": 4e-3, "optimizer": "muon"},  # careless demonstrations, to begin with
        trainer__steps=14,
        rollout={"groups": 12, "group_size": 8, "max_tokens": 32, "max_staleness": 0},
        learner={"lr": 6e-4, "optimizer": "muon", "minibatches": 2, "agreement": 0, "warmup": 0},
        engine__max_context=192,
        eval__tasks=12,
    )
    for when in ("before", "after"):
        print(f"success {when}: {summary[when]['sampled']:.2f}")


if __name__ == "__main__":
    main()
