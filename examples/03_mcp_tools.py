"""MCP both ways: this file serves tools of ours as an MCP server, and plays an environment with a server's tools."""

import sys

import agentgym as ag
from agentgym.tools.mcp import MCPTools, serve_mcp

SHELF = {"tea": 12, "mugs": 3}


@ag.tool
def stock(item: str) -> int:
    """How many of an item are on the shelf."""
    return SHELF[item]


@ag.tool
def take(item: str, count: int) -> str:
    """Take some of an item off the shelf."""
    if count > SHELF[item]:
        raise ValueError(f"only {SHELF[item]} left")
    SHELF[item] -= count
    return f"{count} {item} taken"


def main() -> None:
    # a server of its own for each episode, since this one remembers what was taken
    shelf = MCPTools.stdio(sys.executable, [__file__, "serve"], per_episode=True)
    tasks = [ag.Task("tea", "Take 5 tea. How much tea is left?", "7")]
    env = ag.ToolEnv(tasks, tools=[shelf, "calculator"], max_turns=6)
    print(env.reset(seed=0)[0], "tools:", ", ".join(env.toolset.names))
    for said in (
        ag.call("take", item="tea", count=50),
        ag.call("take", item="tea", count=5),
        ag.call("stock", item="tea"),
    ):
        print(env.step(said)[0])
    print("reward:", env.step("7")[1])
    env.close()


if __name__ == "__main__":
    serve_mcp([stock, take]) if "serve" in sys.argv else main()
