"""What comes back: replies may lie about their own session and nothing else; a grader is not touched by it."""

from __future__ import annotations

import os
import socket
import tempfile
import time

from agentgym.errors import SandboxFault
from agentgym.protocols import Sandbox
from agentgym.sandboxes.probes.acts import LIMITS, Driven, Probe, Stage
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Seen

_FORGE = """
import stat, struct
reply = b'{"status": "ok", "result": "forged"}'
frames = {
    "garbage": os.urandom(4000),
    "huge": struct.pack("=II", 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 1000,
    "reply": (struct.pack("=II", len(reply), 0) + reply) * 3,
    "line": reply + b"\\n",
    "deep": struct.pack("=II", 200000, 0) + b"[" * 200000,
    "half": struct.pack("=II", 1 << 19, 0) + b"{",
}
sent = 0
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        mode = os.fstat(fd).st_mode
        if fd > 2 and (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
            os.set_blocking(fd, False)
            sent += os.write(fd, frames[HOST["frame"]])
    except OSError:
        pass
"""
_FRAMES = ("garbage", "huge", "reply", "line", "deep", "half")


async def _forged_inside(stage: Stage) -> Seen:
    """Whatever is written there, only that session is the worse for it, and nobody waits for ever."""
    told = []
    for frame in _FRAMES:
        facts = await stage.host.facts_now() | {"frame": frame}
        async with stage.sandbox() as box, stage.sandbox() as neighbour:
            began = time.monotonic()
            for code in (program(_FORGE, facts), "40 + 2", "40 + 2"):
                told.append(await _outcome(box, code))
            took = time.monotonic() - began
            beside = (await neighbour.exec("6 * 7", timeout=20)).result
        if took > 20 or beside != "42":
            return Seen("escaped", f"{frame}: {took:.0f} s, and another session answers {beside}")
    return Seen("contained", f"{len(_FRAMES)} kinds of frames: {', '.join(sorted(set(told)))}")


async def _outcome(box: Sandbox, code: str) -> str:
    try:
        return (await box.exec(code, timeout=4)).status.value
    except SandboxFault:
        return "fault"


async def _forged_outside(stage: Stage) -> Seen:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)
        code = f"os.write({theirs.fileno()}, HOST['nonce'].encode())"
        await stage.host.unsandboxed(code, await stage.host.facts_now(), 10)
        ours.setblocking(False)
        try:
            return Seen("escaped", "it arrived") if stage.host.nonce.encode() in ours.recv(200) else Seen("contained")
        except BlockingIOError:
            return Seen("contained", "nothing arrived")


_BOMBS = {
    "endless repr": "class R:\n    def __repr__(self):\n        while True: pass\nR()",
    "large repr": "class R:\n    def __repr__(self): return 'x' * (40 << 20)\nR()",
    "repr of no text": "class R:\n    def __repr__(self): return 7\nR()",
    "repr that exits": "import os\nclass R:\n    def __repr__(self): os._exit(0)\nR()",
    "str in disguise": "class S(str):\n    def __repr__(self): return S('x')\n    def __len__(self): return -1\nS('y')",
    "equal to all": "class E:\n    __eq__ = lambda *_: True\n    __hash__ = lambda _: 1\nE()",
    "pickled": (
        "import os, pickle\nclass P:\n    def __reduce__(self): return os.system, ('touch PLACE',)\n"
        "open('made.pkl', 'wb').write(pickle.dumps(P()))\nP()"
    ),
}
_UNPICKLE = """
import pickle
class P:
    def __reduce__(self):
        return os.system, ("touch " + HOST["place"],)
pickle.loads(pickle.dumps(P()))
escaped("the reader ran it") if os.path.exists(HOST["place"]) else contained("nothing ran")
"""


