"""The text that goes before every act: what it knows of the host, and how it says what came of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from agentgym.sandboxes.probes.rows import Seen

MARK = "@probe"
_ACTS = '''
import ctypes, errno, json, os, platform, signal, sys, time
NUMBERS = {
    "x86_64": dict(ptrace=101, process_vm_readv=310, pidfd_open=434, pidfd_getfd=438, unshare=272, clone=56,
        clone3=435, mount=165, fsopen=430, fsconfig=431, fsmount=432, move_mount=429, setns=308, pivot_root=155,
        open_by_handle_at=304, bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, keyctl=250,
        memfd_create=319, prctl=157),
    "aarch64": dict(ptrace=117, process_vm_readv=270, pidfd_open=434, pidfd_getfd=438, unshare=97, clone=220,
        clone3=435, mount=40, fsopen=430, fsconfig=431, fsmount=432, move_mount=429, setns=268, pivot_root=41,
        open_by_handle_at=265, bpf=280, perf_event_open=241, userfaultfd=282, io_uring_setup=425, keyctl=219,
        memfd_create=279, prctl=167),
}.get(platform.machine(), {})
NEWUSER, NEWNS = 0x10000000, 0x00020000
def escaped(detail=""):
    print("@probe escaped", str(detail).replace("\\n", " ")[:300], flush=True)
def contained(detail=""):
    print("@probe contained", str(detail).replace("\\n", " ")[:300], flush=True)
def refused(e):
    contained(errno.errorcode[e.errno] if getattr(e, "errno", None) in errno.errorcode else repr(e))
def call(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    long = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    done = libc.syscall(ctypes.c_long(NUMBERS[name]), *long)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return done
def private():
    """Before what would change the file system: a mount namespace of one's own, where that can be had."""
    try:
        call("unshare", NEWNS | (NEWUSER if os.geteuid() else 0))
        call("mount", b"none", b"/", None, 0x44000, None)
    except OSError:
        pass
def child(act):
    """The act in a process of its own; it returns what it achieved or raises OSError."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = "+" + str(act())
        except (OSError, MemoryError) as e:
            said = "-" + errno.errorcode.get(getattr(e, "errno", None), repr(e))
        except BaseException as e:
            said = "!" + repr(e)
        try:
            os.write(w, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(w)
    said = b""
    while part := os.read(r, 4096):
        said += part
    os.close(r)
    status = os.waitpid(pid, 0)[1]
    said = said.decode() or "-killed by signal %d" % (status & 127)
    if said[0] == "!":
        raise RuntimeError(said)
    (escaped if said[0] == "+" else contained)(said[1:])
def same(path, key):
    """Whether `path` is the host's own file that goes by `key`."""
    found = os.stat(path)
    return [found.st_dev, found.st_ino] == HOST["ids"][key]
def tag():
    """Give this process, and what it forks, a name by which the host can look for it."""
    ctypes.CDLL(None).prctl(15, HOST["tag"].encode(), 0, 0, 0)
def is_secret(data):
    return HOST["nonce"].encode() in data
'''


def program(code: str, host: Mapping[str, Any]) -> str:
    """The whole text of an act. An OSError or a MemoryError is a refusal; any other exception a broken act."""
    return (
        f"import json\nHOST = json.loads({json.dumps(host)!r})\n{_ACTS}\n"
        f"try:\n{textwrap.indent(textwrap.dedent(code).strip(), '    ')}\n"
        "except (OSError, MemoryError) as e:\n    refused(e)\n"
    )


def judge(output: str) -> Seen | None:
    """What an act's output says; None where it says nothing. Several lines: one escape is one."""
    lines = [line.split(" ", 2) for line in output.splitlines() if line.startswith(f"{MARK} ")]
    told = {words[1]: words[2] if len(words) > 2 else "" for words in reversed(lines)}
    if "escaped" in told:
        return Seen("escaped", told["escaped"])
    return Seen("contained", told["contained"]) if "contained" in told else None
