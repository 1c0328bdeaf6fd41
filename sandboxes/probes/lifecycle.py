"""Ends: by deadline, crash, cancellation, a supervisor's or the zygote's death; and nothing that outlives a session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time

from agentgym.errors import SandboxFault
from agentgym.execution import ExecStatus
from agentgym.sandboxes.probes.acts import Driven, Probe, Side, Stage
from agentgym.sandboxes.probes.endless import SLACK, endless
from agentgym.sandboxes.probes.host import gone, sweep, tagged
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Seen

_LOOP = "tag()\nwhile True:\n    pass"
DEAF = """
tag()
for number in set(range(1, 32)) - {9, 11, 19}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
while True:
    pass
"""
HANG = 'import re\ntag()\nre.match("(a+)+$", "a" * 60 + "b")'
DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tag()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(0.3)
escaped("left a daemon")
"""
_ZOMBIES = """
for _ in range(8):
    if os.fork() == 0:
        tag()
        os._exit(0)
time.sleep(0.2)
escaped("left zombies")
"""
_CRASHES = {
    "segfault": "import ctypes; ctypes.string_at(0)",
    "os._exit": "import os; os._exit(0)",
    "SystemExit": "raise SystemExit(3)",
    "stack overflow": (
        "import sys\nsys.setrecursionlimit(1 << 30)\nx = lambda _=0: sorted([0], key=x)\nx()"  # through C at each step
    ),
    "abort": "import os; os.abort()",
}
_SUPERVISOR = """
import asyncio, json, sys
from agentgym.execution import SandboxSpec
from agentgym.sandboxes import make_backend
from agentgym.sandboxes.probes.acts import LIMITS
async def main():
    box = await make_backend(sys.argv[1], **json.loads(sys.argv[3])).create(SandboxSpec(LIMITS))
    await box.exec(open(sys.argv[2]).read(), timeout=600)
asyncio.run(main())
"""
_ORPHAN = """
import subprocess, sys
made = subprocess.Popen([sys.executable, "-I", "-S", "-c", open(sys.argv[2]).read()], start_new_session=True)
made.wait()
"""
_LEAVE = """
places = ["/tmp/agentgym-" + HOST["mark"], "/dev/shm/agentgym-" + HOST["mark"], "agentgym-" + HOST["mark"]]
for place in places:
    try:
        open(place, "w").write(HOST["nonce"])
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
libc.shmget(HOST["key"], ctypes.c_size_t(4096), 0o1666)
contained("left")
"""
_FIND = """
found = []
for place in ("/tmp/agentgym-" + HOST["mark"], "/dev/shm/agentgym-" + HOST["mark"], "agentgym-" + HOST["mark"]):
    if os.path.exists(place):
        found.append(place.rpartition("/")[0] or "the working directory")
        os.unlink(place)
libc = ctypes.CDLL(None, use_errno=True)
segment = libc.shmget(HOST["key"], ctypes.c_size_t(0), 0)
if segment >= 0:
    found.append("a System V segment")
    libc.shmctl(segment, 0, None)
escaped(found) if found else contained("found nothing of it")
"""


def _outlived(code: str, seconds: float) -> tuple[Side, Side]:
    """What a session leaves behind is gone once it is closed; without one it stays."""

    async def inside(stage: Stage) -> Seen:
        facts = await stage.host.facts_now()
        async with stage.sandbox() as box:
            done = await box.exec(program(code, facts), timeout=10)
        if judge(done.stdout) is None:
            return Seen("broken", f"{done.status.value}: {done.error}")
        if not stage.shares_machine:
            return Seen("na", "sessions run on another machine")
        if await gone(facts["tag"], SLACK):
            return Seen("contained", "gone with the session")
        sweep(facts["tag"])
        return Seen("escaped", "it outlived the session")

    async def outside(stage: Stage) -> Seen:
        facts = await stage.host.facts_now()
        folder = tempfile.mkdtemp(dir=stage.host.folder)
        process = await stage.host.start(code, facts, folder)
        await asyncio.sleep(seconds)
        left = tagged(facts["tag"])
        sweep(facts["tag"])
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        return Seen("escaped", f"{len(left)} processes stay") if left else Seen("contained", "nothing stayed")

    return inside, outside


