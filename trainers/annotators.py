"""The annotator that a run's credit asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.config import Config
from agentgym.trainers.annotate import Annotator
from agentgym.trainers.critic import ValueHead
from agentgym.trainers.gold_likelihood import GoldLikelihood
from agentgym.trainers.learner import Learner


def make_annotator(
    config: Config, learner: Learner, tokenizer: Any, answers: Mapping[tuple[str, str], Any]
) -> Annotator:
    """By `trainer.credit` and the section `credit`. answers: those of the tasks, by env and task id."""
    if config.trainer.control == "rejection_sampling":
        return Annotator()
    if config.trainer.credit == "progress" and config.credit.score == "gold":
        texts = {task: str(answer) for task, answer in answers.items()}
        return GoldLikelihood(learner, tokenizer, texts, config.engine.max_context)
    if config.trainer.credit == "bilevel_gae":
        return ValueHead(learner, config.credit, seed=config.run.seed)
    return Annotator()
