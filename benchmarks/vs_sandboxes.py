"""Calls a second of a warm local session, and new sessions a second, beside other ways to run a model's Python.

Every side runs the same snippet and its output is checked. Sides take turns within a round, each round beginning with
another one; a ratio is taken within a round, and the median over the rounds is reported with its lowest and highest.
CPU counts a side's processes and all that they start; a container engine's are no descendants of ours, so for docker it
is the whole machine's.

The peers are not the same thing: a bare subprocess and the tools of skyrl-gym and GEM isolate nothing and keep no
variables; bwrap and nsjail isolate and keep none; docker exec isolates and keeps files. What is not installed here is
skipped, and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import machine, spread, versions, write

from agentgym.execution import SandboxSpec
from agentgym.sandboxes.cpu import COUNTED, machine_cpu, tree_cpu
from agentgym.sandboxes.local import LocalBackend

SNIPPET, EXPECTED = "print(sum(range(100)))", "4950"
PYTHON = [os.path.realpath(sys.executable), "-I", "-S", "-c", SNIPPET]
"""Isolated and without site-packages: the quickest start there is."""
PACKAGES = {"skyrl-gym": "skyrl-gym==0.4.0", "gem": "gem-llm==0.1.0"}
DRIVER = Path(__file__).with_name("tool_driver.py")


class Skipped(Exception):
    """A peer that cannot run here, with the reason."""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds an operation, of the wall clock and of CPU."""

    wall: float
    cpu: float


Side = Callable[[int], Took]
"""So many operations, one after the other."""


def command(line: Sequence[str]) -> Side:
    """A process for every operation."""
    return driven([sys.executable, str(DRIVER), "command", json.dumps(line)])


def driven(line: Sequence[str], **options: Any) -> Side:
    """Operations of a driver that measures itself."""

    def run(count: int) -> Took:
        done = subprocess.run([*line, EXPECTED, str(count)], capture_output=True, text=True, **options)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
        return Took(**json.loads(done.stdout.splitlines()[-1]))

    return run


def by_machine(side: Side) -> Side:
    """The same with the CPU that the whole machine used."""

    def run(count: int) -> Took:
        used = machine_cpu()
        took = side(count)
        return Took(took.wall, (machine_cpu() - used) / (count + 1))  # its driver begins with one that is not counted

    return run


def jail() -> list[str]:
    """bwrap with what a local session has: namespaces, a read-only system, a /proc and a disk of its own."""
    if not (bwrap := shutil.which("bwrap")):
        raise Skipped("bwrap is not installed (apt-get install bubblewrap)")
    line = [
        bwrap,
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    line += ["--tmpfs", "/tmp", "--tmpfs", "/work", "--chdir", "/work", "--uid", "65534", "--gid", "65534"]
    for path in ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", sys.base_prefix):
        if os.path.islink(path):
            line += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path) and not (path != "/usr" and path.startswith("/usr")):
            line += ["--ro-bind", path, path]
    return [*line, *PYTHON]


def nsjail() -> list[str]:
    if not (found := shutil.which("nsjail")):
        raise Skipped("nsjail is not installed")
    line = [found, "-Mo", "-Q", "--user", "65534", "--group", "65534", "--chroot", "", "--tmpfsmount", "/tmp"]
    for path in ("/usr", "/bin", "/lib", "/lib64", "/dev/null", "/dev/urandom", sys.base_prefix):
        if os.path.exists(path) and not (path != "/usr" and path.startswith("/usr")):
            line += ["-R", path]
    return [*line, "--", *PYTHON]


@contextlib.contextmanager
def docker(image: str) -> Iterator[Side]:
    """`docker exec` per snippet in a container that runs already."""
    if not (client := shutil.which("docker")):
        raise Skipped("docker is not installed")
    if subprocess.run([client, "version"], capture_output=True).returncode:
        raise Skipped("no Docker engine answers")
    if subprocess.run([client, "image", "inspect", image], capture_output=True).returncode:
        raise Skipped(f"the Docker engine has no image {image} (--docker-image)")
    options = ["--network=none", "--cap-drop=ALL", "--memory=512m", "--pids-limit=66", "--rm", "-d"]
    line = [client, "run", *options, "--entrypoint", "sleep", image, "3600"]
    made = subprocess.run(line, capture_output=True, text=True)
    if made.returncode:
        raise Skipped(f"no container could be started: {made.stderr.strip()}")
    name = made.stdout.strip()
    try:
        yield by_machine(command([client, "exec", name, "python3", "-I", "-S", "-c", SNIPPET]))
    finally:
        subprocess.run([client, "kill", name], capture_output=True)


