"""Acts that never end by themselves: inside they end at their deadline, with all that they started."""

from __future__ import annotations

import asyncio
import signal
import time

from agentgym.execution import ExecStatus
from agentgym.sandboxes.probes.acts import Driven, Stage
from agentgym.sandboxes.probes.host import gone, sweep, tagged
from agentgym.sandboxes.probes.inside import program
from agentgym.sandboxes.probes.rows import Seen

DEADLINE = 1.0
SLACK = 5.0
"""Seconds that an end may take beyond the deadline, on a machine with other work."""


def endless(name: str, code: str, control: str | None = None, politely: signal.Signals | None = None) -> Driven:
    """`politely`: the control is first sent this, and has to outlive it."""

    async def inside(stage: Stage) -> Seen:
        facts = await stage.host.facts_now()
        async with stage.sandbox() as box:
            began = time.monotonic()
            done = await box.exec(program(code, facts), timeout=DEADLINE)
            took = time.monotonic() - began
            ended = not stage.shares_machine or await gone(facts["tag"], SLACK)
            after = await box.exec("40 + 2", timeout=30)
        if not ended:
            sweep(facts["tag"])
            return Seen("escaped", "its processes live on after the deadline")
        if done.status is ExecStatus.ok or took > DEADLINE + SLACK:
            return Seen("escaped", f"{done.status.value} after {took:.1f} s, with a deadline of {DEADLINE:g} s")
        if after.result != "42":
            return Seen("escaped", f"the sandbox is of no use any more ({after.status.value}: {after.error})")
        return Seen("contained", f"{done.status.value} after {took:.2f} s")

    async def outside(stage: Stage) -> Seen:
        facts = await stage.host.facts_now()
        folder = stage.host.folder / facts["tag"]
        folder.mkdir()
        process = await stage.host.start(control or code, facts, str(folder))
        try:
            await asyncio.sleep(DEADLINE)
            if politely is not None:
                process.send_signal(politely)
                await asyncio.sleep(0.3)
            running = tagged(facts["tag"])
        finally:
            while left := tagged(facts["tag"]):
                sweep(facts["tag"])
                await asyncio.sleep(0.01)
                if left == [process.pid]:
                    break
            await process.communicate()
        return Seen("escaped", f"{len(running)} processes run on") if running else Seen("contained", "it ended")

    return Driven(name, inside, outside)
