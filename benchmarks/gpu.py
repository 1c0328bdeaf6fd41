"""What one GPU gives: the whole way of a run, and the learner on published architectures, in at most nine minutes.

    python3 benchmarks/gpu.py [--json FILE] [--minutes 8.8] [--parts NAME,...] [--quick --device cpu]

Offline, from a plain checkout, with the machine's own Python and torch. Each part runs in a process of its own and for
no longer than its own seconds: one that fails, is killed, has no memory or takes too long is written down as that, with
what it had measured, and the next begins. The file is written after every part. `--quick`: tiny sizes, the same code.

status of a part: ok; out_of_memory (a result, too); failed; missing (a package); timeout; not_run (no time was left).
Ends with 0 where all parts are ok or out_of_memory, with 1 where one is not, with 2 where nothing could be run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# this file needs no package, and no new Python: it is to say what is missing
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "gpu.json"
TRIED = Path(tempfile.gettempdir()) / "agentgym-gpu-quick.json"
TORCH = (2, 11)
GRACE = 5.0
"""Seconds between being asked to end and being killed."""
FINE = ("ok", "out_of_memory")
HEADLINES = (
    "name", "matmul_bf16_tflops", "chosen", "both_tflops", "trajectories_s", "logprob_gap_max", "engine_busy",
    "learner_busy", "gb_s", "tokens_s", "mfu", "peak_allocated_gib", "status",
)  # fmt: skip


class Part(NamedTuple):
    """`function` is `module:name`, called with a `gpu_parts.job.Job` and `arguments`, for at most `seconds`."""

    name: str
    function: str
    seconds: float
    arguments: Mapping[str, Any] = {}  # nobody writes into it


PARTS = (
    Part("hardware", "gpu_parts.hardware:run", 40),
    Part("attention", "gpu_parts.attention:run", 30),
    Part("train_full", "gpu_parts.training:run", 105, {"lora": 0}),
    Part("train_lora", "gpu_parts.training:run", 75, {"lora": 16}),
    Part("weight_sync", "gpu_parts.syncing:run", 60),
    Part("learner_0.6b_full", "gpu_parts.learning:run", 60, {"model": "Qwen/Qwen3-0.6B", "lora": 0}),
    Part("learner_0.6b_lora", "gpu_parts.learning:run", 50, {"model": "Qwen/Qwen3-0.6B", "lora": 16}),
    Part("learner_4b_full", "gpu_parts.learning:run", 60, {"model": "Qwen/Qwen3-4B", "lora": 0}),
    Part("learner_4b_lora", "gpu_parts.learning:run", 60, {"model": "Qwen/Qwen3-4B", "lora": 16}),
)
# what the parts import, and the distribution that brings it
NEEDS = {
    "numpy": "numpy", "transformers": "transformers", "safetensors": "safetensors", "jinja2": "jinja2",
    "gymnasium": "gymnasium", "farama_notifications": "Farama-Notifications",
    "pydantic": "pydantic", "pydantic_core": "pydantic-core", "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection", "typing_extensions": "typing-extensions", "typer": "typer",
    "rich": "rich", "httpx": "httpx", "matplotlib": "matplotlib", "peft": "peft",
    "accelerate": "accelerate", "psutil": "psutil",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}; with --quick {TRIED}")
    parser.add_argument("--minutes", type=float, default=8.8, help="for everything")
    parser.add_argument("--parts", default="", help="some of: " + ",".join(part.name for part in PARTS))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return child(args.child)
    names = [name for name in args.parts.split(",") if name]
    if unknown := sorted(set(names) - {part.name for part in PARTS}):
        return refuse(f"--parts: there is no {', '.join(unknown)}; there are {', '.join(p.name for p in PARTS)}")
    if args.device == "cpu" and not args.quick:
        return refuse("--device=cpu: the sizes are a GPU's; add --quick")
    if problem := missing_torch():
        return refuse(problem)
    if lacking := [name for module, name in NEEDS.items() if importlib.util.find_spec(module) is None]:
        print(how_to_carry(lacking), file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the part under way, too
    chosen = [part for part in PARTS if not names or part.name in names]
    path = args.json or (TRIED if args.quick else RESULTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    return run_parts(chosen, path, device=args.device, quick=args.quick, seconds=60 * args.minutes)


def refuse(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2


def missing_torch() -> str:
    """What keeps everything from running; empty: nothing."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return (
            f"agentgym needs Python 3.11 to 3.13, and {sys.executable} is {sys.version.split()[0]}: make gpu PYTHON=..."
        )
    if importlib.util.find_spec("torch") is None:
        return (
            f"{sys.executable} has no torch. Say which Python has it (make gpu PYTHON=/path/to/python3); this "
            "measures the machine's own torch and installs none"
        )
    found = importlib.metadata.version("torch")
    if tuple(int(number) for number in found.split("+")[0].split(".")[:2]) < TORCH:
        return f"{sys.executable} has torch {found}; agentgym needs 2.11 or later"
    return ""


