"""One training run of TRL's GRPOTrainer on `agentgym/Store-v0`, in a process of its own, measured: half of `vs_trl.py`.

The environment is Store-v0's own code under the shape that `environment_factory` asks for: `setup` draws the prices,
the tools are the env's functions, the reward is the env's. What TRL does itself stays TRL's: it ends an episode at a
malformed call, and answers wrong arguments in its own words, where agentgym tells the model and lets it try again.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from agentgym.config import Config, load_config
from agentgym.envs.store import StoreEnv, calculator, lookup
from agentgym.tools.arguments import BadArguments
from agentgym.tools.decorator import ToolBusy
from agentgym.tools.episode import Episode
from agentgym.trainers.frontier import Frontier, TaskSource

# how the tiny tokenizer's assistant messages read, in the form of transformers' response templates
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|end\|>\s*", "content": "text"},
    },
}
WARM_UP_GROUPS = 4


def environment_class(env: StoreEnv, seed: int) -> type:
    """Store-v0 as a class for `environment_factory`; all its instances share `env` and one generator."""
    tasks, rng = env.tasks("train"), np.random.default_rng(seed)

    class Store:
        episode: Episode

        def reset(self, task: int, **_: Any) -> None:
            self.episode = Episode(tasks[task], rng)
            env.setup(self.episode)

        def lookup(self, item: str) -> str:
            """The price of an item of the store. A busy tool should be called again.

            Args:
                item: the item's name, such as pear
            """
            return _answer(lookup, item, self.episode)

        def calculator(self, expression: str) -> str:
            """Compute an arithmetic expression of numbers. A busy tool should be called again.

            Args:
                expression: the expression, such as 37*4+12
            """
            return _answer(calculator, expression, self.episode)

    return Store


def _answer(tool: Callable[..., Any], argument: str, episode: Episode) -> str:
    """What the env's tool set would answer."""
    try:
        return str(tool(argument, episode))
    except ToolBusy as busy:
        return str(busy)
    except BadArguments as e:
        return f"error: {e}"
    except Exception as e:
        return f"error: {type(e).__name__}: {e}"


class Rewards:
    """The reward function: the env's own, on the last message. Keeps each batch's mean reward and turns."""

    __name__ = "store"

    def __init__(self, env: StoreEnv):
        self._env = env
        self.batches: list[dict[str, float]] = []

    def __call__(self, completions: Sequence[Any], environments: Sequence[Any], **_: Any) -> list[float]:
        rewards = []
        for messages, environment in zip(completions, environments, strict=True):
            last = messages[-1]
            answer = last["content"] if last["role"] == "assistant" and not last.get("tool_calls") else ""
            rewards.append(self._env.reward(environment.episode.task, answer, environment.episode))
        turns = [sum(message["role"] == "assistant" for message in messages) for messages in completions]
        self.batches.append({"reward": float(np.mean(rewards)), "turns": float(np.mean(turns))})
        return rewards


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """CPU- and wall-seconds of the process and its children, from the first batch to the last."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = _now()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        cpu, wall = _now()
        self.cpu_s, self.wall_s = cpu - self._began[0], wall - self._began[1]


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used), time.perf_counter()


def dataset(env: StoreEnv, config: Config, batches: int) -> Dataset:
    """The prompts of `batches` batches: the same tasks, in the same order, as `agentgym train` plays them."""
    tasks = env.tasks("train")
    source = TaskSource(config.env.id, [task.id for task in tasks])
    frontier = Frontier([source], config.rollout.group_size, config.run.seed)
    chosen = [frontier.next().task for _ in range(batches * config.rollout.groups)]
    prompts = [[{"role": "user", "content": tasks[int(i)].prompt}] for i in chosen]
    return Dataset.from_dict({"prompt": prompts, "task": chosen})


def grpo_config(config: Config, batches: int, setting: dict[str, Any], folder: str) -> GRPOConfig:
    """TRL's arguments for the job of `config`; `setting` says the rest, `micro` being the rows of a forward pass."""
    setting = dict(setting)
    rollout, learner = config.rollout, config.learner
    rows = rollout.groups * rollout.group_size
    micro = setting.pop("micro")
    setting.pop("attn_implementation", None)
    job = {
        "per_device_train_batch_size": micro,
        "steps_per_generation": rows // micro,
        "gradient_accumulation_steps": rows // learner.minibatches // micro,
        "num_generations": rollout.group_size,
        "max_steps": batches * learner.minibatches,
        "max_completion_length": config.engine.max_context,
        "generation_kwargs": {"max_new_tokens": rollout.max_tokens},
        "max_tool_calling_iterations": StoreEnv.max_turns - 1,
        "temperature": rollout.temperature,
        "learning_rate": learner.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": learner.weight_decay,
        "adam_beta2": 0.95,
        "max_grad_norm": learner.grad_clip,
        "epsilon": learner.clip_low,
        "epsilon_high": learner.clip_high,
        "beta": 0.0,  # no reference model
        "num_iterations": 1,
        "shuffle_dataset": False,
        "seed": config.run.seed,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "output_dir": folder,
    }
    return GRPOConfig(**{**job, **setting})


def train(model: str, config: Config, steps: int, setting: dict[str, Any]) -> tuple[Rewards, Clock]:
    """Train the weights of the folder `model`, loaded afresh, for `steps` batches."""
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.response_template = RESPONSE_TEMPLATE
    attention = setting.get("attn_implementation", "sdpa")
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=attention)
    env = StoreEnv()
    rewards, clock = Rewards(env), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=weights,
            reward_funcs=rewards,
            args=grpo_config(config, steps, setting, folder),
            train_dataset=dataset(env, config, steps),
            processing_class=tokenizer,
            environment_factory=environment_class(env, config.run.seed),
            callbacks=[clock],
        )
        trainer.train()
    return rewards, clock


def measure(model: str, config: Config, steps: int, setting: dict[str, Any]) -> dict[str, Any]:
    """A small batch, thrown away, warms the process up; then the run that is measured."""
    small = config.model_copy(deep=True)
    small.rollout.groups = WARM_UP_GROUPS
    rows = WARM_UP_GROUPS * config.rollout.group_size // config.learner.minibatches
    train(model, small, 1, {**setting, "micro": min(setting["micro"], rows)})
    rewards, clock = train(model, config, steps, setting)
    trajectories = steps * config.rollout.groups * config.rollout.group_size
    return {
        "trajectories_per_cpu_s": trajectories / clock.cpu_s,
        "trajectories": trajectories,
        "cpu_s": clock.cpu_s,
        "wall_s": clock.wall_s,
        "rewards": [batch["reward"] for batch in rewards.batches],
        "turns": [batch["turns"] for batch in rewards.batches],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="store")
    parser.add_argument("--model", required=True, help="a model folder with the tiny model's chat template")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--setting", type=json.loads, default={"micro": 128})
    parser.add_argument("overrides", nargs="*", help="of the recipe, as for `agentgym train`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.recipe, args.overrides)
    args.json.write_text(json.dumps(measure(args.model, config, args.steps, args.setting)))


if __name__ == "__main__":
    main()
