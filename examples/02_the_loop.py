"""The loop of the trainer in one screen: play -> credit -> learn -> publish.

A tiny model sees some demonstrations of example 01, half of them careless, and then learns by GRPO to book before it
answers. Left out: a second process, staleness, evaluation, checkpoints (`agentgym train` has them).
"""

import asyncio
import copy
from functools import partial
from pathlib import Path

import torch

import agentgym as ag
from agentgym.config import ModelConfig
from agentgym.engines.local import LocalEngine
from agentgym.rollout.agent import Agent
from agentgym.rollout.collector import Collector
from agentgym.rollout.episode import Limits
from agentgym.rollout.renderer import ChatRenderer
from agentgym.trainers.batch import build_rows
from agentgym.trainers.credit.grpo import grpo
from agentgym.trainers.demonstrations import demonstration_rows, expert_demonstrations
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.losses import supervised_loss
from agentgym.trainers.losses.grpo import grpo_loss
from agentgym.trainers.tiny_model import build_model, build_tokenizer, conversation_texts
from agentgym.types import GroupRequest
from agentgym.weights import WeightUpdate

ENV, CONTEXT, STEPS = f"{Path(__file__).with_name('01_custom_tool_env.py')}:bookings", 192, 14


async def main() -> None:
    torch.set_num_threads(1)
    env = ag.make_env(ENV)
    shown = await expert_demonstrations(env, 64, seed=0)
    tokenizer = build_tokenizer(conversation_texts([d.messages for d in shown], shown[0].tools))
    model = build_model(len(tokenizer), ModelConfig(layers=2, width=64), max_context=CONTEXT, seed=0)
    renderer = ChatRenderer(tokenizer)
    learner = Learner(model, LearnerOptions(lr=4e-3, optimizer="muon"))
    rows = demonstration_rows(renderer, shown, CONTEXT)
    for step in range(60):  # a warm start, so that there is something to reward
        learner.train(rows, supervised_loss, seed=step)
    learner.restart(LearnerOptions(lr=6e-4, minibatches=2))
    engine = LocalEngine(copy.deepcopy(model), slots=64, max_context=CONTEXT)
    collector = Collector(Agent(engine, renderer, renderer.parser), ag.make_env, Limits(message_tokens=32))

    for step in range(STEPS):
        requests = [GroupRequest(f"{step}:{task}", ENV, task, size=8, seed=0) for task in range(len(env.tasks()))]
        groups = await asyncio.gather(*map(collector.play_group, requests))  # play
        credits = list(map(partial(grpo, std=True), groups))  # credit
        batch = build_rows(groups, credits, version=step, max_staleness=0)
        learner.train(batch.rows, grpo_loss, seed=step)  # learn
        await engine.update_weights(WeightUpdate(step + 1, tensors=dict(model.named_parameters())))  # publish
        rewards = [t.reward for group in groups for t in group.trajectories if t.reward is not None]
        print(f"step {step + 1:2}  reward {sum(rewards) / len(rewards):.2f}", flush=True)


asyncio.run(main())