def how_to_carry(lacking: Sequence[str]) -> str:
    tag = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f"{sys.executable} lacks {', '.join(lacking)}: parts that need them are reported as missing. Where there is a "
        "network, and then here:\n"
        f"  pip download --no-deps --only-binary=:all: --python-version {tag} -d wheels {shlex.join(lacking)}\n"
        f"  {sys.executable} -m pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site make gpu"
    )


def run_parts(parts: Sequence[Part], path: Path, *, device: str, quick: bool, seconds: float) -> int:
    """Run them one after the other, writing `path` after each; returns the exit code."""
    began = time.monotonic()
    report: dict[str, Any] = {
        "what": "benchmarks/gpu.py", "device": device, "quick": quick, "python": sys.version.split()[0],
        "finished": False, "seconds": 0.0, "parts": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="agentgym-gpu-") as folder:
        for part in parts:
            left = seconds - (time.monotonic() - began)
            limit = min(part.seconds, left - GRACE)
            print(f"== {part.name} (up to {max(0.0, limit):.0f} s)", flush=True)
            found: dict[str, Any] = (
                run_part(part, Path(folder), device, quick, limit) if limit > 0 else {"status": "not_run"}
            )
            error = found.get("error")
            if error and error["type"] == "NoDevice":
                return refuse(error["message"])
            report["parts"][part.name] = found
            report["seconds"] = round(time.monotonic() - began, 1)
            write(path, report)
            print(f"   {found['status']}{': ' + error['message'] if error else ''}")
            for line in headlines(found.get("figures", {})):
                print(f"   {line}")
            sys.stdout.flush()
    report["finished"] = True
    write(path, report)
    print(f"{path}: {report['seconds']:.0f} s")
    return 0 if all(found["status"] in FINE for found in report["parts"].values()) else 1


def run_part(part: Part, folder: Path, device: str, quick: bool, limit: float) -> dict[str, Any]:
    """One part in a process group of its own: status, seconds, error and figures."""
    out, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    job = {
        "function": part.function, "arguments": part.arguments, "out": str(out), "folder": str(folder),
        "device": device, "quick": quick, "seconds": limit, "parent": os.getpid(),
    }  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    given = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE), *([given] if given else [])])
    began = time.monotonic()
    with log.open("wb") as file:
        command = [sys.executable, str(HERE / "gpu.py"), "--child", json.dumps(job)]
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        code = ended(process, limit)
    found = json.loads(out.read_text()) if out.exists() else {}
    figures, error = found.get("figures", {}), found.get("error")
    if code is None:
        status, error = "timeout", {"type": "Timeout", "message": f"took more than its {limit:.0f} s"}
    elif error is not None:
        status = found["status"]
    elif code != 0:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        status, error = "failed", {"type": "Died", "message": f"its process ended with {how}"}
    else:
        status = found.get("status", "ok")
    if status not in FINE:
        error = {**(error or {}), "tail": log.read_text(errors="replace")[-2000:]}
    taken = round(time.monotonic() - began, 1)
    return {"status": status, "seconds": taken, "limit_s": round(limit, 1), "error": error, "figures": figures}


def ended(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit code; None where it had to be ended. Nothing of its group outlives this."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def headlines(figures: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The figures that one looks for first, a line each; statuses of what a part tried on its own, too."""
    for key, value in figures.items():
        place = f"{where}{key}"
        if isinstance(value, dict):
            yield from headlines(value, f"{place}.")
        elif key in HEADLINES and value is not None:
            yield f"{place} = {value:.4g}" if isinstance(value, float) else f"{place} = {value}"


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Whole or as before."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(report, indent=1) + "\n")
    new.replace(path)


def child(text: str) -> int:
    """One part: its figures, and its error by type, into the job's file."""
    import importlib

    from gpu_parts.job import Job

    given = json.loads(text)
    threading.Thread(target=outlived, args=(given["parent"],), daemon=True).start()
    job = Job(given["device"], given["quick"], given["seconds"], Path(given["folder"]), Path(given["out"]))
    try:
        module, _, name = given["function"].partition(":")
        getattr(importlib.import_module(module), name)(job, **given["arguments"])
    except Exception as e:
        job.failed(e)
        raise
    return 0


def outlived(parent: int) -> None:
    """End this process and its children when the one that watches over them was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
