"""A torch engine in this process: continuous batching over a transformers model, with a cache of its own.

Sequences join and leave between steps. A task of the running event loop makes one step, resolves the requests that
ended, and lets everybody else run before the next; it lives only while there is work. It leaves out: truncated
sampling (top-p, top-k), adapters, several devices.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agentgym.engines.runner import ModelRunner
from agentgym.engines.sampler import sample, uniforms
from agentgym.engines.size import context_of, slots_of
from agentgym.engines.slots import Request, SlotTable
from agentgym.engines.stats import EngineStats
from agentgym.engines.weights import load_update
from agentgym.errors import EngineFault, ModelError
from agentgym.hub import check_model
from agentgym.types import Completion, FinishReason, SamplingParams
from agentgym.weights import WeightUpdate


class LocalEngine:
    """Implements `protocols.Engine`. It owns `model` from here on (moved, put in eval mode, attention exchanged).

    slots: sequences held at once, idle sessions included, fewer where memory has no room for so many; max_context:
    tokens of a sequence, prompt included, 0 for the model's own (`size.context_of`);
    threads: torch's intra-op threads on a CPU, set for the whole process; prefill_tokens: context tokens run in one
    step; seed: of the seeds for requests that come without one; routing: tell the experts of tokens to those who ask.
    Raises `ModelError` for a model it cannot run, or whose experts it cannot tell.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int = 96,
        max_context: int = 0,
        device: str = "cpu",
        threads: int = 1,
        prefill_tokens: int = 4096,
        version: int = 0,
        seed: int | None = None,
        routing: bool = False,
        keep_caches: bool = False,
    ):
        place = torch.device(device)
        if place.type == "cpu":
            torch.set_num_threads(threads)
        max_context = context_of(model.config, max_context)
        self._table = SlotTable(slots_of(model, slots, max_context, place), max_context)
        self._runner = ModelRunner(model, self._table, place, prefill_tokens, routing=routing)
        self._waiting: deque[Request] = deque()
        self._version = version
        self._keep_caches = keep_caches
        self._seeds = random.Random(seed)
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._stats = EngineStats()
        self._cpu = time.thread_time if threads == 1 else time.process_time

    @classmethod
    def from_pretrained(cls, path: str, *, dtype: str = "float32", revision: str = "", **options: Any) -> LocalEngine:
        """Load a Hugging Face folder or id; options are those of the class. Raises `ModelError`."""
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        check_model(path, revision)
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, revision=revision or "main")
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
            raise ModelError(f"{path}: cannot load the model: {e}") from e
        return cls(model, **options)

    @property
    def version(self) -> int:
        return self._version

    @property
    def slots(self) -> int:
        """Sequences it has room for."""
        return self._table.slots

    @property
    def stats(self) -> dict[str, float]:
        """The counters of `EngineStats` by name."""
        self._stats.evictions = self._table.evictions
        self._stats.running = int(self._table.running.sum())
        self._stats.waiting = len(self._waiting)
        return self._stats.row()

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        """Continue `ids`; see `protocols.Engine`. Raises `EngineFault` for ids the model does not have."""
        if self._closed:
            raise EngineFault("the engine is closed")
        prompt = self._check(ids)
        if len(prompt) >= self._table.max_context or params.max_tokens <= 0:
            nothing = np.zeros(0, np.int32)
            return Completion(nothing, np.zeros(0, np.float32), nothing, "length")
        seed = params.seed if params.seed is not None else self._seeds.getrandbits(64)
        request = Request(prompt, params, seed, session, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._wake()
        try:
            return await request.future
        finally:
            if not request.future.done() or request.future.cancelled():
                self._drop(request)

    async def release(self, session: str) -> None:
        self._table.release(session)

    async def update_weights(self, update: WeightUpdate) -> None:
        """Take new weights; raises `ModelError` naming what does not fit, and then keeps the old ones."""
        # a step never awaits, so this runs between two of them
        load_update(self._runner.model, update)
        self._runner.refresh()
        if not self._keep_caches:
            self._table.forget_caches()
        self._version = update.version

    async def aclose(self) -> None:
        """Fail whatever is under way with `EngineFault` and refuse what comes later."""
        self._closed = True
        self._fail(EngineFault("the engine was closed"))

    def _check(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
        prompt = np.asarray(ids, dtype=np.int32)
        if prompt.ndim != 1 or not len(prompt):
            raise EngineFault("a prompt needs at least one token id")
        low, high = int(prompt.min()), int(prompt.max())
        if low < 0 or high >= self._runner.vocab:
            wrong = low if low < 0 else high
            raise EngineFault(f"token id {wrong} is outside the model's vocabulary of {self._runner.vocab}")
        return prompt

    def _drop(self, request: Request) -> None:
        """The caller went away: give its place to others."""
        if request.slot >= 0:
            if self._table.requests[request.slot] is request:
                self._table.vacate(request.slot)
        elif request in self._waiting:
            self._waiting.remove(request)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pump is None or self._pump.done() or self._pump.get_loop() is not loop:
            self._pump = loop.create_task(self._run(), name="engine")

    async def _run(self) -> None:
        """Step while there is work; everybody else runs between two steps."""
        try:
            # let the requests of this moment gather before the first step
            await asyncio.sleep(0)
            while self._admit() or self._table.running.any():
                try:
                    self._step()
                except Exception as e:
                    self._runner.cache.clear()
                    self._table.forget_caches()
                    self._fail(e if isinstance(e, EngineFault) else EngineFault(f"step: {type(e).__name__}: {e}"), True)
                await asyncio.sleep(0)
        finally:
            self._pump = None
            self._fail(EngineFault("the engine's task was ended"))

    def _admit(self) -> bool:
        """Seat waiting requests, first come first served; True when one was seated.

        One whose context another is about to run stays until the next step, and then takes it from there.
        """
        admitted = False
        later: list[Request] = []
        while self._waiting:
            seating = self._table.admit(self._waiting[0])
            if seating == "full":
                break
            request = self._waiting.popleft()
            if seating == "later":
                later.append(request)
                continue
            found = int(self._table.cached[request.slot])
            self._stats.cached_tokens += found
            self._stats.cache_hits += found > 0
            admitted = True
        self._waiting.extendleft(reversed(later))
        return admitted

    @torch.inference_mode()
    def _step(self) -> None:
        wall, cpu = time.perf_counter(), self._cpu()
        result = self._runner.step()
        if result is not None and len(result[0]):
            slots, logits = result
            table = self._table
            at = table.total[slots]
            tokens, logprobs = sample(logits, table.temperature[slots], uniforms(table.seed[slots], at))
        self._stats.wall_s += time.perf_counter() - wall
        self._stats.cpu_s += self._cpu() - cpu
        self._stats.pack_s = self._runner.pack_s
        self._stats.steps += 1
        self._stats.prefill_tokens = self._runner.prefilled
        if result is not None and len(result[0]):
            self._record(slots, at, tokens, logprobs)

    def _record(self, slots: Any, at: Any, tokens: Any, logprobs: Any) -> None:
        """Write down what was sampled and resolve the requests that ended."""
        if not np.isfinite(logprobs).all():
            bad = int(slots[~np.isfinite(logprobs)][0])
            raise EngineFault(f"the model's logits are NaN or infinite (version {self._version}, slot {bad})")
        table = self._table
        table.tokens[slots, at] = tokens
        table.logprobs[slots, at] = logprobs
        table.versions[slots, at] = self._version
        table.total[slots] = at + 1
        self._stats.tokens += len(slots)
        stopped = (table.stops[slots] == tokens[:, None]).any(axis=1)
        full = at + 1 >= table.limit[slots]
        for i in np.flatnonzero(stopped | full).tolist():
            reason: FinishReason = "stop" if stopped[i] else "length"
            request, completion = table.finish(int(slots[i]), reason)
            if self._runner.experts is not None and (first := request.params.experts_from) is not None:
                told = self._runner.experts.read(int(slots[i]), first, int(at[i]))
                completion = replace(completion, experts=told)
            if not request.future.done():
                request.future.set_result(completion)

    def _fail(self, fault: EngineFault, running_only: bool = False) -> None:
        """Fail the running requests, and the waiting ones unless told otherwise."""
        for slot in np.flatnonzero(self._table.running).tolist():
            request = self._table.requests[slot]
            self._table.vacate(slot)
            if request is not None and not request.future.done():
                request.future.set_exception(fault)
        while self._waiting and not running_only:
            request = self._waiting.popleft()
            if not request.future.done():
                request.future.set_exception(fault)
