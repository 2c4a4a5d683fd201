"""What unit tests of several folders need."""

import gc

import pytest

from deployments.placement import machine


@pytest.fixture
def steady_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has taken stays what it is now, for whoever plans with it. Really it grows
    by what libraries take on their first use, and shrinks by what earlier tests have left and by
    pages that the kernel takes back: what is planned would depend on when."""
    gc.collect()
    taken_bytes = machine.own_ram_bytes()
    monkeypatch.setattr(machine, "own_ram_bytes", lambda: taken_bytes)
