"""Tokens per CPU-second of a learner step on the default model, against TRL's trainer step on the same batch.

    python benchmarks/learner.py [--json FILE] [--pairs 7] [--screen 2]

The batch is that of the `store` recipe: 256 episodes of Store-v0 as its scripted expert plays them, tokenised for the
recipe's own model; two AdamW steps, each on half of them. Each side gets the tokens, the mask, the logprobs and the
advantages, and makes the same two updates: forward, backward, clipping, optimizer; fp32, one thread, one process.
TRL's GRPOTrainer runs its own loop, in which only the playing is replaced by handing the batch over. Its settings are
searched first, each change kept where it is faster; then both sides take turns, and `ratio` is the median of the
pairs' ratios. `packing` is the share of real tokens in packed bins of 16,384 tokens, of 1,024 rows with lengths from
20 to 8,000 (lognormal).

Counted are user and system CPU-seconds: of TRL from the begin of an optimizer step to its end, so that fetching from
its data loader is left out; of ours all of `Learner.train`. TRL is given old logprobs and does not compute them again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, spread, versions, write
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOTrainer
from trl_store import dataset, grpo_config

from agentgym.config import Config, load_config
from agentgym.envs.store import StoreEnv
from agentgym.rollout.make import make_renderer
from agentgym.rollout.worker import env_factory
from agentgym.run_folder import RunFolder
from agentgym.trainers.batch import Row
from agentgym.trainers.demonstrations import demonstration_rows, expert_demonstrations
from agentgym.trainers.learner import Learner
from agentgym.trainers.losses import make_loss
from agentgym.trainers.models import load_model
from agentgym.trainers.origin import starting_model
from agentgym.trainers.packing import bins, fill
from agentgym.trainers.warm_start import rl_options

# TRL has no agreement between gradients; the rest is the recipe's
JOB = ("learner.warmup=0", "learner.decay=none", "learner.agreement=0", "run.live=off")
TRL_DEFAULT = {"micro": 8, "gradient_checkpointing": True}
SEARCH: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False},
    {"micro": 16},
    {"micro": 32},
    {"micro": 64},
    {"micro": 128},
    {"attn_implementation": "eager"},
    {"optim": "adamw_torch"},
)
BUDGET = 16384


def batch(config: Config, folder: Path) -> tuple[str, list[Row]]:
    """A model folder as the recipe builds it, and a step's episodes with advantages, named by their number."""
    run = RunFolder.create(folder, config)
    make_env = env_factory(config, demonstrations=True)
    count = config.rollout.groups * config.rollout.group_size
    shown = asyncio.run(expert_demonstrations(make_env(config.env.label), count, config.run.seed))
    _, _, path = asyncio.run(starting_model(config, run, make_env, shown))
    given = demonstration_rows(make_renderer(path, config), shown, config.engine.max_context)[:count]
    assert len(given) == count
    rng = np.random.default_rng(config.run.seed)
    rows = [replace(row, advantages=(rng.normal() * row.mask).astype(np.float32)) for row in given]
    logprobs = Learner(load_model(path), rl_options(config)).logprobs(rows)
    return path, [replace(row, logprobs=old) for row, old in zip(rows, logprobs, strict=True)]


class Ours:
    def __init__(self, path: str, config: Config, rows: Sequence[Row]):
        self._learner, self._loss = Learner(load_model(path), rl_options(config)), make_loss(config)
        self._rows, self._count = rows, 0

    def step(self) -> float:
        """CPU-seconds of one batch."""
        began = time.process_time()
        metrics = self._learner.train(self._rows, self._loss, seed=self._count)
        self._count += 1
        assert metrics["grad_norm"] > 0
        return time.process_time() - began


class Stopwatch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    cpu_s = 0.0
    steps = 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.cpu_s += time.process_time() - self._began
        self.steps += 1


class Given(GRPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """TRL's trainer, to which a batch is given instead of played."""

    given: dict[str, Any]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        return dict(self.given)


class Theirs:
    def __init__(self, path: str, config: Config, rows: Sequence[Row], setting: dict[str, Any]):
        self._config, self._rows, self._setting = config, rows, setting
        attention = setting.get("attn_implementation", "sdpa")
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention)
        self._tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")

    def step(self) -> float:
        """CPU-seconds of one batch."""
        watch = Stopwatch()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Given(
                model=self._model,
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                args=grpo_config(self._config, 1, self._setting, folder),
                train_dataset=dataset(StoreEnv(), self._config, 1),
                processing_class=self._tokenizer,
                callbacks=[watch],
            )
            trainer.given = as_trl_has_it(self._rows, self._tokenizer.pad_token_id)
            trainer.train()
        assert watch.steps == self._config.learner.minibatches
        return watch.cpu_s


