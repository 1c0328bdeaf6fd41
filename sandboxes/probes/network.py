"""Network: nothing leaves, nothing local is reached."""

from __future__ import annotations

from agentgym.sandboxes.probes.acts import Code, Probe

_TCP = """
import socket
with socket.create_connection(("127.0.0.1", HOST["tcp"]), 3) as made:
    made.sendall(HOST["nonce"].encode())
    made.shutdown(socket.SHUT_WR)
    made.settimeout(1)
    made.recv(1)
contained("a socket of the sandbox's own answered")
"""
_UDP = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(HOST["nonce"].encode(), ("127.0.0.1", HOST["udp"]))
contained("sent to nobody")
"""
_UNIX = """
import socket
made = socket.socket(socket.AF_UNIX)
made.connect(ADDRESS)
made.sendall(HOST["nonce"].encode())
made.shutdown(socket.SHUT_WR)
made.settimeout(1)
made.recv(1)
contained("a socket of the sandbox's own answered")
"""
_DOCKER = """
import socket
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        escaped(path)
    except OSError as e:
        refused(e)
"""
_RAW = """
import socket
made = socket.socket(FAMILY, socket.SOCK_RAW, PROTOCOL)
escaped("made one")
"""
_NETLINK = """
import socket, struct
made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
made.bind((0, 0))
made.settimeout(3)
made.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
answer = made.recv(1 << 16)
found = [name for name in HOST["interfaces"] if name.encode() + b"\\0" in answer]
escaped(f"sees {found}") if found else contained("sees none of the host's interfaces")
"""
_VSOCK = """
import socket
socket.socket(40, socket.SOCK_STREAM)
escaped("made one")
"""
# 192.0.2.1 is nobody's (RFC 5737). A packet on its way is an escape, so the second is tried only where none was sent
_AWAY = """
import socket
for address in ADDRESSES:
    made = socket.socket()
    made.setblocking(False)
    error = made.connect_ex((address, 80))
    made.close()
    if error in (0, errno.EINPROGRESS):
        escaped(f"a packet to {address} was sent")
        break
    contained(errno.errorcode[error])
"""
_NOBODY, _METADATA = '"192.0.2.1"', '"169.254.169.254"'

PROBES = (
    Probe(8, "TCP to the host", (Code("connect", _TCP, heard="tcp"),)),
    Probe(9, "UDP to the host", (Code("send", _UDP, heard="udp"),)),
    Probe(
        10,
        "raw, packet, netlink and vsock sockets",
        (
            Code(
                "raw",
                _RAW.replace("FAMILY", "socket.AF_INET").replace("PROTOCOL", "socket.IPPROTO_ICMP"),
                kernel=True,
                machine=True,
            ),
            Code(
                "packet",
                _RAW.replace("FAMILY", "socket.AF_PACKET").replace("PROTOCOL", "socket.htons(3)"),
                kernel=True,
                machine=True,
            ),
            Code("netlink", _NETLINK, needs="interfaces", network=True),
            Code("vsock", _VSOCK, kernel=True, machine=True),
        ),
    ),
    Probe(
        11,
        "unix sockets",
        (
            Code("path", _UNIX.replace("ADDRESS", 'HOST["unix"]'), heard="path"),
            Code("abstract", _UNIX.replace("ADDRESS", '"\\0" + HOST["abstract"]'), heard="abstract"),
            Code("a container engine's", _DOCKER, machine=True),
        ),
    ),
    Probe(
        12,
        "metadata address",
        (
            Code(
                "connect",
                _AWAY.replace("ADDRESSES", f"({_NOBODY}, {_METADATA})"),
                control=_AWAY.replace("ADDRESSES", f"({_NOBODY},)"),
                machine=True,
                network=True,
            ),
        ),
    ),
)
