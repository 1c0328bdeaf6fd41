"""Tools that are busy now and then, so that a call has to be made again."""

from __future__ import annotations

from agentgym.tools.episode import Episode, ToolResult
from agentgym.tools.signals import ToolBusy


def set_busy(episode: Episode, probability: float) -> None:
    """Say how often `may_be_busy` is, in this episode."""
    episode.state["busy"] = probability
    episode.metrics["busy"] = 0


def may_be_busy(episode: Episode) -> None:
    """Draw whether this call is answered "busy", by raising `ToolBusy`; then count it, and tag the episode.

    Always one draw from the episode's generator, so that no other draw is moved.
    """
    if episode.rng.random() < episode.state["busy"]:
        episode.count("busy")
        episode.tag("after_busy")
        raise ToolBusy


def served(episode: Episode, tool: str) -> list[ToolResult]:
    """The calls of a tool that were answered: neither busy nor mistaken."""
    busy = str(ToolBusy())
    return [r for r in episode.calls if r.call.name == tool and not r.error and r.text != busy]