def as_trl_has_it(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, all that follows on the right, tools' words masked."""
    cuts = [int(np.argmax(row.mask > 0)) for row in rows]
    prompt, after = max(cuts), max(len(row.ids) - cut for row, cut in zip(rows, cuts, strict=True))
    made = {
        "prompt_ids": torch.full((len(rows), prompt), pad),
        "prompt_mask": torch.zeros(len(rows), prompt, dtype=torch.long),
        "completion_ids": torch.full((len(rows), after), pad),
        "completion_mask": torch.zeros(len(rows), after, dtype=torch.long),
        "tool_mask": torch.zeros(len(rows), after, dtype=torch.long),
        "old_per_token_logps": torch.zeros(len(rows), after),
    }
    for i, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        rest = len(row.ids) - cut
        made["prompt_ids"][i, prompt - cut :] = torch.from_numpy(row.ids[:cut].astype(np.int64))
        made["prompt_mask"][i, prompt - cut :] = 1
        made["completion_ids"][i, :rest] = torch.from_numpy(row.ids[cut:].astype(np.int64))
        made["completion_mask"][i, :rest] = 1
        made["tool_mask"][i, :rest] = torch.from_numpy((row.mask[cut:] > 0).astype(np.int64))
        made["old_per_token_logps"][i, :rest] = torch.from_numpy(row.logprobs[cut:])
    first = [row.advantages[cut] for row, cut in zip(rows, cuts, strict=True)]
    return {**made, "advantages": torch.tensor(first), "num_items_in_batch": made["tool_mask"].sum()}


def search(path: str, config: Config, rows: Sequence[Row], times: int) -> tuple[dict[str, Any], list[Any]]:
    """TRL's best of the settings tried, and what each took."""

    def took(setting: dict[str, Any]) -> float:
        side = Theirs(path, config, rows, setting)
        side.step()
        return min(side.step() for _ in range(times))

    best, tried = dict(TRL_DEFAULT), []
    lowest = took(best)
    tried.append({"setting": best, "cpu_s": lowest})
    for change in SEARCH:
        setting = {**best, **change}
        cpu = took(setting)
        tried.append({"setting": setting, "cpu_s": cpu})
        if cpu < lowest:
            best, lowest = setting, cpu
        print(f"TRL {setting}: {cpu:.2f} CPU-s")
    return best, tried


def long_tailed(seed: int = 0) -> list[Row]:
    lengths = np.exp(np.random.default_rng(seed).normal(6.0, 1.0, 1024)).clip(20, 8000).astype(int)
    made = []
    for n in lengths:
        none = np.zeros(n, np.float32)
        made.append(Row(np.zeros(n, np.int32), none, none, none, np.zeros(n, np.int32)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--screen", type=int, default=2, help="batches that each of TRL's settings is timed on")
    parser.add_argument("--setting", type=json.loads, help="of TRL, as JSON; none is searched then")
    args = parser.parse_args()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    torch.set_num_threads(1)
    config = load_config("store", JOB)
    packing = fill(bins(long_tailed(), BUDGET), "packed", BUDGET)
    with tempfile.TemporaryDirectory() as folder:
        path, rows = batch(config, Path(folder) / "run")
        tokens = sum(len(row.ids) for row in rows)
        setting, tried = (args.setting, []) if args.setting else search(path, config, rows, args.screen)
        ours, theirs = Ours(path, config, rows), Theirs(path, config, rows, setting)
        ours.step(), theirs.step()
        pairs = []
        for i in range(args.pairs):
            order = (ours, theirs) if i % 2 else (theirs, ours)
            took = {side: side.step() for side in order}
            pairs.append((took[ours], took[theirs]))
            print(f"pair {i}: {tokens / took[ours]:.0f} against {tokens / took[theirs]:.0f} tokens per CPU-second")
    ratios = [its / mine for mine, its in pairs]
    print(f"ratio {statistics.median(ratios):.2f}, packing {packing:.3f}")
    write(
        args.json,
        {
            "ratio": statistics.median(ratios),
            "packing": packing,
            "ratios": spread(ratios),
            "tokens_per_cpu_s": {
                "agentgym": spread([tokens / mine for mine, _ in pairs]),
                "trl": spread([tokens / its for _, its in pairs]),
            },
            "tokens": tokens,
            "trl_setting": setting,
            "trl_tried": tried,
            "counted": " ".join((__doc__ or "").split("Counted are")[1].split()),
            "machine": machine(),
            "versions": versions("torch", "transformers", "trl"),
        },
    )


if __name__ == "__main__":
    main()
