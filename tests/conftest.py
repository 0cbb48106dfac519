"""Shared by all tests: where the project and the optional real rows lie, and problems of each kind."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as labkit/__init__.py: a test may import torch before it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub is a mistake
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "benchmarks"
TRACES = ROOT.parent / "shared" / "teacher-traces" / "traces.jsonl"


@pytest.fixture
def real_rows() -> Path:
    """Folder with rows of the real benchmarks; they are not part of the project."""
    if not REAL.is_dir():
        pytest.skip("real benchmark rows are not beside the project (../shared/benchmarks)")
    return REAL
