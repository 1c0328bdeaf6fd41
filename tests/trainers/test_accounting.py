"""Where the time goes: parts that sum to the whole."""

from __future__ import annotations

import subprocess
import sys
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.rollout.worker import peak_mem
from agentgym.trainers.accounting import Accounts, split

seconds = st.floats(0, 100)


def test_by_hand() -> None:
    worker = {"engine/cpu_s": 6.1, "engine/pack_s": 0.1, "env_s": 0.5, "render_s": 0.2, "parse_s": 0.1, "cpu_s": 7.0}
    row = split(20.0, worker, {"fwd_bwd": 10.2, "pack": 0.2, "probe": 2.0, "credit": 0.3, "batch": 0.4})
    assert (row["compute/engine"], row["compute/learner"]) == (pytest.approx(6.0), pytest.approx(10.0))
    assert row["overhead/pack"] == pytest.approx(0.1 + 0.2)
    assert row["overhead_frac"] == pytest.approx(2.0 / 18.0)  # the probe is on neither side
    assert row["overhead/ipc_other"] == pytest.approx(2.0 - 0.5 - 0.2 - 0.1 - 0.3 - 0.3 - 0.4)


@given(engine=seconds, learner=seconds, probe=seconds, env=seconds, rest=seconds)
def test_parts_sum_to_the_whole(engine: float, learner: float, probe: float, env: float, rest: float) -> None:
    total = engine + learner + probe + env + rest
    row = split(
        total, {"engine/cpu_s": engine, "engine/pack_s": engine / 9, "env_s": env}, {"fwd_bwd": learner, "probe": probe}
    )
    parts = sum(value for name, value in row.items() if name != "overhead_frac")
    assert parts == pytest.approx(total - probe, abs=1e-6)
    assert 0 <= row["overhead_frac"] <= 1


def test_counters_become_steps() -> None:
    accounts = Accounts()
    accounts.begin({"cpu_s": 100.0, "engine/cpu_s": 50.0, "engine/tokens": 7.0, "peak_mem": 300.0})
    first = accounts.step({"cpu_s": 104.0, "engine/cpu_s": 53.0, "engine/tokens": 9.0, "peak_mem": 300.0}, {})
    second = accounts.step({"cpu_s": 105.0, "engine/cpu_s": 54.0, "engine/tokens": 14.0, "peak_mem": 310.0}, {})
    assert (first["compute/engine"], second["compute/engine"]) == (3.0, 1.0)
    assert (first["worker/engine/tokens"], second["worker/engine/tokens"]) == (2.0, 5.0)
    assert (first["worker/peak_mem"], second["worker/peak_mem"]) == (300.0, 310.0)
    assert first["overhead/ipc_other"] >= 1.0


def test_what_follows_a_row_is_recording_of_the_next() -> None:
    accounts = Accounts()
    accounts.begin({})
    accounts.step({}, {})
    began = process_time()
    while process_time() - began < 0.02:
        pass
    accounts.recorded()
    row = accounts.step({}, {"record": 1.0})
    assert row["overhead/record"] >= 1.02
    assert accounts.step({}, {"record": 1.0})["overhead/record"] == 1.0  # and of no other


def test_a_child_does_not_report_its_parents_memory() -> None:
    held = bytearray(150 << 20)
    held[::4096] = bytes(len(held[::4096]))  # touched, so that it is held
    say = "from agentgym.rollout.worker import peak_mem; print(peak_mem())"
    child = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert 5 < float(child.stdout) < 150 < peak_mem()
