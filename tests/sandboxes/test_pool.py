"""The pool: never more than configured, first come first served, nothing kept and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import SandboxSpec
from agentgym.sandboxes import Pool
from agentgym.sandboxes.fake import FakeBackend

Run = Callable[..., Any]
SPEC = SandboxSpec()


def test_never_more_than_configured_and_first_come_first_served(run: Run) -> None:
    order: list[int] = []

    async def borrow(pool: Pool, i: int) -> None:
        async with await pool.create(SPEC) as box:
            order.append(i)
            assert (await box.exec("x")).stdout == "y"
            await asyncio.sleep(0)

    async def main() -> Pool:
        async with Pool(FakeBackend({"*": "y"}), 3) as pool:
            await asyncio.gather(*(borrow(pool, i) for i in range(20)))
            return pool

    pool = run(main())
    assert order == list(range(20))
    assert (pool.stats.most, pool.stats.made, pool.stats.lent) == (3, 20, 0)
    assert all(made.closed for made in pool.backend.made)


def test_a_queue_may_be_refused(run: Run) -> None:
    async def main() -> None:
        async with Pool(FakeBackend(), 1, max_waiting=0) as pool:
            held = await pool.create(SPEC)
            with pytest.raises(SandboxFault, match="all 1 sandboxes are lent and 0 requests wait"):
                await pool.create(SPEC)
            await held.close()
            await held.close()
            await pool.create(SPEC)

    run(main())


def test_what_is_forgotten_is_taken_back(run: Run) -> None:
    async def main() -> None:
        async with Pool(FakeBackend({"*": ""}), 1, lease=0.05) as pool:
            forgotten = await pool.create(SPEC)
            following = await asyncio.wait_for(pool.create(SPEC), 5)
            with pytest.raises(SandboxFault, match=r"taken back: it had not been used for 0\.05 s"):
                await forgotten.exec("1")
            await forgotten.close()
            assert (await following.exec("1")).ok
            assert pool.stats.reclaimed == 1

    run(main())


def test_a_failed_or_cancelled_creation_frees_its_place(run: Run) -> None:
    class Down(FakeBackend):
        async def create(self, spec: SandboxSpec) -> Any:
            if not spec.setup:
                raise SandboxUnavailable("down")
            return await super().create(spec)

    async def main() -> None:
        async with Pool(Down({"*": ""}), 1) as pool:
            with pytest.raises(SandboxUnavailable):
                await pool.create(SPEC)
            held = await pool.create(SandboxSpec(setup="x"))
            waiting = asyncio.create_task(pool.create(SandboxSpec(setup="x")))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await held.close()
            assert (await pool.create(SandboxSpec(setup="x"))).sandbox
        with pytest.raises(SandboxFault, match="the pool is closed"):
            await pool.create(SPEC)

    run(main())


def test_a_pool_in_front_of_the_real_thing(backend: Any, spec: SandboxSpec, run: Run) -> None:
    async def borrow(pool: Pool, i: int) -> str:
        async with await pool.create(spec) as box:
            await box.write_file("n", str(i).encode())
            return str((await box.exec("open('n').read(), 'seen' in globals(), globals().update(seen=1)")).result)

    async def main() -> list[str]:
        pool = Pool(backend, 2)
        found = await asyncio.gather(*(borrow(pool, i) for i in range(6)))
        assert pool.stats.most in (1, 2)  # 1 where making one takes longer than using it
        return found

    assert run(main()) == [f"('{i}', False, None)" for i in range(6)]


@pytest.mark.parametrize("given", [{"size": 0}, {"size": 1, "lease": 0}])
def test_what_no_pool_can_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pool"):
        Pool(FakeBackend(), **given)
