"""Driving coroutines from ordinary code: without a loop where it can, and inside any."""

import asyncio
import threading

import pytest

from agentgym.tools.driving import checkpoint, drive, drive_on_loop


async def quick() -> str:
    await checkpoint() if False else None
    return threading.current_thread().name


async def waiting() -> str:
    await checkpoint()
    await asyncio.sleep(0.001)
    return threading.current_thread().name


async def failing() -> None:
    await checkpoint()
    raise KeyError("x")


def test_what_never_waits_runs_here() -> None:
    assert drive(quick()) == threading.current_thread().name
    assert drive_on_loop(quick()) == "agentgym-loop"


def test_what_waits_moves_to_the_background_loop() -> None:
    assert drive(waiting()) == "agentgym-loop"
    with pytest.raises(KeyError):
        drive(failing())


def test_inside_a_running_loop() -> None:
    async def main() -> tuple[str, str, int]:
        one, two = drive(quick()), drive(waiting())
        loop = asyncio.get_running_loop()  # it is back
        await asyncio.sleep(0)
        return one, two, id(loop)

    one, two, _ = asyncio.run(main())
    assert (one, two) == (threading.current_thread().name, "agentgym-loop")


def test_checkpoint_is_free_where_a_loop_runs() -> None:
    async def main() -> str:
        return await waiting()

    assert asyncio.run(main()) == threading.current_thread().name
