"""Files and secrets: what of the host can be read or written."""

from __future__ import annotations

import contextlib
import io
import tarfile

from agentgym.errors import SandboxFault, SandboxFileError
from agentgym.sandboxes.probes.acts import Code, Driven, Probe, Stage
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Seen

_SHADOW = """
if same("/etc/shadow", "shadow"):
    open("/etc/shadow").read(1)
    escaped("read the host's")
contained("it is another file")
"""
_SECRET = """
data = open(HOST["secret"], "rb").read()
escaped("read it") if is_secret(data) else contained("it is another file")
"""
_FOLDER = """
names = os.listdir(HOST["KEY"])
escaped(f"{len(names)} entries") if same(HOST["KEY"], "KEY") else contained("it is another folder")
"""
_ENVIRON = """
found = [name for name, value in os.environ.items() if HOST["nonce"] in value]
found += ["/proc/self/environ"] if is_secret(open("/proc/self/environ", "rb").read()) else []
escaped(found) if found else contained(f"{len(os.environ)} variables, none of the host's")
"""
_DESCRIPTORS = """
import stat
seen = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) and is_secret(os.pread(fd, 200, 0)):
            escaped(f"descriptor {fd} is the host's file")
        seen.append(fd)
    except OSError:
        pass
contained(f"open: {seen}")
"""
_OWN_EXE = """
for pid in {"self", "1", *(name for name in os.listdir("/proc") if name.isdigit())}:
    path = f"/proc/{pid}/exe"
    try:
        held = os.open(path, os.O_PATH)
    except OSError:
        continue
    try:
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
        escaped(f"opened {os.readlink(path)} for writing")
    except OSError as e:
        if e.errno == errno.ETXTBSY:
            escaped(f"could write {os.readlink(path)} once it is not running")
    os.close(held)
contained("none can be opened for writing")
"""
_FOLDERS = """
import stat
tops = ["/proc/self/cwd/" + "../" * 12, "/proc/1/root", "/proc/1/cwd/" + "../" * 12]
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            tops.append(f"/proc/self/fd/{fd}/" + "../" * 12)
    except OSError:
        pass
for top in tops:
    try:
        if is_secret(open(top + HOST["secret"], "rb").read()):
            escaped(f"the host's root is above {top[:16]}")
    except OSError:
        pass
contained(f"{len(tops)} ways up end in the sandbox")
"""
_WRITE = """
os.makedirs(HOST["folder"], exist_ok=True)
open(HOST["folder"] + "/planted", "w").write("x")
escaped("wrote it")
"""
_LINKS = """
os.symlink(HOST["secret"], "link")
os.symlink(HOST["folder"], "up")
try:
    os.link(HOST["secret"], "hard")
except OSError:
    pass
"""
_TAR = """
import io, tarfile
os.makedirs("inner", exist_ok=True)
FILTER = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
tarfile.open(fileobj=io.BytesIO(bytes.fromhex(HOST["tar"]))).extractall("inner", **FILTER)
"""


async def _written_inside(stage: Stage) -> Seen:
    async with stage.sandbox() as box:
        done = await box.exec(program(_WRITE, await stage.host.facts_now()))
    return _planted(stage) or Seen("contained", (judge(done.stdout) or Seen("contained", done.error)).detail)


async def _written_outside(stage: Stage) -> Seen:
    await stage.host.unsandboxed(_WRITE, await stage.host.facts_now(), 10)
    return _planted(stage) or Seen("contained", "nothing was written")


def _planted(stage: Stage) -> Seen | None:
    """What of the host's folder should not be there; it is removed."""
    found = [path for path in stage.host.folder.iterdir() if path.name.startswith("planted")]
    for path in found:
        path.unlink()
    return Seen("escaped", f"the host's folder got {len(found)} files") if found else None


async def _linked_inside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now()
    async with stage.sandbox() as box:
        await box.exec(program(_LINKS, facts))
        for path in ("link", "hard", "up/secret", "../" * 12 + facts["secret"][1:], facts["secret"]):
            try:
                if stage.host.nonce.encode() in await box.read_file(path):
                    return Seen("escaped", f"read_file({path!r}) gave the host's file")
            except (SandboxFileError, SandboxFault):
                pass
        for path in ("up/planted", "../" * 12 + facts["folder"][1:] + "/planted", facts["folder"] + "/planted"):
            with contextlib.suppress(SandboxFileError, SandboxFault):
                await box.write_file(path, b"x")
    return _planted(stage) or Seen("contained", "5 ways to read and 3 to write end in the sandbox")


async def _linked_outside(stage: Stage) -> Seen:
    code = _LINKS + 'escaped("followed") if is_secret(open("link", "rb").read()) else contained()'
    out, err = await stage.host.unsandboxed(code, await stage.host.facts_now(), 10)
    return judge(out) or Seen("broken", err[-200:])


def _traversal(stage: Stage) -> bytes:
    folder = str(stage.host.folder)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("../" * 12 + folder[1:] + "/planted-up", f"{folder}/planted-absolute"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, folder
        tar.addfile(link)
        member = tarfile.TarInfo("way/planted-link")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return made.getvalue()


async def _restored_inside(stage: Stage) -> Seen:
    told = "taken, within the sandbox"
    async with stage.sandbox() as box:
        try:
            await box.restore(_traversal(stage))
        except (SandboxFileError, SandboxFault) as e:
            told = f"refused: {str(e).splitlines()[-1][-100:]}"
    return _planted(stage) or Seen("contained", told)


async def _restored_outside(stage: Stage) -> Seen:
    facts = await stage.host.facts_now() | {"tar": _traversal(stage).hex()}
    _, err = await stage.host.unsandboxed(_TAR, facts, 10)
    return _planted(stage) or Seen("contained", err[-200:])


PROBES = (
    Probe(
        1,
        "/etc/shadow",
        (
            Code("shadow", _SHADOW, needs="shadow"),
            Code("a file of the user's", _SECRET),
            Code(
                "the same by a command",
                "grep -q {nonce} {secret} && echo @probe escaped || echo @probe contained",
                "shell",
            ),
        ),
    ),
    Probe(
        2,
        "home and checkout",
        (
            Code("home", _FOLDER.replace("KEY", "home"), needs="home"),
            Code("checkout", _FOLDER.replace("KEY", "checkout"), needs="checkout"),
        ),
    ),
    Probe(
        3,
        "secrets in the environment",
        (
            Code("python", _ENVIRON),
            Code("command", "env | grep -q {nonce} && echo @probe escaped || echo @probe contained", "shell"),
            Code("terminal", "env | grep -q {nonce} && echo @probe escaped || echo @probe contained", "terminal"),
        ),
    ),
    Probe(6, "inherited descriptors", (Code("descriptors", _DESCRIPTORS),)),
    Probe(
        25,
        "own interpreter, leaked folders",
        (Code("/proc/*/exe", _OWN_EXE, kernel=True, machine=True), Code("ways up", _FOLDERS)),
    ),
    Probe(
        28,
        "writes to the host, links, archives",
        (
            Driven("write", _written_inside, _written_outside),
            Driven("links and '..'", _linked_inside, _linked_outside),
            Driven("archive", _restored_inside, _restored_outside),
        ),
    ),
)
