"""Processes: those of the host can be neither seen, read nor signalled; and the terminal is not the host's."""

from __future__ import annotations

import asyncio

from agentgym.execution import ExecStatus
from agentgym.sandboxes.probes.acts import Code, Driven, Probe, Stage
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Seen

_ENVIRONS = """
seen = 0
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) != os.getpid():
        try:
            if is_secret(open(f"/proc/{pid}/environ", "rb").read()):
                escaped(f"read that of {pid}")
            seen += 1
        except OSError:
            pass
contained(f"{seen} readable, all of the sandbox's")
"""
_FOREIGN = """
if is_secret(open(f"/proc/{HOST['victim']}/cmdline", "rb").read()):
    escaped("saw a process of the host")
contained("that number is another process")
"""
_TRACE = """
call("ptrace", 0x4206, HOST["victim"], 0, 0)
escaped("attached to a process of the host")
"""
_READ = """
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(64)
local, remote = Vector(ctypes.addressof(room), 24), Vector(HOST["address"], 24)
call("process_vm_readv", HOST["victim"], ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
escaped("read its memory") if is_secret(room.raw) else contained("that number is another process")
"""
_MEMORY = """
with open(f"/proc/{HOST['victim']}/mem", "rb", buffering=0) as memory:
    memory.seek(HOST["address"])
    escaped("read its memory") if is_secret(memory.read(24)) else contained("that number is another process")
"""
_TAKE = """
pidfd = call("pidfd_open", HOST["victim"], 0)
fd = call("pidfd_getfd", pidfd, HOST["victim_fd"], 0)
escaped("took its open file") if is_secret(os.pread(fd, 64, 0)) else contained("another file")
"""
_SIGNAL = """
os.kill(HOST["victim"], signal.SIGTERM)
contained("a process of the sandbox has that number")
"""
_PARENT = """
os.kill(os.getppid(), 0)
mine = os.getppid() != HOST["supervisor"]
contained("its parent is the sandbox's") if mine else escaped("may signal the host's process")
"""
# where the host's processes can be reached everyone would be killed: then it only says so
_EVERYONE = """
try:
    os.kill(HOST["victim"], 0)
    escaped("everyone would be reached")
except ProcessLookupError:
    try:
        os.kill(-1, signal.SIGKILL)
    except OSError:
        pass
    for pid in range(2, 3000):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    contained("sent to everyone that it can see")
except PermissionError:
    contained("the host's processes may not be signalled")
"""
_TYPE = """
import fcntl
tried = []
for path in ("/proc/self/fd/0", "/proc/self/fd/1", "/dev/tty", "/dev/console", "/dev/tty1"):
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(fd, 0x5412, b"#")
        escaped(f"typed into {path}")
    except OSError as e:
        tried.append(errno.errorcode[e.errno])
contained(tried)
"""
_TYPE_ALONE = """
import pty
pid, terminal = pty.fork()
if pid == 0:
    ACT
    os._exit(0)
text = b""
try:
    while part := os.read(terminal, 4096):
        text += part
except OSError:
    pass
os.waitpid(pid, 0)
print(text.decode(errors="replace").replace("#", ""))
"""


async def _everyone(stage: Stage) -> Seen:
    """One session signals all it can; another, and the host's process, live on."""
    facts = await stage.host.facts_now()
    async with stage.sandbox() as neighbour, stage.sandbox() as box:
        lives = asyncio.create_task(neighbour.exec("import time; time.sleep(1); 7"))
        await asyncio.sleep(0.2)
        done = await box.exec(program(_EVERYONE, facts), timeout=20)
        survived = (await lives).result == "7"
    seen = judge(done.stdout) or Seen("contained", f"its own session ended ({done.status.value})")
    if not survived:
        return Seen("escaped", "another session was ended")
    return Seen("escaped", "a process of the host died") if await stage.host.victim_died() else seen


async def _everyone_outside(stage: Stage) -> Seen:
    out, err = await stage.host.unsandboxed(_EVERYONE, await stage.host.facts_now(), 10)
    return judge(out) or Seen("broken", err[-200:])


_TYPE_CONTROL = _TYPE_ALONE.replace("ACT", _TYPE.strip().replace("\n", "\n    "))
PROBES = (
    Probe(4, "/proc/*/environ", (Code("environments", _ENVIRONS),)),
    Probe(5, "foreign pids", (Code("arguments", _FOREIGN),)),
    Probe(13, "ptrace", (Code("attach", _TRACE),)),
    Probe(
        14,
        "memory and files of others",
        (
            Code("process_vm_readv", _READ),
            Code("/proc/pid/mem", _MEMORY),
            Code("pidfd_getfd", _TAKE, machine=True),
        ),
    ),
    Probe(
        15,
        "signals",
        (
            Code("a process of the host", _SIGNAL, killed=True),
            Code("its parent", _PARENT, ends=(ExecStatus.killed,)),
            Driven("everyone", _everyone, _everyone_outside),
        ),
    ),
    Probe(26, "typing into the terminal (TIOCSTI)", (Code("type", _TYPE, control=_TYPE_CONTROL, machine=True),)),
)
