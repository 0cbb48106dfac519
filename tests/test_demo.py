"""What `make demo` promises: the default recipe, from the command line, ends clearly above the untrained student.

Two of its five epochs and an evaluation at the end have to do: the whole suite is to take a quarter of an hour.
"""

import json
import subprocess
import sys

DEMO = ("distill", "demo", "--recipe", "pocket", "--set", "epochs=2", "--set", "evaluate_every=2")


def _labkit(folder, *words):
    return subprocess.run([sys.executable, "-m", "labkit", *words], cwd=folder, capture_output=True, text=True)


def test_the_default_run_ends_clearly_above_the_untrained_student(tmp_path):
    done = _labkit(tmp_path, *DEMO)
    assert done.returncode == 0, done.stderr[-500:]
    assert "pocket_gsm8k" in done.stdout and "The run lies in runs/demo" in done.stdout and "labkit app" in done.stdout
    told = _labkit(tmp_path, "compare", "demo", "demo", "--first-epoch", "0", "--json").stdout
    mean = next(row for row in json.loads(told) if row["benchmark"] == "mean")
    assert mean["questions"] == 500 and mean["low"] > 0, mean
    again = _labkit(tmp_path, *DEMO)  # a second call continues: nothing is left to do
    assert again.returncode == 0 and again.stdout == done.stdout