def tool(name: str, folder: Path) -> Side:
    """A package's own python tool, called as its environments call it, in a virtual environment made for it."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", PACKAGES[name]], capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"{PACKAGES[name]} cannot be installed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": str(folder / name)}
    environment.pop("PYTHONPATH", None)

    return driven([str(python), str(DRIVER), name, SNIPPET], env=environment, cwd=folder)


class Ours:
    """The local backend: `calls` of one session, and `sessions` that are made, used once and closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._backend = LocalBackend()
        self._box: Any = None

    def close(self) -> None:
        if self._box is not None:
            self._loop.run_until_complete(self._box.close())
        self._loop.run_until_complete(self._backend.aclose())
        self._loop.close()

    def calls(self, count: int) -> Took:
        return self._loop.run_until_complete(self._calls(count))

    def sessions(self, count: int) -> Took:
        return self._loop.run_until_complete(self._sessions(count))

    async def _calls(self, count: int) -> Took:
        if self._box is None:
            self._box = await self._backend.create(SandboxSpec())
        await self._snippet(self._box)
        began, used = time.perf_counter(), tree_cpu()
        for _ in range(count):
            await self._snippet(self._box)
        return Took((time.perf_counter() - began) / count, (tree_cpu() - used) / count)

    async def _sessions(self, count: int) -> Took:
        began, used = time.perf_counter(), tree_cpu()
        for _ in range(count):
            box = await self._backend.create(SandboxSpec())
            await self._snippet(box)
            await box.close()
        return Took((time.perf_counter() - began) / count, (tree_cpu() - used) / count)

    async def _snippet(self, box: Any) -> None:
        done = await box.exec(SNIPPET)
        if done.stdout.strip() != EXPECTED:
            raise RuntimeError(f"our session gave {done}")


def take_turns(ours: Side, peers: dict[str, Side], rounds: int, own: int, others: int) -> dict[str, list[Took]]:
    """What each took in each round; the order moves on by one a round."""
    sides = {"ours": ours, **peers}
    took: dict[str, list[Took]] = {name: [] for name in sides}
    names = list(sides)
    for i in range(rounds):
        at = i % len(names)
        for name in names[at:] + names[:at]:
            took[name].append(sides[name](own if name == "ours" else others))
        shown = "  ".join(f"{name} {1 / took[name][-1].wall:.1f}/s" for name in names)
        print(f"round {i}: {shown}", flush=True)
    return took


def figures(took: dict[str, list[Took]]) -> dict[str, Any]:
    """`ratio` by peer is of CPU-seconds an operation, `ratio_wall` of the wall clock: how many of ours one of theirs
    costs."""
    ours, peers = took["ours"], [name for name in took if name != "ours"]
    ratios = {
        kind: {
            name: [getattr(t, kind) / getattr(o, kind) for t, o in zip(took[name], ours, strict=True)] for name in peers
        }
        for kind in ("cpu", "wall")
    }
    return {
        "ratio": {name: statistics.median(ratios["cpu"][name]) for name in peers},
        "ratio_wall": {name: statistics.median(ratios["wall"][name]) for name in peers},
        "spread": {name: {kind: spread(ratios[kind][name]) for kind in ratios} for name in peers},
        "per_s": {name: spread([1 / one.wall for one in took[name]]) for name in took},
        "cpu_ms": {name: spread([1000 * one.cpu for one in took[name]]) for name in took},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000, help="of our session in a round")
    parser.add_argument("--sessions", type=int, default=100, help="of ours in a round")
    parser.add_argument("--peer-calls", type=int, default=10, help="of each peer in a round")
    parser.add_argument("--docker-image", default="python:3.11-slim")
    parser.add_argument("--folder", type=Path, help="where the peers' virtual environments are, or are made")
    args = parser.parse_args()
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as exits:
        folder = args.folder or Path(exits.enter_context(tempfile.TemporaryDirectory()))
        made: dict[str, Callable[[], Side]] = {
            "subprocess": lambda: command(PYTHON),
            "bwrap": lambda: command(jail()),
            "nsjail": lambda: command(nsjail()),
            "docker exec": lambda: exits.enter_context(docker(args.docker_image)),
            **{name: lambda name=name: tool(name, folder) for name in PACKAGES},  # type: ignore[misc]
        }
        peers: dict[str, Side] = {}
        for name, make in made.items():
            try:
                peers[name] = make()
                peers[name](1)
            except (Skipped, RuntimeError, subprocess.SubprocessError, OSError) as e:
                peers.pop(name, None)
                skipped[name] = str(e)
                print(f"SKIPPED {name}: {e}", file=sys.stderr, flush=True)
        ours = Ours()
        exits.callback(ours.close)
        calls = figures(take_turns(ours.calls, peers, args.rounds, args.calls, args.peer_calls))
        others = {name: peers[name] for name in ("bwrap", "nsjail") if name in peers}
        sessions = figures(take_turns(ours.sessions, others, args.rounds, args.sessions, 2 * args.peer_calls))
    for name, ratio in calls["ratio"].items():
        low, high = (calls["spread"][name]["cpu"][key] for key in ("low", "high"))
        print(f"a call of {name} costs {ratio:.0f} ({low:.0f} to {high:.0f}) of ours in CPU, ", end="")
        print(f"{calls['ratio_wall'][name]:.0f} in time")
    for name, ratio in sessions["ratio"].items():
        print(f"a session of {name} costs {ratio:.1f} of ours in CPU, {sessions['ratio_wall'][name]:.1f} in time")
    write(
        args.json,
        {
            "unit": "CPU-seconds an operation, the peer's by ours",
            **calls,
            "sessions": sessions,
            "skipped": skipped,
            "counted": {
                "ours": COUNTED["tree"],
                "docker exec": COUNTED["machine"],
                "others": "the side and its children",
            },
            "settings": {
                "rounds": args.rounds,
                "calls": args.calls,
                "sessions": args.sessions,
                "peer_calls": args.peer_calls,
            },
            "packages": PACKAGES,
            "versions": versions("agentgym-train"),
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()
