"""Runs in a peer's own virtual environment: calls its python tool so many times and prints what a call took, as JSON.

tool_driver.py skyrl-gym|gem SNIPPET EXPECTED COUNT
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable


def skyrl_gym() -> Callable[[str], str]:
    from skyrl_gym.tools import PythonCodeExecutorToolGroup

    group = PythonCodeExecutorToolGroup()
    return lambda code: str(group.execute_tool("python", code))


def gem() -> Callable[[str], str]:
    from gem.tools.python_code_tool import PythonCodeTool

    made = PythonCodeTool()
    return lambda code: str(made.execute_action(f"<python>{code}</python>")[2])


def command(text: str) -> str:
    done = subprocess.run(json.loads(text), capture_output=True, text=True)
    return done.stdout or done.stderr


def reap() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    name, snippet, expected, count = sys.argv[1:]
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    call = command if name == "command" else {"skyrl-gym": skyrl_gym, "gem": gem}[name]()
    call(snippet)
    reap()
    began, used = time.perf_counter(), cpu()
    for _ in range(int(count)):
        if expected not in (said := call(snippet)):
            sys.exit(f"it gave {said!r}")
        reap()
    print(json.dumps({"wall": (time.perf_counter() - began) / int(count), "cpu": (cpu() - used) / int(count)}))


if __name__ == "__main__":
    main()