async def _crashed_inside(stage: Stage) -> Seen:
    told = []
    async with stage.sandbox() as box:
        for name, code in _CRASHES.items():
            done = await box.exec(code, timeout=20)
            told.append(f"{name} {done.status.value}")
            allowed = (ExecStatus.error, ExecStatus.killed, ExecStatus.oom)
            after = await box.exec("40 + 2", timeout=20)
            if done.status not in allowed or after.result != "42":
                return Seen("escaped", f"{name}: {done.status.value}, then {after.status.value} {after.error}")
    return Seen("contained", ", ".join(told))


async def _crashed_outside(stage: Stage) -> Seen:
    facts, alive = await stage.host.facts_now(), []
    for name, code in _CRASHES.items():
        out, _ = await stage.host.unsandboxed(f"{code}\nescaped()", facts, 20)
        alive += [name] if "@probe" in out else []
    return Seen("contained", f"{alive} end nothing") if alive else Seen("escaped", "each ends its interpreter")


def _orphaned(script: str, takes_backend: bool) -> Side:
    """Whether what runs for a process lives on when that process is killed without warning."""

    async def side(stage: Stage) -> Seen:
        if takes_backend and not stage.name:
            return Seen("na", "the backend cannot be made again by name")
        if not stage.shares_machine:
            return Seen("na", "sessions run on another machine, which ends them by its own deadline")
        facts = await stage.host.facts_now()
        act = stage.host.folder / f"{facts['tag']}.py"
        act.write_text(program(_LOOP, facts))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, stage.name, str(act), json.dumps(dict(stage.options))),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,  # a pipe would be held open by what lives on
        )
        try:
            deadline = time.monotonic() + 30
            while not tagged(facts["tag"]) and process.returncode is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            if not tagged(facts["tag"]):
                return Seen("broken", "it never ran")
            process.kill()
            await process.wait()
            ended = await gone(facts["tag"], 2 * SLACK if takes_backend else 0.5)
        finally:
            sweep(facts["tag"])
            if process.returncode is None:
                process.kill()
            await process.communicate()
        return Seen("contained", "it ended with its supervisor") if ended else Seen("escaped", "it runs on")

    return side


