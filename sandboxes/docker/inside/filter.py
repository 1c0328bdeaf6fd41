"""A second system-call filter behind the engine's: what default profiles of older engines let through.

io_uring, sockets to the machine's hypervisor (vsock), and calls of another architecture, which filters by number miss.
"""

from __future__ import annotations

import contextlib
import os
import struct

# by `uname -m`: the audit architecture, and the number of `socket`
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
IO_URING = (425, 426, 427)
AF_VSOCK = 40
X32 = 0x40000000
PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026
_LD, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16


def program(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter's instructions as (code, jump if true, jump if false, operand); none where the machine is unknown."""
    if machine not in MACHINES:
        return []
    arch, socket = MACHINES[machine]
    ops = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RET, 0, 0, NO_SUCH_CALL), (_LD, 0, 0, _NR)]
    ops += [(_JGE, 0, 1, X32), (_RET, 0, 0, NO_SUCH_CALL)]
    for number in IO_URING:
        ops += [(_JEQ, 0, 1, number), (_RET, 0, 0, NOT_PERMITTED)]
    ops += [(_JEQ, 0, 3, socket), (_LD, 0, 0, _FIRST_ARGUMENT), (_JEQ, 0, 1, AF_VSOCK), (_RET, 0, 0, NOT_PERMITTED)]
    return [*ops, (_RET, 0, 0, ALLOW)]


def install() -> None:
    """Put this process, and all it will start, behind it; where that cannot be, the engine's own filter holds alone."""
    ops = program(os.uname().machine)
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *op) for op in ops))
        # struct sock_fprog: the count, and after padding a pointer
        held = ctypes.create_string_buffer(struct.pack("@HP", len(ops), ctypes.addressof(code)))
        libc = ctypes.CDLL(None, use_errno=True)
        if ops:
            libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.c_void_p(ctypes.addressof(held)), 0, 0)
