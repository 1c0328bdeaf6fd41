"""A long run of the local sandbox with one hostile piece of code in twenty: memory, processes, mounts, control groups,
descriptors and files are what they were, and every answer is the right one.

50,000 executions in 2,000 sessions, `--scale` of them. Figures are compared with those after a warm-up of two percent
(the backend lives) and, once it is closed, with those from before it was made. Exits with 1 where something is left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from report import machine, versions, write

from agentgym.execution import ExecStatus, SandboxLimits, SandboxSpec
from agentgym.sandboxes.local import LocalBackend
from agentgym.sandboxes.local.jail import namespaces as walls
from agentgym.sandboxes.local.jail.syscalls import call

SESSIONS, CALLS = 2000, 25
HOSTILE = 0.05
AT_ONCE = 4
MS_SHARED = 1 << 20
SPEC = SandboxSpec(SandboxLimits(memory=96 << 20, processes=32, disk=8 << 20, output=4096, timeout=10.0))
ENDED = {ExecStatus.timeout, ExecStatus.oom, ExecStatus.killed, ExecStatus.error}
# code, deadline in seconds, how it may end
BOMBS: dict[str, tuple[str, float, set[ExecStatus]]] = {
    "memory bomb": ("a = bytearray(b'x') * (400 << 20)", 10, ENDED),
    "fork bomb": (
        "import os\nfor _ in range(7):\n    try: os.fork()\n    except OSError: pass\nwhile True: pass",
        0.3,
        ENDED,
    ),
    "endless loop": (
        "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        0.2,
        ENDED,
    ),
    "hang in C": ("import re; re.match('(a+)+$', 'a' * 60 + 'b')", 0.2, ENDED),
    "kills itself": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 10, {ExecStatus.killed}),
    "kills all": ("import os, signal; os.kill(-1, signal.SIGKILL)", 10, {ExecStatus.ok, *ENDED}),
    "crash": ("import ctypes; ctypes.string_at(0)", 10, {ExecStatus.killed}),
    "daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    time.sleep(1000)",
        10,
        {ExecStatus.ok},
    ),
    "output flood": ("import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))", 10, {ExecStatus.ok, *ENDED}),
    "disk flood": ("open('f', 'wb').write(b'x' * (64 << 20))", 10, {ExecStatus.error, ExecStatus.killed}),
    "many files": ("for i in range(100000): open(f'f{i}', 'w').close()", 10, {ExecStatus.error}),
    "descriptors": ("import os\nwhile True: os.dup(0)", 10, {ExecStatus.error}),
    "forged reply": ("import os; os.write(3, b'\\xff' * 100)", 10, {ExecStatus.ok, *ENDED}),
}
SPOILT = {"forged reply", "kills all", "many files", "disk flood"}
"""What such a session says next, or can still write, is its own affair: another one goes on."""


def own_mounts() -> bool:
    """Leave the machine's mounts, which others change meanwhile, for a copy that a session's would still reach."""
    if os.geteuid():
        return False
    call("unshare", walls.CLONE_NEWNS)
    for propagation in (walls.MS_PRIVATE, MS_SHARED):
        walls.mount("none", "/", None, walls.MS_REC | propagation)
    return True


def watch(backend: LocalBackend | None = None) -> dict[str, int]:
    """What could be left, counted: of this process, of the zygote, of the machine by names of ours."""
    below = list(descendants(os.getpid()))
    seen = {
        "processes": len(below),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": _lines("/proc/self/mountinfo"),
        "control_groups": _control_groups(),
        "files": _files(),
        "resident": _resident(os.getpid()),
    }
    zygote = backend._zygote.process.pid if backend is not None and backend._zygote.process is not None else None
    if zygote is not None:
        seen["zygote_descriptors"] = len(os.listdir(f"/proc/{zygote}/fd"))
        seen["zygote_mounts"] = _lines(f"/proc/{zygote}/mountinfo")
        seen["zygote_resident"] = _resident(zygote)
    return seen


def descendants(pid: int) -> Iterator[int]:
    for task in _entries(f"/proc/{pid}/task"):
        try:
            below = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue
        for child in map(int, below):
            yield child
            yield from descendants(child)


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _lines(path: str) -> int:
    return len(Path(path).read_text().splitlines())


def _files() -> int:
    """In the folder for temporary files, which is this run's own, and by this process's number elsewhere."""
    named = [name for place in ("/tmp", "/dev/shm") for name in os.listdir(place) if f"-{os.getpid()}-" in name]
    return len(os.listdir(tempfile.gettempdir())) + len(named)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _control_groups() -> int:
    """Below this process's own trees. Other programs' groups end while one looks, which os.walk takes as it comes."""
    own = f"/agentgym-{os.getpid()}-"
    return sum(len(folders) for place, folders, _ in os.walk("/sys/fs/cgroup") if own in place)


async def session(backend: LocalBackend, rng: random.Random, counts: Counter[str], wrong: list[str]) -> None:
    counts["sessions"] += 1
    box = await backend.create(SPEC)
    try:
        for i in range(CALLS):
            if rng.random() < HOSTILE:
                name = rng.choice(sorted(BOMBS))
                code, seconds, allowed = BOMBS[name]
                done = await box.exec(code, timeout=seconds)
                counts[f"{name}: {done.status.value}"] += 1
                if done.status not in allowed:
                    wrong.append(f"{name}: {done.status.value} {done.error}")
                if name in SPOILT:
                    await box.close()
                    counts["sessions"] += 1
                    box = await backend.create(SPEC)
                continue
            done = await box.exec(f"print({i} * {i}); {i} + 1")
            counts[f"plain: {done.status.value}"] += 1
            if (done.stdout, done.result) != (f"{i * i}\n", f"{i + 1}"):
                wrong.append(f"{i} * {i}: {done.status.value} {done.stdout!r} {done.result!r} {done.error}")
    finally:
        await box.close()


async def soak(scale: float, seed: int, samples: list[dict[str, int]]) -> dict[str, Any]:
    before = watch()
    total = max(AT_ONCE, round(SESSIONS * scale))
    warm = max(AT_ONCE, total // 50)
    backend, rng = LocalBackend(), random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    began = time.monotonic()

    async def some(count: int) -> None:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await session(backend, rng, counts, wrong)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        await quiet(backend)

    await some(warm)
    warmed = watch(backend)
    done, part = warm, max(1, (total - warm) // 10)
    while done < total:
        await some(min(part, total - done))
        done = min(total, done + part)
        samples.append({"sessions": counts["sessions"], **watch(backend)})
        print(f"{done}/{total} rounds of {CALLS} calls: {samples[-1]}", flush=True)
    last = watch(backend)
    await backend.aclose()
    await asyncio.sleep(0.2)
    return {
        "sessions": counts.pop("sessions"),
        "executions": sum(counts.values()),
        "hostile": sum(n for name, n in counts.items() if not name.startswith("plain")),
        "wall_s": time.monotonic() - began,
        "before": before,
        "warmed": warmed,
        "last": last,
        "closed": watch(),
        "counts": dict(sorted(counts.items())),
        "wrong": wrong[:20],
        "wrong_count": len(wrong),
    }


async def quiet(backend: LocalBackend) -> None:
    """Until the sessions that are kept ready are all there, and nothing else is; at most three seconds."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        ready = sum(map(len, backend._ready.values()))
        filled = backend._filling is None or backend._filling.done()
        if filled and len(list(descendants(os.getpid()))) == 1 + 2 * ready:  # the zygote; an init and a worker each
            return
        await asyncio.sleep(0.02)


