"""Resources: bombs of memory, processes, disk, descriptors and output end inside."""

from __future__ import annotations

import json
import resource

from agentgym.execution import ExecStatus
from agentgym.sandboxes.probes.acts import BOMB, LIMITS, Code, Driven, Probe, Side, Stage
from agentgym.sandboxes.probes.endless import endless
from agentgym.sandboxes.probes.inside import program
from agentgym.sandboxes.probes.rows import Seen

DISK_BOMB = 192 << 20
"""Above the disk's limit and the memory's together."""
_ENDED = (ExecStatus.oom, ExecStatus.killed, ExecStatus.timeout)


def _sized(code: str) -> str:
    return code.replace("DISK_BOMB", str(DISK_BOMB)).replace("BOMB", str(BOMB))


_MEMORY = """
held = []
while len(held) < BOMB >> 24:
    held.append(bytearray(b"x") * (1 << 24))
escaped("held BOMB bytes")
"""
_MANY = """
r, w = os.pipe()
pids = []
for _ in range(12):
    pids.append(os.fork())
    if pids[-1] == 0:
        try:
            held = bytearray(b"x") * (BOMB // 12)
            os.write(w, b"1")
            time.sleep(4)
        finally:
            os._exit(0)
os.close(w)
said = b""
while len(said) < 12 and (part := os.read(r, 12)):
    said += part
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
(escaped if len(said) == 12 else contained)(f"{len(said)} of 12 held their part")
"""
_FILL = """
def fill(fd):
    block, done = b"x" * (1 << 20), 0
    while done < DISK_BOMB:
        done += os.write(fd, block)
path = PATH
fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    fill(fd)
    escaped("wrote DISK_BOMB bytes")
finally:
    os.close(fd)
    os.unlink(path)
"""
# several files, each within what one file may hold
_SPREAD = """
import shutil
os.makedirs("many")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    for i in range(DISK_BOMB >> 22):
        with open(f"many/{i}", "wb") as file:
            file.write(b"x" * (1 << 22))
    escaped("wrote DISK_BOMB bytes")
finally:
    shutil.rmtree("many")
"""
_MEMFD = """
fd = call("memfd_create", b"bomb", 0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
done = 0
while done < DISK_BOMB:
    done += os.write(fd, b"x" * (1 << 20))
escaped("wrote DISK_BOMB bytes")
"""
_FORKS = """
import threading
pids = []
try:
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            time.sleep(10)
            os._exit(0)
        pids.append(pid)
    escaped("100 processes at once")
finally:
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
"""
_THREADS = """
import threading
end, made = threading.Event(), []
try:
    for _ in range(100):
        one = threading.Thread(target=end.wait, daemon=True)
        one.start()
        made.append(one)
    escaped("100 threads at once")
except RuntimeError as e:
    contained(f"{e} after {len(made)}")
finally:
    end.set()
"""
# at most 128 processes where nothing holds it: four times the limit, and no harm to the machine
BREED = """
tag()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(GENERATIONS):
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
while True:
    time.sleep(0.01)
"""
_INODES = """
import shutil
os.makedirs("empty")
try:
    for i in range(COUNT):
        os.close(os.open(f"empty/{i}", os.O_CREAT | os.O_WRONLY))
    escaped("made COUNT files")
finally:
    shutil.rmtree("empty")
"""
_DESCRIPTORS = """
import resource
try:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
except (OSError, ValueError):
    pass
held = []
try:
    while len(held) < 1000:
        held.append(os.dup(0))
    escaped("1000 descriptors")
finally:
    for fd in held:
        os.close(fd)
"""
_SPARSE = 'open("sparse", "wb").truncate(SIZE)'
_FLOOD = """
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
left = SIZE
while left > 0:
    try:
        left -= os.write(1, b"x" * (1 << 20))
    except OSError:
        break
"""
_ODD = "import os; _ = os.write(1, b'\\xff\\xfe\\x00\\xed\\xa0\\x80 \\x1b]0;title\\x07\\x1b[2J' + bytes(range(256)))"
_DEEP = "x = []\nfor _ in range(100000):\n    x = [x]\nx"
_ZIP = """
import zlib
packer, packed = zlib.compressobj(9), b""
for _ in range(BOMB >> 20):
    packed += packer.compress(bytes(1 << 20))
packed += packer.flush()
opened = zlib.decompress(packed)
escaped(f"{len(packed)} bytes became {len(opened)}")
"""


def _flooded(code: str) -> Side:
    async def side(stage: Stage) -> Seen:
        before = _peak()
        async with stage.sandbox() as box:
            done = await box.exec(code, timeout=60)
            after = await box.exec("40 + 2", timeout=20)
        kept, grown = len(done.stdout) + len(done.stderr), (_peak() - before) >> 20
        if after.result != "42":
            return Seen("escaped", f"the sandbox is of no use any more ({after.status.value}: {after.error})")
        if kept > 2 * LIMITS.output + 500 or grown > 96:
            return Seen("escaped", f"{kept} characters kept, the host grew by {grown} MiB")
        return Seen("contained", f"{kept} characters kept")

    return side


def _flooded_outside(code: str) -> Side:
    async def side(stage: Stage) -> Seen:
        out, _ = await stage.host.unsandboxed(code, await stage.host.facts_now(), 60)
        return Seen("escaped" if len(out) > 2 * LIMITS.output + 500 else "contained", f"{len(out)} characters")

    return side


