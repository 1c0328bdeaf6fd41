"""Run by `test_tiers` as an ordinary user, in a process of its own: prints as JSON what did not come out as it must."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from agentgym.errors import SandboxUnavailable
from agentgym.execution import SandboxLimits, SandboxSpec
from agentgym.sandboxes.local import LocalBackend

SPEC = SandboxSpec(SandboxLimits(memory=96 << 20, processes=16, disk=8 << 20, output=2000, timeout=20.0))
RUNAWAY = (
    "import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: os.execv('/bin/sleep', ['sleep', '12348.5'])\n"
)
MANY = """
import mmap, os, time
for i in range(8):
  if os.fork() == 0:
    if i % 2: a = bytearray(b'x') * (15 << 20)
    else:
      a = mmap.mmap(-1, 30 << 20)  # shared memory counts too
      for _ in range(30): a.write(bytes(1 << 20))
    time.sleep(30)
time.sleep(10)
"""
REFUSED = (
    "open('/etc/passwd').read(); open(SECRET).read()",
    "import socket; socket.socket()",
    "import os; os.kill(HOST, 0)",
    "import resource; resource.prlimit(HOST, resource.RLIMIT_CPU)",
)


async def main(options: dict[str, Any]) -> list[str]:
    wrong: list[str] = []

    def expect(what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            wrong.append(f"{what}: {found!r} instead of {wanted!r}")

    expect("user", os.getresuid(), (65534,) * 3)
    backend = LocalBackend(warm=1, **options)
    box = await backend.create(SPEC)
    expect("memory", backend.capabilities.memory, "watchdog")
    expect("state", [(await box.exec(code)).result for code in ("x = 1", "x + 1")], [None, "2"])
    expect("shell", (await box.shell("echo hi; exit 3")).exit_code, 3)
    expect("terminal", [(await box.terminal(c)).stdout for c in ("X=1; cd /usr", "echo $X $PWD")], ["", "1 /usr\n"])
    await box.restore(await box.snapshot())
    handle, secret = tempfile.mkstemp()
    os.write(handle, b"secret")
    if not options.get("allow_unsafe"):
        for code in REFUSED:
            told = await box.exec(f"SECRET, HOST = {secret!r}, {os.getpid()}\n{code}")
            expect(code, (told.status.value, told.result), ("error", None))
        await box.exec(f"open({secret!r}, 'w')")
        await box.exec(f"import os; os.chmod({secret!r}, 0o777)")
        expect("mode", oct(os.stat(secret).st_mode & 0o777), "0o600")
    expect("secret", Path(secret).read_bytes(), b"secret")
    os.unlink(secret)
    expect("memory", (await box.exec("a = bytearray(300 << 20)")).status.value, "oom")
    expect("memory of many", (await box.exec(MANY, timeout=15)).status.value, "oom")
    await box.exec("import shutil; open('a', 'w').close(); shutil.copy2('a', 'b')")
    expect("copy", (await box.exec("import os; sorted(os.listdir('.'))")).result, "['a', 'b']")
    await box.exec(RUNAWAY)
    expect("deadline", (await box.exec("while True: pass", timeout=0.3)).status.value, "timeout")
    expect("afresh", (await box.exec("1")).result, "1")
    bomb = "import os\nwhile True:\n  try:\n    os.fork()\n  except OSError: pass\n"
    expect("bomb", (await box.exec(bomb, timeout=1.0)).status.value in ("timeout", "killed", "oom"), True)
    expect("after it", (await box.exec("1")).result, "1")
    await backend.aclose()
    await box.close()
    expect("folders", os.listdir(tempfile.gettempdir()), [])
    return wrong


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
    except SandboxUnavailable as e:
        print(f"unavailable: {e}")