async def _cancelled_inside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now()
    async with stage.sandbox() as box:
        task = asyncio.create_task(box.exec(program(_LOOP, facts), timeout=60))
        await _begun(stage, facts["tag"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ended = not stage.shares_machine or await gone(facts["tag"], SLACK)
        sweep(facts["tag"])
        try:
            told = f"then {(await box.exec('40 + 2', timeout=30)).result}"
        except SandboxFault as e:
            told = f"then a fault: {e}"
    async with stage.sandbox() as other:
        served = (await other.exec("40 + 2", timeout=30)).result == "42"
    if not ended:
        return Seen("escaped", "it runs on")
    return Seen("contained", told) if served else Seen("escaped", "the backend serves nobody any more")


async def _begun(stage: Stage, tag: str) -> None:
    deadline = time.monotonic() + (10 if stage.shares_machine else 1)
    while not tagged(tag) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


async def _cancelled_outside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now()
    process = await stage.host.start(_LOOP, facts, tempfile.mkdtemp(dir=stage.host.folder))
    waiting = asyncio.create_task(process.wait())
    await _begun(stage, facts["tag"])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    left = tagged(facts["tag"])
    process.kill()
    await process.communicate()
    return Seen("escaped", "it runs on") if left else Seen("contained", "it ended")


def _marks(stage: Stage, facts: dict[str, object]) -> dict[str, object]:
    return {**facts, "mark": stage.host.nonce + str(facts["tag"]), "key": int(stage.host.nonce[:7], 16)}


async def _leaked_inside(stage: Stage) -> Seen:
    facts = _marks(stage, await stage.host.facts_now())
    async with stage.sandbox() as neighbour:
        async with stage.sandbox() as box:
            await box.exec(program(_LEAVE, facts))
            beside = await neighbour.exec(program(_FIND, facts))
        async with stage.sandbox() as later:
            after = await later.exec(program(_FIND, facts))
    seen = [judge(done.stdout) or Seen("broken", done.error) for done in (beside, after)]
    return max(seen, key=lambda one: ("contained", "broken", "escaped").index(one.verdict))


async def _leaked_outside(stage: Stage) -> Seen:
    facts = _marks(stage, await stage.host.facts_now())
    await stage.host.unsandboxed(_LEAVE, facts, 10)
    out, err = await stage.host.unsandboxed(_FIND, facts, 10)
    return judge(out) or Seen("broken", err[-200:])


async def _zygote(stage: Stage) -> Seen:
    zygote = getattr(stage.backend, "_zygote", None)
    if zygote is None:
        return Seen("na", "the backend has no zygote")
    async with stage.sandbox() as box:
        await box.exec("1")
        os.kill(zygote.process.pid, signal.SIGKILL)
        lost = await box.exec("import time; time.sleep(8)", timeout=10)
        again = await box.exec("40 + 2", timeout=30)
    if lost.status is not ExecStatus.infra_error or again.result != "42":
        return Seen("escaped", f"{lost.status.value}, then {again.status.value} {again.error}")
    return Seen("contained", "infra_error, then a new one serves")


_LATE = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "C": 'import re; re.match("(a+)+$", "a" * 60 + "b")',
    "signals off": "import signal\nsignal.pthread_sigmask(0, range(1, 32))\nwhile True: pass",
    "finally": "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass",
}


async def _late_inside(stage: Stage) -> Seen:
    async def one(code: str) -> float:
        async with stage.sandbox() as box:
            began = time.monotonic()
            await box.exec(code, timeout=0.5)
            return time.monotonic() - began - 0.5

    late = dict(zip(_LATE, await asyncio.gather(*map(one, _LATE.values())), strict=True))
    worst = max(late, key=lambda name: late[name])
    return Seen("escaped" if late[worst] > SLACK / 2 else "contained", f"at most {late[worst]:.2f} s late ({worst})")


async def _late_outside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now()
    process = await stage.host.start("tag()\n" + _LATE["finally"], facts, tempfile.mkdtemp(dir=stage.host.folder))
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.3)
    running = process.returncode is None
    process.kill()
    await process.communicate()
    return Seen("escaped", "it runs on") if running else Seen("contained", "it ended")


_NO_ZYGOTE = "a zygote is the backend's own; there is none without it"
PROBES = (
    Probe(36, "endless loop", (endless("loop", _LOOP),)),
    Probe(37, "signals ignored", (endless("deaf loop", DEAF, politely=signal.SIGTERM),)),
    Probe(38, "a hang in C", (endless("regular expression", HANG),)),
    Probe(
        39,
        "daemons and zombies",
        (Driven("daemon", *_outlived(DAEMON, 0.6)), Driven("zombies", *_outlived(_ZOMBIES, 0.15))),
    ),
    Probe(40, "crashes", (Driven("crashes", _crashed_inside, _crashed_outside),)),
    Probe(41, "the supervisor is killed", (Driven("kill", _orphaned(_SUPERVISOR, True), _orphaned(_ORPHAN, False)),)),
    Probe(42, "a cancelled call", (Driven("cancel", _cancelled_inside, _cancelled_outside),)),
    Probe(43, "leaks between sessions", (Driven("files and segments", _leaked_inside, _leaked_outside),)),
    Probe(44, "the zygote is killed", (Driven("kill", _zygote, _NO_ZYGOTE),)),
    Probe(48, "late deadlines", (Driven("five at once", _late_inside, _late_outside),)),
)
