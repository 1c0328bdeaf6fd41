"""Who sits in which slot, and what every slot knows. Arrays over all slots, so that a step has no loop over tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from agentgym.types import Completion, FinishReason, Ids, SamplingParams

if TYPE_CHECKING:
    import asyncio

Counts: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Seating = Literal["seated", "later", "full"]
Copy = Callable[[int, int, int, int], None]
"""(source slot, target slot, first column, end column)"""
_WORTH = 12  # tokens of context that cost more to run than to copy


def _common(rows: npt.NDArray[np.int32], ids: Ids) -> Counts:
    """The length of the common beginning of each row [n, m] and ids [m]."""
    differ = rows != ids
    return np.where(differ.any(axis=1), differ.argmax(axis=1), len(ids)) if len(ids) else np.zeros(len(rows), np.int64)


def _no_copy(source: int, target: int, first: int, end: int) -> None:
    raise RuntimeError("this slot table has no cache")


@dataclass(slots=True, eq=False)
class Request:
    """One call of `generate` under way."""

    ids: Ids
    params: SamplingParams
    seed: int
    session: str | None
    future: asyncio.Future[Completion]
    slot: int = -1
    """-1: waiting for one."""


class SlotTable:
    """State of all slots. `total` tokens of a slot are known, the first `cached` of them lie in the cache.

    A slot with a request is running; one without may still be kept by an idle session, and is then given away when
    none is free, least recently used first.
    """

    def __init__(self, slots: int, max_context: int):
        self.slots, self.max_context = slots, max_context
        self.tokens = np.zeros((slots, max_context), np.int32)
        self.logprobs = np.zeros((slots, max_context), np.float32)
        self.versions = np.zeros((slots, max_context), np.int32)
        self.total = np.zeros(slots, np.int64)
        self.cached = np.zeros(slots, np.int64)
        self.start = np.zeros(slots, np.int64)  # tokens of the current request's prompt
        self.limit = np.zeros(slots, np.int64)  # tokens at which the current request is cut
        self.temperature = np.ones(slots, np.float32)
        self.seed = np.zeros(slots, np.uint64)
        self.stops = np.full((slots, 1), -1, np.int32)
        self.running = np.zeros(slots, bool)
        self.requests: list[Request | None] = [None] * slots
        self.evictions = 0
        self.copy: Copy = _no_copy
        """Copies cached columns between slots; set by whoever holds the cache."""
        self._sessions: dict[str, int] = {}  # in order of last use
        self._owner: list[str | None] = [None] * slots

    def admit(self, request: Request) -> Seating:
        """Seat a request if a slot can be had, with as much of its context cached as can be found anywhere."""
        if self._worth_waiting(request):
            return "later"
        slot = self._seat(request.session)
        if slot is None:
            return "full"
        request.slot = slot
        ids, length, params = request.ids, len(request.ids), request.params
        known = int(min(self.cached[slot], length - 1))  # one token at least must run, for its logits
        self.cached[slot] = _common(self.tokens[slot : slot + 1, :known], ids[:known])[0]
        self._borrow(slot, ids)
        self.tokens[slot, :length] = ids
        self.total[slot] = self.start[slot] = length
        self.limit[slot] = min(length + params.max_tokens, self.max_context)
        self.temperature[slot] = params.temperature
        self.seed[slot] = np.uint64(request.seed & 0xFFFFFFFFFFFFFFFF)
        self._set_stops(slot, params.stop_ids)
        self.running[slot] = True
        self.requests[slot] = request
        return "seated"

    def _borrow(self, slot: int, ids: Ids) -> None:
        """Copy what another slot has cached of the same beginning: the prompt of a group, a system prompt."""
        known, most = int(self.cached[slot]), len(ids) - 1
        if most - known < _WORTH:
            return
        shared = np.minimum(_common(self.tokens[:, :most], ids[:most]), self.cached)
        donor = int(shared.argmax())
        if shared[donor] - known >= _WORTH:
            self.copy(donor, slot, known, int(shared[donor]))
            self.cached[slot] = shared[donor]

    def _worth_waiting(self, request: Request) -> bool:
        """Whether a sequence that joins in the coming step will have much more of this context cached after it."""
        most = len(request.ids) - 1
        joining = self.running & (self.total - self.cached > _WORTH)
        if most < _WORTH or not joining.any():
            return False
        common = _common(self.tokens[:, :most], request.ids[:most])
        now = int(np.minimum(common, self.cached).max())
        soon = int(np.minimum(common, self.total)[joining].max())
        return soon - now >= _WORTH

    def finish(self, slot: int, reason: FinishReason) -> tuple[Request, Completion]:
        """Take the request off its slot; its session keeps the slot and cache."""
        request = self.requests[slot]
        assert request is not None
        sampled = slice(int(self.start[slot]), int(self.total[slot]))
        completion = Completion(
            self.tokens[slot, sampled].copy(),
            self.logprobs[slot, sampled].copy(),
            self.versions[slot, sampled].copy(),
            reason,
        )
        self.vacate(slot)
        return request, completion

    def vacate(self, slot: int) -> None:
        """End the request of a slot, whatever came of it."""
        self.requests[slot] = None
        self.running[slot] = False

    def release(self, session: str) -> None:
        slot = self._sessions.pop(session, None)
        if slot is not None:
            self._owner[slot] = None

    def forget_caches(self) -> None:
        self.cached[:] = 0

    def _seat(self, session: str | None) -> int | None:
        slot = self._sessions.get(session) if session is not None else None
        if slot is not None and self.running[slot]:
            session, slot = None, None  # a second call of a busy session runs beside it, without its cache
        if slot is None:
            slot = self._free()
        if slot is None:
            return None
        if session is not None:
            self._sessions.pop(session, None)
            self._sessions[session] = slot  # now the most recently used
            self._owner[slot] = session
        return slot

    def _free(self) -> int | None:
        """The lowest slot that nobody keeps, else that of the idle session that was used longest ago."""
        for slot, owner in enumerate(self._owner):
            if owner is None and not self.running[slot]:
                return slot
        for session, slot in self._sessions.items():
            if not self.running[slot]:
                del self._sessions[session]
                self._owner[slot] = None
                self.evictions += 1
                return slot
        return None

    def _set_stops(self, slot: int, stop_ids: Sequence[int]) -> None:
        if len(stop_ids) > self.stops.shape[1]:
            wider = np.full((self.slots, len(stop_ids)), -1, np.int32)
            wider[:, : self.stops.shape[1]] = self.stops
            self.stops = wider
        self.stops[slot] = -1
        self.stops[slot, : len(stop_ids)] = stop_ids