def _peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


async def _odd_inside(stage: Stage) -> Seen:
    async with stage.sandbox() as box:
        done = await box.exec(_ODD)
    for text in (done.stdout, done.stderr, done.error):
        json.loads(json.dumps(text).encode())
        text.encode()
    return Seen("contained", f"{len(done.stdout)} characters of proper text")


async def _odd_outside(stage: Stage) -> Seen:
    folder = stage.host.folder / "odd"
    folder.mkdir(exist_ok=True)
    process = await stage.host.start(_ODD, await stage.host.facts_now(), str(folder))
    out, _ = await process.communicate()
    try:
        out.decode()
    except UnicodeDecodeError as e:
        return Seen("escaped", f"no text: {e.reason}")
    return Seen("contained")


async def _deep_inside(stage: Stage) -> Seen:
    async with stage.sandbox() as box:
        done = await box.exec(_DEEP)
        after = await box.exec("40 + 2")
    fine = after.result == "42"
    return Seen(
        "contained" if fine else "escaped", f"{done.status.value}: {done.error or len(done.result or '')}"[:100]
    )


async def _deep_outside(stage: Stage) -> Seen:
    code = 'try:\n    json.loads("[" * 100000)\nexcept RecursionError:\n    escaped("a reader gives up")'
    out, err = await stage.host.unsandboxed(code, await stage.host.facts_now(), 10)
    return Seen("escaped") if "@probe escaped" in out else Seen("broken", err[-200:])


async def _sparse_inside(stage: Stage) -> Seen:
    from agentgym.errors import SandboxFault, SandboxFileError

    told, before = [], _peak()
    async with stage.sandbox() as box:
        for size in ("1 << 40", str(LIMITS.disk - 4096)):
            done = await box.exec(program(_SPARSE.replace("SIZE", size), await stage.host.facts_now()))
            try:
                told.append(f"{len(await box.read_file('sparse', 1 << 16))} bytes")
            except (SandboxFileError, SandboxFault) as e:
                told.append(f"{done.status.value}, {str(e)[-60:]}")
    grown = (_peak() - before) >> 20
    return Seen("escaped" if grown > 96 else "contained", "; ".join(told))


async def _sparse_outside(stage: Stage) -> Seen:
    code = _SPARSE.replace("SIZE", "1 << 40") + '\nescaped(f"{os.stat(\'sparse\').st_size} bytes")\nos.unlink("sparse")'
    out, err = await stage.host.unsandboxed(code, await stage.host.facts_now(), 10)
    return (
        Seen("escaped")
        if "@probe escaped" in out
        else Seen("na", f"the file system here has none ({out or err})"[:120])
    )


_CWD, _SHM, _TMP = '"bomb"', '"/dev/shm/agentgym-" + HOST["tag"]', '"/tmp/agentgym-" + HOST["tag"]'
PROBES = (
    Probe(29, "memory bomb", (Code("allocate", _sized(_MEMORY), ends=_ENDED, memory=True),)),
    Probe(30, "memory bomb of many processes", (Code("allocate", _sized(_MANY), ends=_ENDED, memory=True),)),
    Probe(
        31,
        "memory as files",
        (
            Code("/dev/shm", _sized(_FILL.replace("PATH", _SHM)), ends=_ENDED, memory=True),
            Code("/tmp", _sized(_FILL.replace("PATH", _TMP)), ends=_ENDED, memory=True),
            Code("memfd", _sized(_MEMFD), ends=_ENDED, memory=True),
        ),
    ),
    Probe(
        32,
        "fork and thread bombs",
        (
            Code("processes", _FORKS, ends=_ENDED),
            Code("threads", _THREADS, ends=_ENDED),
            endless("until the deadline", BREED.replace("GENERATIONS", "7"), BREED.replace("GENERATIONS", "4")),
        ),
    ),
    Probe(
        33,
        "disk",
        (
            Code("one file", _sized(_FILL.replace("PATH", _CWD)), ends=_ENDED),
            Code("many files", _sized(_SPREAD), ends=_ENDED),
            Code("inodes", _INODES.replace("COUNT", "150000"), ends=_ENDED, control=_INODES.replace("COUNT", "20000")),
            Driven("sparse", _sparse_inside, _sparse_outside),
        ),
    ),
    Probe(34, "descriptors", (Code("open", _DESCRIPTORS, machine=True),)),
    Probe(
        35,
        "output",
        (
            Driven(
                "flood",
                _flooded(_FLOOD.replace("SIZE", "64 << 20")),
                _flooded_outside(_FLOOD.replace("SIZE", "1 << 20")),
            ),
            Driven("a line of 1 GiB", _flooded(_FLOOD.replace("SIZE", "1 << 30")), "as above; not filled on the host"),
            Driven("no UTF-8, terminal codes", _odd_inside, _odd_outside),
            Driven("deep value", _deep_inside, _deep_outside),
        ),
    ),
    Probe(
        47,
        "CPU bombs",
        (
            endless("huge integers", "tag()\nwhile True:\n    x = 7 ** 30000000"),
            Code("unpacking", _sized(_ZIP), ends=_ENDED, memory=True),
        ),
    ),
)
