"""What a run will take, before it starts: scaled from the newest finished run of the same models on this machine."""

from __future__ import annotations

from pathlib import Path

from app import pieces, progress, store
from labkit import pocket, runs
from labkit.config import RunConfig
from labkit.records import LabError

BASE = 0.55e9  # bytes of a process that has loaded torch and transformers and nothing else


def estimate(runs_dir: Path, config: RunConfig) -> str:
    """Time and memory in a sentence of HTML, and where the numbers come from."""
    return f"<p><b>Estimate.</b> {_time(runs_dir, config)} {_memory(config)}</p>"


def _time(runs_dir: Path, config: RunConfig) -> str:
    for name, where in store.folders(runs_dir).items():
        try:
            other, state = store.config(where), runs.status(where)["state"]
            if (other.teacher, other.student, state) != (
                config.teacher,
                config.student,
                "done",
            ) or other.method != "orpo":
                continue
            seconds = _scaled(where, other, config)
        except LabError:
            continue
        if seconds:
            return f"About <b>{pieces.minutes(seconds)}</b>, scaled from run {pieces.text(name)}."
    return "No finished run of these two models is here to time it by; a first run with few problems will tell."


def _scaled(where: Path, other: RunConfig, config: RunConfig) -> float | None:
    """Seconds: each kind of stage grows with its questions, draws and tokens."""
    known = progress.timed(where)
    if not {"evaluate", "teacher", "student", "train"} <= set(known):
        return None
    train, test = _questions(where, config)
    had_train, had_test = _questions(where, other)
    length = config.max_new_tokens / other.max_new_tokens if config.max_new_tokens < other.max_new_tokens else 1.0
    draws = train / max(had_train, 1) * config.k / other.k * length
    evaluations = 1 + (0 if config.method == "zero-shot" else -(-config.epochs // config.evaluate_every))
    seconds = evaluations * known["evaluate"] * test / max(had_test, 1) * length
    if config.method != "zero-shot":
        pool = 1 / config.k if config.method == "single-cot" else 1.0
        seconds += known["teacher"] * draws + config.epochs * known["train"] * draws * pool
    if config.method == "orpo":
        fresh = config.phi * (config.epochs - 1) if config.negatives != "teacher" else 0
        seconds += known["student"] * draws * (1 + fresh)
    return seconds + 15  # loading


def _questions(where: Path, config: RunConfig) -> tuple[float, float]:
    """Training and test questions that settings ask for; `all` is taken from the pocket sizes, or the recorded run."""
    several = len(config.benchmarks)
    sizes = (
        pocket.SIZES if all(name in pocket.BENCHMARKS for name in config.benchmarks) else {"train": 2000, "test": 1000}
    )
    return several * (config.problems or sizes["train"]), several * (config.test_problems or sizes["test"])


def _memory(config: RunConfig) -> str:
    weights = {spec: _bytes(spec) for spec in (config.student, config.teacher)}
    if weights[config.student] is None:
        return "Memory: the student's size is not known before it is loaded."
    student, teacher = weights[config.student] or 0, weights[config.teacher] or 0
    training = 0 if config.method == "zero-shot" else 3 * student  # gradients and AdamW's two moments
    need = BASE + student + max(training, teacher)
    return (
        f"Memory: about <b>{need / 1e9:.1f} GB</b> for weights, gradients and optimiser, and more with long sequences."
    )


def _bytes(spec: str) -> int | None:
    """Bytes of a local model's weights in fp32 terms, from its files; None if they are not here."""
    kind, _, rest = spec.partition(":")
    try:
        if kind == "pocket":
            where = pocket.path(rest)
        elif kind == "gguf":
            return 6 * Path(rest).stat().st_size  # four to five bits become thirty-two
        else:
            where = Path(spec).expanduser()
        return sum(path.stat().st_size for path in where.glob("*.safetensors")) or None
    except (LabError, OSError):
        return None