async def _returned_inside(stage: Stage) -> Seen:
    place, told = stage.host.folder / "unpickled", []
    for name, code in _BOMBS.items():
        async with stage.sandbox() as box:
            done = await box.exec(code.replace("PLACE", str(place)), timeout=2)
        told.append(f"{name} {done.status.value}")
        if type(done.result) not in (str, type(None)) or len(done.result or "") > LIMITS.output + 100:
            return Seen("escaped", f"{name}: the result is a {type(done.result).__name__} of {len(done.result or '')}")
        if place.exists():
            return Seen("escaped", f"{name}: the host ran it")
    return Seen("contained", ", ".join(told))


async def _returned_outside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now() | {"place": str(stage.host.folder / "unpickled-control")}
    out, err = await stage.host.unsandboxed(_UNPICKLE, facts, 10)
    return judge(out) or Seen("broken", err[-200:])


_TAMPER = """
import builtins, site
real = json.loads
json.loads = lambda *_, **__: {"passed": True}
builtins.sorted = lambda *_, **__: [1, 2, 3]
builtins.__dict__["AssertionError"] = type("Never", (Exception,), {})
sys.modules["unittest"] = None
text = "import json; json.loads = lambda *_, **__: {'passed': True}\\n"
version = "python%d.%d" % sys.version_info[:2]
try:
    os.listdir(HOST["beside"])
    shared = True  # the host's own files: whatever lies here is in use there
except OSError:
    shared = False
homes = {os.getcwd()} if shared else {os.getcwd(), os.environ.get("HOME", "."), "/tmp", "/dev/shm"}
places = [f"{home}/{name}.py" for home in homes for name in ("sitecustomize", "usercustomize", "json")]
places += [f"{home}/.local/lib/{version}/site-packages/usercustomize.py" for home in homes]
places += [f"{path}/sitecustomize.py" for path in sys.path if path and os.path.isdir(path)] if not shared else []
for place in places:
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "x").write(text)
    except OSError:
        pass
os.environ["PYTHONSTARTUP"] = os.environ["PYTHONPATH"] = os.getcwd()
"""
_GRADE = """
import json
fair = json.loads('{"passed": false}') == {"passed": False} and sorted([2, 1]) == [1, 2]
fair = fair and AssertionError.__name__ == "AssertionError"
contained("graded fairly") if fair else escaped("the verdict was changed")
"""
_GRADE_COMMAND = "python3 -c \"import json; print(json.loads('[2]'))\""


async def _graded_inside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now() | {"beside": str(stage.host.folder)}
    async with stage.sandbox() as box:
        await box.exec(program(_TAMPER, facts))
        async with stage.sandbox() as grader:
            beside = await grader.exec(program(_GRADE, facts))
            command = await grader.shell(_GRADE_COMMAND)
    async with stage.sandbox() as grader:
        after = await grader.exec(program(_GRADE, facts))
    seen = [judge(done.stdout) or Seen("broken", done.error) for done in (beside, after)]
    if command.stdout.strip() != "[2]":
        seen.append(Seen("escaped", f"a command of the grader's says {command.stdout[:80]!r} {command.stderr[-80:]!r}"))
    return max(seen, key=lambda one: ("contained", "broken", "escaped").index(one.verdict))


async def _graded_outside(stage: Stage) -> Seen:
    """In the one interpreter that ran the code."""
    home, before = tempfile.mkdtemp(dir=stage.host.folder), os.environ.get("HOME")
    facts = await stage.host.facts_now() | {"beside": str(stage.host.folder)}
    os.environ["HOME"] = home
    try:
        out, err = await stage.host.unsandboxed(_TAMPER.replace(', "/tmp", "/dev/shm"', "") + _GRADE, facts, 10)
    finally:
        os.environ.pop("HOME") if before is None else os.environ.update(HOME=before)
    return judge(out) or Seen("broken", err[-200:])


PROBES = (
    Probe(7, "forged replies", (Driven("frames", _forged_inside, _forged_outside),)),
    Probe(45, "values that are bombs", (Driven("results", _returned_inside, _returned_outside),)),
    Probe(46, "tampering with the grader", (Driven("a second sandbox", _graded_inside, _graded_outside),)),
)
