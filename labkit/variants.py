"""The paper's six methods as changes of settings, and which settings leave parts of a run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Variants = Mapping[str, Mapping[str, Any]]

METHODS: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": "zero-shot"},
    "single-cot": {"method": "single-cot"},
    "diverse-cot": {"method": "diverse-cot"},
    "orpo-off": {"method": "orpo", "phi": 0.0},
    "orpo-on": {"method": "orpo", "phi": 1.0},
    "orpo-mixed": {"method": "orpo", "phi": 0.5},
}
POLICY = {"method", "phi", "negatives"}  # settings that the first samples and answers do not depend on
SAMPLING = {"k", "max_draws"}  # that the answers do not depend on
