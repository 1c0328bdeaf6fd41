"""The faults that `make mutations` plants: that each still has its place. Whether it is found takes minutes."""

from __future__ import annotations

import pytest

from tests.mutations import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.old}")
def test_a_fault_can_be_planted(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    assert all((ROOT / path).exists() for path in fault.tests.split())
