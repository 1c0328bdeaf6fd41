"""The meter: counts what the work itself runs, and changes nothing else about awaiting it."""

from __future__ import annotations

import asyncio
from time import thread_time

import pytest

from agentgym.rollout.metered import metered


def burn(seconds: float) -> None:
    began = thread_time()
    while thread_time() - began < seconds:
        pass


def test_counts_its_own_stretches_and_not_what_runs_meanwhile() -> None:
    spent: list[float] = []

    async def work() -> str:
        burn(0.01)
        await asyncio.sleep(0.02)
        burn(0.01)
        return "done"

    async def main() -> str:
        task = asyncio.ensure_future(metered_task())
        await asyncio.sleep(0)
        burn(0.1)
        return await task

    async def metered_task() -> str:
        return await metered(work(), spent.append)

    assert asyncio.run(main()) == "done"
    assert 0.02 <= sum(spent) < 0.08


def test_errors_come_through_and_are_counted() -> None:
    spent: list[float] = []

    async def work() -> None:
        await asyncio.sleep(0)
        burn(0.01)
        raise ValueError("x")

    async def main() -> None:
        with pytest.raises(ValueError, match="x"):
            await metered(work(), spent.append)

    asyncio.run(main())
    assert sum(spent) >= 0.01


def test_the_work_answers_its_cancellation() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        return "slept"

    async def main() -> str:
        async def whole() -> str:
            return await metered(work(), lambda seconds: None)

        task = asyncio.ensure_future(whole())
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "cleaned up"


def test_timeouts_reach_it() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await metered(asyncio.sleep(60), lambda seconds: None)

    asyncio.run(main())
