"""Tools that are busy now and then, so that a call has to be made again."""

from __future__ import annotations

from agentgym.tools.episode import Episode
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
