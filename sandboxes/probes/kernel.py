"""The kernel's interfaces: new namespaces, mounts, tracing tools, devices, other system-call tables."""

from __future__ import annotations

from agentgym.sandboxes.probes.acts import Code, Probe


def _kernel(name: str, code: str) -> Code:
    """Of the kernel that sessions share with the machine. Machines and users differ in what they may do unsandboxed."""
    return Code(name, code, kernel=True, machine=True)


_UNSHARE = 'child(lambda: call("unshare", NEWUSER))'
_CLONE = """
def act():
    pid = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid
child(act)
"""
_CLONE3 = """
import struct
def act():
    given = ctypes.create_string_buffer(struct.pack("=8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    pid = call("clone3", ctypes.byref(given), 64)
    if pid == 0:
        os._exit(0)
    return pid
child(act)
"""
_MOUNT = """
os.makedirs("point", exist_ok=True)
def act():
    private()
    return call("mount", b"none", b"point", b"tmpfs", 0, None)
child(act)
"""
_FSOPEN = """
def act():
    private()
    return call("fsopen", b"tmpfs", 0)
child(act)
"""
_MOVE = """
os.makedirs("point", exist_ok=True)
def act():
    private()
    fs = call("fsopen", b"tmpfs", 0)
    call("fsconfig", fs, 6, None, None, 0)
    made = call("fsmount", fs, 0, 0)
    return call("move_mount", made, b"", -100, b"point", 4)
child(act)
"""
_SETNS = """
def act():
    return call("setns", os.open(f"/proc/{HOST['victim']}/ns/uts", os.O_RDONLY), 0)
child(act)
"""
_PIVOT = """
os.makedirs("point", exist_ok=True)
def act():
    private()
    call("mount", b"none", b"point", b"tmpfs", 0, None)
    os.chdir("point")
    return call("pivot_root", b".", b".")
child(act)
"""
_CHROOT = """
os.makedirs("cage", exist_ok=True)
def act():
    if os.geteuid():
        call("unshare", NEWUSER)
    os.chroot("cage")
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    if not is_secret(open(HOST["secret"], "rb").read()):
        raise OSError("the root above is not the host's")
    return "reached the host's root"
child(act)
"""
_HANDLE = """
handle = ctypes.create_string_buffer(bytes.fromhex(HOST["handle"]))
tried = []
for place in (".", "/", "/usr", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", sys.prefix, HOST["folder"]):
    try:
        fd = call("open_by_handle_at", os.open(place, os.O_RDONLY), ctypes.byref(handle), 0)
        escaped("opened the host's file") if is_secret(os.read(fd, 64)) else contained("another file")
    except OSError as e:
        tried.append(errno.errorcode[e.errno])
contained(tried)
"""
_BPF = """
import struct
given = ctypes.create_string_buffer(struct.pack("=5I", 2, 4, 4, 1, 0) + bytes(100))
escaped(f"map {call('bpf', 0, ctypes.byref(given), 72)}")
"""
_PERF = """
import struct
given = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 112, 0) + bytes(96))
escaped(f"event {call('perf_event_open', ctypes.byref(given), 0, -1, -1, 0)}")
"""
_FAULT = "escaped(f\"handler {call('userfaultfd', os.O_CLOEXEC | 1)}\")"
_RING = """
given = ctypes.create_string_buffer(120)
escaped(f"ring {call('io_uring_setup', 4, ctypes.byref(given))}")
"""
_KEYS = "escaped(f\"keyring {call('keyctl', 0, -3, 1)}\")"
_SETUID = """
import glob, subprocess
def lower():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
found = []
for place in ("/usr/bin", "/bin", "/usr/sbin"):
    found += [f"{place}/{name}" for name in ("su", "newgrp", "passwd", "sudo", "mount")]
found = [p for p in found if os.path.exists(p) and os.stat(p).st_mode & 0o4000]
for path in found[:3]:
    made = subprocess.Popen([path, "-"], stdin=subprocess.PIPE, stdout=-3, stderr=-3, preexec_fn=lower)
    for _ in range(200):
        try:
            lines = open(f"/proc/{made.pid}/status").read()
        except OSError:
            break
        if [w for w in lines.splitlines() if w.startswith("Uid:") and w.split()[2] == "0" and w.split()[1] != "0"]:
            escaped(f"{path} ran as root")
            break
        if made.poll() is not None:
            break
        time.sleep(0.002)
    made.kill()
    made.wait()
contained(f"{len(found)} such programs, none ran as root")
"""
_RISE = """
def act():
    os.setuid(0)
    line = [w for w in open("/proc/self/status") if w.startswith("CapEff")][0].split()[1]
    if int(line, 16) == 0:
        raise OSError("uid 0 without a capability")
    return "capabilities " + line
child(act)
"""
_CAPABILITIES = """
lines = dict(w.split(":\\t") for w in open("/proc/self/status").read().splitlines() if w.startswith("Cap"))
held = {name: value for name, value in lines.items() if name != "CapBnd" and int(value, 16)}
escaped(held) if held else contained("none in any set")
"""
_MKNOD = """
os.mknod("device", 0o20666, os.makedev(1, 3))
os.unlink("device")
escaped("made a device")
"""
_DEVICES = """
tried = 0
for name in ("mem", "kmem", "port", "kvm", "fuse", "net/tun", "loop-control", "vda", "sda", "nvme0n1", "kmsg", "vsock"):
    try:
        os.close(os.open("/dev/" + name, os.O_RDONLY | os.O_NONBLOCK))
        escaped("/dev/" + name)
    except OSError:
        tried += 1
contained(f"{tried} devices, none can be opened")
"""
# opened for writing is enough; nothing is written
_KNOBS = """
import glob
tried = ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/sys/power/state",
    "/sys/kernel/uevent_helper", "/proc/sys/fs/binfmt_misc/register"]
tried += glob.glob("/sys/fs/cgroup/*/release_agent") + glob.glob("/sys/fs/cgroup/release_agent")
tried += ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"]
for path in tried:
    try:
        os.close(os.open(path, os.O_WRONLY))
        escaped(path)
    except OSError:
        pass
contained(f"{len(tried)} files, none can be opened for writing")
"""
# what the 64-bit table refuses must not pass by another; unshare is 310 in i386's table and 272 in x32's
_I386 = """
import mmap
def act():
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("5389f889f3cd805bc3"))
    run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    done = run(310, NEWUSER)
    if done < 0:
        raise OSError(-done, os.strerror(-done))
    return "a new user namespace"
child(act) if platform.machine() == "x86_64" else contained("only on x86-64")
"""
_X32 = """
NUMBERS["x32_unshare"] = 0x40000000 + 272
child(lambda: call("x32_unshare", NEWUSER)) if platform.machine() == "x86_64" else contained("only on x86-64")
"""

