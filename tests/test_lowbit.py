"""8-bit AdamW: it moves as AdamW does, holds a quarter of the moments, and resumes to the same weights."""

import sys

import pytest
import torch
from one_at_a_time import make_examples

from labkit import training
from labkit.config import configure
from labkit.models import load
from labkit.records import LabError

pytest.importorskip("torchao.optim", reason="torchao is not installed (extra `lowbit`)")
SPEED = 1e-3


@pytest.fixture(autouse=True)
def uncompiled():
    """The step as plain Python: compiling it takes half a minute and changes nothing of what it computes."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def begun(optimizer):
    config = configure({"benchmarks": "pocket_arc", "optimizer": optimizer, "learning_rate": SPEED})
    return training.prepare(*load("pocket:student-neox"), config), config


def steps(state, config, speeds):
    return [training.take_step(state, make_examples(), speed, config.lam, config)["loss"] for speed in speeds]


def weights(state):
    return torch.cat([p.detach().flatten() for p in training.plain(state).parameters()])


def test_it_goes_where_adamw_goes_and_obeys_the_schedule():
    (full, config), (low, low_config) = begun("adamw"), begun("adamw8bit")
    start = weights(full)
    speeds = [SPEED, SPEED, SPEED / 2, SPEED / 4]
    assert steps(low, low_config, speeds) == pytest.approx(steps(full, config, speeds), rel=0.02)
    moved, same = weights(low) - start, weights(full) - start
    assert torch.nn.functional.cosine_similarity(moved, same, dim=0) > 0.98
    still = weights(low)
    steps(low, low_config, [0.0])
    assert torch.equal(weights(low), still)


def test_its_moments_take_a_quarter_of_the_memory():
    state, config = begun("adamw8bit")
    steps(state, config, [SPEED])
    big = [(p, own) for p, own in state.optimizer.state.items() if p.numel() >= 4096 and p.numel() % 256 == 0]
    kept = sum(own[name].codes.nbytes + own[name].scale.nbytes for _, own in big for name in ("exp_avg", "exp_avg_sq"))
    assert kept < 2.1 * sum(p.numel() for p, _ in big)


def test_a_checkpoint_holds_it_and_goes_on_to_the_same_bytes(tmp_path):
    state, config = begun("adamw8bit")
    steps(state, config, [SPEED])
    state.step = 1
    training.save_checkpoint(state, tmp_path)
    steps(state, config, [SPEED, SPEED])
    checkpoint = training.newest_checkpoint(tmp_path)
    resumed = training.prepare(*load(str(checkpoint)), config)
    training.restore(resumed, checkpoint)
    assert resumed.step == 1
    steps(resumed, config, [SPEED, SPEED])
    assert torch.equal(weights(resumed), weights(state))


def test_without_its_package_it_is_refused_in_a_line_and_with_fsdp_at_once(monkeypatch):
    with pytest.raises(LabError, match="fsdp splits"):
        configure({"benchmarks": "pocket_arc", "optimizer": "adamw8bit", "fsdp": True})
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(LabError, match="pip install torchao"):
        begun("adamw8bit")
