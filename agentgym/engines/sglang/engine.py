"""One SGLang server as an engine: token ids in; ids, logprobs and policy versions out.

A completion that the server breaks off (paused by `abort`, or ended by a stop token of the model's own that was not
asked for) is continued from where it came to, in a request of its own; each token keeps its logprob and version. It
leaves out: adapters, streaming.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.engines.load import Load
from agentgym.engines.sglang import memory
from agentgym.engines.sglang.client import Missing, ServerClient
from agentgym.engines.sglang.experts import Told
from agentgym.engines.sglang.facts import ONE_TOKEN, ServerFacts, ask_facts
from agentgym.engines.sglang.labels import Labels, UnknownWeights
from agentgym.engines.sglang.layout import EMBEDDING, HEAD, ModelLayout, folder_shapes
from agentgym.engines.sglang.load import ask_load
from agentgym.engines.sglang.proof import prove
from agentgym.engines.sglang.refit import PauseMode, Refit
from agentgym.engines.sglang.sampling import Segment, read_segment, request_body
from agentgym.engines.stats import EngineStats
from agentgym.errors import EngineFault, EngineGone, ModelError
from agentgym.types import Completion, FinishReason, SamplingParams
from agentgym.weights import WeightUpdate

FRUITLESS = 20
"""Times in a row that a request may be broken off without a token before it is given up."""
LOAD_SECONDS = 600.0
"""Seconds that a server may take for new weights."""


class SGLangEngine:
    """Implements `protocols.Engine` by the server at `url`, which is asked what it is when this is made.

    layout: of the model's folder, where it lies on this machine: the server's model, token ids and new weights are held
    against it; version: the policy version of the weights it runs; timeout: seconds
    of one request; max_context: tokens of a sequence, prompt included, 0 for the server's limit; pause: see `refit`;
    facts: what is known of the server already, which then is not asked; mark: see `Labels`.
    Raises `ModelError` for a server with another model, `EngineFault` for what is no SGLang server, `EngineGone` for
    one that is away.
    """

    def __init__(
        self,
        url: str,
        *,
        layout: ModelLayout | None = None,
        version: int = 0,
        timeout: float = 300.0,
        max_context: int = 0,
        pause: PauseMode = "retract",
        seed: int | None = None,
        facts: ServerFacts | None = None,
        mark: str = "",
    ):
        self._client = ServerClient(url, timeout=timeout)
        self._mark = mark
        self._layout, self._pause = layout, pause
        self._max_context = max_context
        self._seeds = random.Random(seed)
        self._stats = EngineStats()
        self._version = version
        self._closed = False
        self._tells_load = True
        self._meet(facts or ask_facts(self._client, timeout=min(timeout, 30.0)), version)

    def _meet(self, facts: ServerFacts, version: int) -> None:
        mine, theirs = self._layout.kind if self._layout else "", facts.model_kind
        if self._layout and mine and theirs and mine != theirs:
            raise ModelError(
                f"{self._client.name}: serves {facts.model_path} (a {theirs}), and this run trains "
                f"{self._layout.folder} (a {mine}): start the server on that folder"
            )
        self.facts = facts
        self._labels = Labels(facts.label, version, self._mark)
        self._refit = Refit(self._client, facts, self._pause)
        limit = min(self._max_context or facts.max_total, facts.max_total)
        self._context = limit

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def url(self) -> str:
        return self._client.url

    @property
    def version(self) -> int:
        return self._version

    @property
    def paused_s(self) -> float:
        """Seconds for which the last update of the weights held up generation."""
        return self._refit.seconds

    @property
    def stats(self) -> dict[str, float]:
        """The counters of `EngineStats` by name: of what went through this engine, not through the server."""
        return self._stats.row()

    async def generate(self, ids: Sequence[int], params: SamplingParams, *, session: str | None = None) -> Completion:
        """Continue `ids`; see `protocols.Engine`. The server finds a session's cache by its tokens."""
        if self._closed:
            raise EngineFault("the engine is closed")
        prompt = self._check(ids)
        limit = min(params.max_tokens, self._context - len(prompt))
        if limit <= 0 or len(prompt) > self.facts.max_prompt:
            nothing = np.zeros(0, np.int32)
            return Completion(nothing, np.zeros(0, np.float32), nothing, "length")
        self._stats.running += 1
        try:
            return await self._complete(prompt, params, limit)
        finally:
            self._stats.running -= 1

    async def release(self, session: str) -> None:
        """The server forgets what it needs room for."""

    async def update_weights(self, update: WeightUpdate) -> None:
        """Bring new weights into the server and have it prove them; tensors go by a folder of this machine."""
        if self._closed:
            raise EngineFault("the engine is closed")
        self._fits(update)
        with contextlib.ExitStack() as stack:
            if update.tensors is not None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgym-weights-"))
                path = _in_folder(update.tensors, Path(folder), self._layout is not None and self._layout.tied)
                update = replace(update, tensors=None, path=path)
            try:
                # a token of the new weights may be answered before this call ends
                await asyncio.wait_for(self._refit.carry(update, self._labels.of(update.version)), LOAD_SECONDS)
            except TimeoutError:
                raise EngineGone(f"{self.name}: took no new weights within {LOAD_SECONDS:g} s") from None
        if update.proof is not None:
            await prove(self._client, self.facts, update.proof, update.version)
        self._version = update.version

    async def release_memory(self) -> None:
        """See `memory`. Raises `EngineFault`."""
        await memory.release(self._client)

    async def resume_memory(self) -> None:
        """New weights have to follow."""
        await memory.resume(self._client)

    async def healthy(self, timeout: float = 30.0) -> bool:
        """Whether it still samples: one that hangs may answer for itself, and never for its model. Not while it is
        paused."""
        try:
            try:
                await self._client.get("health_generate", timeout=timeout)
            except Missing:
                await self._client.post("generate", ONE_TOKEN, timeout=timeout)
        except EngineFault:
            return False
        return True

    async def load(self) -> Load:
        """What the server has to do; nothing, as far as is known, where it does not say or does not answer."""
        with contextlib.suppress(EngineFault):
            if self._tells_load and (load := await ask_load(self._client)) is not None:
                return load
            self._tells_load = False
        return Load()

    async def reconnect(self, version: int) -> None:
        """The server was started anew, with the weights of `version`."""
        facts = await asyncio.to_thread(ask_facts, self._client)
        await self._refit.aclose()
        self._meet(facts, version)
        self._version = version

    async def move(self, url: str, facts: ServerFacts, version: int) -> None:
        """Its server is at another address now; what is still asked of the former one fails there."""
        former, self._client = self._client, ServerClient(url, timeout=self._client.timeout)
        self._meet(facts, version)
        self._version = version
        await former.aclose()

    async def aclose(self) -> None:
        """Refuse what comes later; the server goes on."""
        if self._closed:
            return
        self._closed = True
        await self._refit.aclose()
        await self._client.aclose()

    # ---- parts ----

    async def _complete(self, prompt: list[int], params: SamplingParams, limit: int) -> Completion:
        seed = params.seed if params.seed is not None else self._seeds.getrandbits(62)
        ids: list[int] = []
        logprobs: list[float] = []
        versions: list[int] = []
        fruitless = 0
        told = self._telling(params)
        while True:
            asked = replace(params, experts_from=told.known) if told is not None else params
            segment = await self._ask(prompt + ids, asked, limit - len(ids), seed)
            if told is not None:
                with self._named():
                    told.add(segment, len(prompt) + len(ids))
            ids += segment.ids
            logprobs += segment.logprobs
            versions += segment.versions
            if reason := _ended(ids, segment, params, limit):
                return Completion(
                    np.asarray(ids, np.int32),
                    np.asarray(logprobs, np.float32),
                    np.asarray(versions, np.int32),
                    reason,
                    experts=told.experts if told is not None else None,
                )
            fruitless = 0 if segment.ids else fruitless + 1
            if fruitless >= FRUITLESS:
                raise EngineFault(f"{self.name}: broke off a request {fruitless} times without a token")
            if fruitless:
                await asyncio.sleep(0.05 * fruitless)

    async def _ask(self, ids: list[int], params: SamplingParams, limit: int, seed: int) -> Segment:
        rid = uuid.uuid4().hex
        try:
            answer = await self._client.post("generate", request_body(rid, ids, params, limit, seed))
        except (asyncio.CancelledError, EngineGone):
            await self._abort(rid)
            raise
        if self._closed:
            raise EngineFault("the engine was closed")
        with self._named():
            segment = read_segment(answer, self._labels.version)
        self._count(segment)
        return segment

    def _telling(self, params: SamplingParams) -> Told | None:
        """Where experts are asked for, what is known of them so far."""
        if params.experts_from is None:
            return None
        if self._layout is None or self._layout.mixture is None:
            raise EngineFault(f"{self.name}: experts were asked for, and no folder here says how many the model has")
        return Told(self._layout.mixture, params.experts_from)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Faults of an answer, with the server's name."""
        try:
            yield
        except UnknownWeights as e:
            raise EngineGone(f"{self.name}: {e}") from None
        except EngineFault as e:
            raise EngineFault(f"{self.name}: {e}") from None

    async def _abort(self, rid: str) -> None:
        """Nobody waits for it any more: its place is for others. Bounded, for whoever was cancelled has to end."""
        with contextlib.suppress(EngineFault, asyncio.CancelledError):
            await self._client.post("abort_request", {"rid": rid}, timeout=2.0)

    def _count(self, segment: Segment) -> None:
        stats = self._stats
        stats.tokens += len(segment.ids)
        stats.cached_tokens += segment.cached_tokens
        stats.prefill_tokens += segment.prompt_tokens - segment.cached_tokens
        stats.cache_hits += segment.cached_tokens > 0

    def _check(self, ids: Sequence[int]) -> list[int]:
        prompt = [int(i) for i in ids]
        if not prompt:
            raise EngineFault("a prompt needs at least one token id")
        low, high = min(prompt), max(prompt)
        vocabulary = self._layout.vocabulary if self._layout else 1 << 31
        if low < 0 or high >= vocabulary:  # a server answers such ids with tokens of no meaning
            wrong = low if low < 0 else high
            raise EngineFault(f"token id {wrong} is outside the model's vocabulary of {vocabulary}")
        return prompt

    def _fits(self, update: WeightUpdate) -> None:
        if update.kind != "full":
            raise ModelError("weight update: SGLang engines take full weights; merge the adapter first")
        given = (update.tensors is not None, update.path is not None, update.sender is not None, bool(update.handles))
        if sum(given) != 1:
            raise ModelError("weight update: give either tensors, a path, a sender or handles")
        if update.path is not None and not folder_shapes(update.path):
            raise ModelError(f"{update.path}: holds no model weights (*.safetensors)")
        if self._layout is None:
            return
        if update.path is not None:
            self._layout.check(folder_shapes(update.path))
        if update.tensors is not None:
            self._layout.check({name: tuple(tensor.shape) for name, tensor in update.tensors.items()})
            if self._layout.tied:
                _check_tied(update.tensors)


def _ended(ids: list[int], segment: Segment, params: SamplingParams, limit: int) -> FinishReason | None:
    """Why the completion is over; None where it goes on in another request."""
    if segment.ids and ids[-1] in params.stop_ids:
        return "stop"
    if len(ids) >= limit or segment.reason == "length":  # the server may have less room than it said
        return "length"
    return None  # broken off, or ended by a stop token of the model's own, which is a token like any other here


def _in_folder(tensors: Any, folder: Path, tied: bool) -> str:
    """Write named tensors as a folder; a head that is the embedding is left out (a file holds no tensor twice)."""
    from safetensors.torch import save_file

    kept = {name: t.detach().contiguous() for name, t in tensors.items() if not (tied and name == HEAD)}
    save_file(kept, folder / "model.safetensors")
    return str(folder)


def _check_tied(tensors: Any) -> None:
    import torch

    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ModelError(f"weights do not fit the model: {EMBEDDING!r} and {HEAD!r} are tied but differ")
