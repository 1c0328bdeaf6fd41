"""What runs inside a container. It uses the standard library and the worker's two files only; see `bundle`."""

from __future__ import annotations

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
JAIL = HERE.parent.parent / "local" / "jail"
MODULES = {
    "agentgym.sandboxes.local.jail.wire": JAIL / "wire.py",
    "agentgym.sandboxes.local.jail.worker": JAIL / "worker.py",
    "agentgym.sandboxes.docker.inside.filter": HERE / "filter.py",
    "agentgym.sandboxes.docker.inside.supervisor": HERE / "supervisor.py",
}
"""In the order in which they import each other."""

LOADER = """
import json, os, struct, sys, types
def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part: sys.exit(0)
        data += part
    return data
for name, source in json.loads(take(struct.unpack("!I", take(4))[0])):
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = ".".join(parts[:i])
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
    module = sys.modules[name] = types.ModuleType(name)
    module.__package__ = package
    exec(compile(source, "<" + name + ">", "exec"), module.__dict__)
# the names are the image's again
for name in [name for name in sys.modules if name.partition(".")[0] == "agentgym"]:
    del sys.modules[name]
module.main()
"""
"""The program of the container's first process: it reads the modules from its stdin, and begins."""


def bundle() -> bytes:
    """What the loader reads: 4 bytes of length, then [[name, source], ...]."""
    text = json.dumps([[name, path.read_text()] for name, path in MODULES.items()]).encode()
    return struct.pack("!I", len(text)) + text
