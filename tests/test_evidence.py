"""The plan of the evidence can be run as it stands: its recipes, rows, sweeps and the commands of the Makefile."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from labkit import method_rows, sweeps
from labkit.config import configure, parse_changes, recipe
from labkit.statistics import detectable
from tests.bench import results

ROOT = Path(__file__).resolve().parents[1]
PLAN = (ROOT / "evidence" / "PLAN.md").read_text(encoding="utf-8")


def _values(words, option):
    return [words[i + 1] for i, word in enumerate(words) if word == option]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "target", ["evidence", "evidence-quick", "evidence-ablate", "evidence-tune", "evidence-entropy", "evidence-smol"]
)
def test_every_command_of_the_makefile_is_valid(target):
    said = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"bin/labkit (methods|ablate) ([^&\n]*)", said.replace("\\\n", " "))
    assert commands
    for command, rest in commands:
        words = shlex.split(rest)
        (path,) = _values(words, "--recipe")
        base = recipe(str(ROOT / path), parse_changes(_values(words, "--set")))
        if command == "ablate":
            assert base.split == "validation"  # the test split is for the final table
            for sweep in _values(words, "--sweep"):
                assert len(sweeps.parse([sweep], base)) >= 2
        else:
            rows = method_rows.chosen(base, _values(words, "--methods")[0].split(","))
            assert all(configure({**base.model_dump(), **changes}) for changes in rows.values())


def test_each_tuned_row_has_the_same_budget():
    said = subprocess.run(["make", "-n", "evidence-tune"], cwd=ROOT, capture_output=True, text=True).stdout
    budgets = set()
    for rest in re.findall(r"bin/labkit ablate (.*)", said.replace("\\\n", " ")):
        words = shlex.split(rest)
        base = recipe(str(ROOT / "evidence/table.yaml"), parse_changes(_values(words, "--set")))
        budgets.add((len(sweeps.parse(_values(words, "--sweep"), base)), *_values(words, "--seeds")))
    assert budgets == {(5, "2")}


def test_the_plans_hypotheses_are_rows_of_the_table_and_its_power_is_computed():
    hypotheses = re.findall(r"^\| H\d \| (\S+) \| (\S+) \|", PLAN, re.M)
    assert len(hypotheses) == 5
    assert set(hypotheses) <= {claim[:2] for claim in method_rows.CLAIMS}
    assert hypotheses == [claim[:2] for claim in results.PRIMARY]
    told = [round(100 * detectable(6000, 5, 0.2, spread), 1) for spread in (0.01, 0.02, 0.03)]
    assert "{} , {} or {} points".format(*told).replace(" ,", ",") in PLAN