def left_over(found: dict[str, Any], slack: int) -> list[str]:
    """What is not as it was. Memory may have grown by `slack` bytes."""
    told = [f"{found['wrong_count']} wrong answers, as {found['wrong'][:3]}"] if found["wrong_count"] else []
    for since, now in (("warmed", "last"), ("before", "closed")):
        for name, value in found[now].items():
            allowed = slack if name.endswith("resident") else 0
            if since == "before" and name == "resident":
                continue  # loading the backend costs something once
            if name == "mounts" and not found["own_mounts"]:
                continue  # anybody's
            if value - found[since][name] > allowed:
                told.append(f"{name}: {found[since][name]} {since}, {value} {now}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="of 2,000 sessions of 25 calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slack", type=int, default=8 << 20, help="bytes that memory may grow by")
    args = parser.parse_args()
    samples: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as own:
        tempfile.tempdir = own
        isolated = own_mounts()
        found = {"own_mounts": isolated, **asyncio.run(soak(args.scale, args.seed, samples))}
        tempfile.tempdir = None
    left = left_over(found, args.slack)
    for name in ("before", "warmed", "last", "closed"):
        print(f"{name:<7} {found[name]}")
    print(
        f"{found['executions']} calls ({found['hostile']} hostile), {found['sessions']} sessions,",
        f"{found['wall_s']:.0f} s",
    )
    print("\n".join(f"LEFT {line}" for line in left) or "nothing left")
    settings = {"scale": args.scale, "seed": args.seed, "slack": args.slack}
    write(
        args.json,
        {
            **found,
            "left": left,
            "samples": samples,
            "settings": settings,
            "versions": versions("agentgym-train"),
            "machine": machine(),
        },
    )
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