PROBES = (
    Probe(
        16,
        "new user namespaces",
        (_kernel("unshare", _UNSHARE), _kernel("clone", _CLONE), _kernel("clone3", _CLONE3)),
    ),
    Probe(17, "mounts", (_kernel("mount", _MOUNT), _kernel("fsopen", _FSOPEN), _kernel("move_mount", _MOVE))),
    Probe(
        18,
        "setns, pivot_root, chroot",
        (
            Code("setns", _SETNS, machine=True),
            _kernel("pivot_root", _PIVOT),
            Code("chroot and '..'", _CHROOT, machine=True),
        ),
    ),
    Probe(19, "open_by_handle_at", (Code("handle", _HANDLE, machine=True, needs="handle"),)),
    Probe(
        20,
        "bpf, perf, userfaultfd, io_uring",
        (
            _kernel("bpf", _BPF),
            _kernel("perf_event_open", _PERF),
            _kernel("userfaultfd", _FAULT),
            _kernel("io_uring_setup", _RING),
        ),
    ),
    Probe(21, "keyrings", (_kernel("keyctl", _KEYS),)),
    Probe(
        22,
        "becoming root",
        (
            _kernel("setuid program", _SETUID),
            _kernel("setuid(0)", _RISE),
            _kernel("capabilities", _CAPABILITIES),
        ),
    ),
    Probe(23, "devices", (_kernel("mknod", _MKNOD), _kernel("open", _DEVICES))),
    Probe(24, "the kernel's settings", (_kernel("open for writing", _KNOBS),)),
    Probe(27, "i386 and x32 system calls", (_kernel("i386", _I386), _kernel("x32", _X32))),
)
