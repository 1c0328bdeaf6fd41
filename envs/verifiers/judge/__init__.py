"""A language model as a grader, behind any OpenAI-compatible endpoint: `Judge` scores, `RankJudge` compares a group.

    judge = Judge("http://localhost:8000/v1", "Polite and complete. 10: both; 1: neither.", model="big")
    env = ToolEnv(tasks, reward=[right_number, Component(judge, "style", 0.3)])

A judge that cannot be reached, or answers nonsense, gives no verdict (`Outcome.error`): the episode is unscored.
"""

from agentgym.envs.verifiers.judge.pointwise import Judge
from agentgym.envs.verifiers.judge.ranked import RankJudge

__all__ = ["Judge", "RankJudge"]
