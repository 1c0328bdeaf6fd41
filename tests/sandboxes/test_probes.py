"""The probe suite: it finds the local sandbox tight, and says so of no backend that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ConfigError
from agentgym.sandboxes.backends import make_backend
from agentgym.sandboxes.fake import FakeBackend
from agentgym.sandboxes.probes import CATALOGUE, run_probes
from agentgym.sandboxes.probes.inside import judge, program
from agentgym.sandboxes.probes.rows import Finding, Seen, row

Run = Callable[..., Any]
LEAKY = f"{Path(__file__).with_name('leaky.py')}:LeakyBackend"
LONG = {7, 15, 30, 32, 33, 35, 36, 37, 38, 39, 41, 45, 47, 48}
"""Those that wait for deadlines, or fill something."""


def test_every_probe_of_the_list_is_there_once() -> None:
    assert [probe.number for probe in CATALOGUE] == list(range(1, 49))
    assert all(probe.acts for probe in CATALOGUE)


def backend_options() -> dict[str, Any]:
    image = os.environ.get("AGENTGYM_TEST_IMAGE")
    return {"image": image} if os.environ.get("AGENTGYM_SANDBOX_BACKEND") == "docker" and image else {}


def check(rows: Any, backend: Any) -> None:
    assert [row for row in rows if row.bad] == []
    own_zygote = hasattr(backend, "_zygote")
    assert {row.probe for row in rows if row.status != "contained"} <= (set() if own_zygote else {44})
    assert {row.probe for row in rows if row.control != "ok"} <= {44, *_refused_to_this_user()}


def _refused_to_this_user() -> set[int]:
    """Controls that need root's rights."""
    return set() if os.geteuid() == 0 else {10, 17, 18, 19, 20, 21, 23, 24, 26}


def test_the_sandbox_is_tight(backend: Any, run: Run) -> None:
    check(run(run_probes(backend, only={probe.number for probe in CATALOGUE} - LONG)), backend)


@pytest.mark.slow
def test_the_sandbox_is_tight_where_it_takes_longer(backend: Any, run: Run) -> None:
    check(run(run_probes(backend, only=LONG, options=backend_options())), backend)


def test_a_leaky_backend_is_found_out(run: Run) -> None:
    wanted = {1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 22, 25, 27, 28, 34, 43}
    rows = {row.probe: row for row in run(run_probes(make_backend(LEAKY), only=wanted))}
    missed = {number for number, row in rows.items() if row.status != "escaped" and row.control == "ok"}
    assert missed == set()
    assert {1, 2, 3, 4, 5, 6, 8, 9, 11, 28, 43} <= {number for number, row in rows.items() if row.status == "escaped"}
    assert all(row.bad for row in rows.values() if row.status == "escaped")


@pytest.mark.slow
def test_a_leaky_backend_is_found_out_where_it_takes_longer(run: Run) -> None:
    wanted = {10, 12, 15, 16, 17, 18, 20, 23, 24, 30, 31, 33, 35, 39, 42}
    rows = {row.probe: row for row in run(run_probes(make_backend(LEAKY), only=wanted))}
    assert {n for n, row in rows.items() if row.status == "contained" and row.control == "ok"} <= {30, 31}
    assert {12, 15, 33, 35, 39, 42} <= {number for number, row in rows.items() if row.status == "escaped"}


def test_the_worst_act_counts_and_a_broken_one_shows_nothing() -> None:
    fine, out = Finding("a", Seen("contained", "EPERM"), Seen("escaped")), Seen("escaped", "x")
    assert (row(1, "n", [fine]).status, row(1, "n", [fine]).control) == ("contained", "ok")
    assert row(1, "n", [fine, Finding("b", out, out)]).status == "escaped"
    assert row(1, "n", [fine, Finding("b", Seen("contained"), Seen("contained"))]).control == "failed"
    broken = row(1, "n", [fine, Finding("b", Seen("broken", "NameError"), out)])
    assert (broken.control, broken.bad) == ("failed", True)
    assert "b: NameError" in broken.reason
    nothing = row(1, "n", [Finding("b", Seen("na", "no network"), Seen("na", "no network"))])
    assert (nothing.status, nothing.control, nothing.bad, nothing.reason) == ("na", "na", False, "b: no network")


def test_an_act_that_is_wrong_is_no_containment() -> None:
    assert judge("") is None
    assert judge("@probe contained EPERM\n@probe escaped yes\n") == Seen("escaped", "yes")
    wrong = program("no_such_name()", {})
    done = subprocess.run([sys.executable, "-I", "-c", wrong], capture_output=True, text=True)
    assert judge(done.stdout) is None
    refused = program("open('/no/such/file')", {})
    done = subprocess.run([sys.executable, "-I", "-c", refused], capture_output=True, text=True)
    assert judge(done.stdout) == Seen("contained", "ENOENT")


def test_what_is_no_probe(run: Run) -> None:
    with pytest.raises(ConfigError, match="there is no probe 99; they go from 1 to 48"):
        run(run_probes(make_backend(LEAKY), only={99}))
    with pytest.raises(ConfigError, match="nothing to probe"):
        run(run_probes(FakeBackend()))
