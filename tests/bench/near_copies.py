"""The near-copy filter against rouge-score, on the same traces, in turn.

    python -m tests.bench.near_copies [--words 30 120 240] [--traces FILE.jsonl] [--repeats 5]

Eight draws per question, each compared with those kept so far, as sampling does it. The texts are made-up ones of
three lengths, or recorded traces (lines with `text`; eight lines in a row make a group). rouge-score's `rougeL` runs on
a part of the questions, for it needs minutes; both times are per question. Progress goes to stderr; the last line of
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import statistics
import sys
import time
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from labkit.diversity import NearCopies

K = 8
THRESHOLD = 0.8001  # not 0.8: that is hit exactly, and then rounding decides
Verdicts = list[list[bool]]  # per question, per trace: kept?


def recorded(file: Path) -> list[list[str]]:
    """The file's texts in groups of K, in its order."""
    found = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    return [found[i : i + K] for i in range(0, len(found) - K + 1, K)]


def made(problems: int, length: int) -> list[list[str]]:
    return [_made(n, length) for n in range(problems)]


def _made(n: int, length: int) -> list[str]:
    """Ways to say one thing: a text of about `length` words, and others in which a part of its words is changed."""
    rng = random.Random(n)
    vocabulary = [f"word{i}" for i in range(400)]
    first = rng.choices(vocabulary, k=rng.randint(2 * length // 3, 4 * length // 3))
    shares = [rng.choice((0.05, 0.3, 0.6)) for _ in range(K)]
    return [" ".join(rng.choice(vocabulary) if rng.random() < share else word for word in first) for share in shares]


def by_labkit(groups: list[list[str]]) -> Verdicts:
    verdicts = []
    for texts in groups:
        copies = NearCopies(THRESHOLD)
        verdicts.append([copies.admit(text)[0] for text in texts])
    return verdicts


def by_rouge_score(groups: list[list[str]]) -> Verdicts:
    scorer = RougeScorer(["rougeL"])
    verdicts = []
    for texts in groups:
        kept: list[str] = []
        said = []
        for text in texts:
            near = max((scorer.score(other, text)["rougeL"].fmeasure for other in kept), default=0.0)
            said.append(near <= THRESHOLD)
            kept += [text] if said[-1] else []
        verdicts.append(said)
    return verdicts


def measure(groups: list[list[str]], peers: int, repeats: int) -> dict[str, float]:
    """Times per question of both sides, in turn, and the median of their ratios."""
    part = groups[:peers]
    assert by_labkit(part) == by_rouge_score(part), "the two filters disagree"
    ratios, ours, theirs = [], [], []
    for repeat in range(repeats):
        began = time.process_time()
        by_labkit(groups)
        middle = time.process_time()
        by_rouge_score(part)
        ended = time.process_time()
        ours.append((middle - began) / len(groups))
        theirs.append((ended - middle) / len(part))
        ratios.append(theirs[-1] / ours[-1])
        print(f"{repeat + 1}: {ours[-1] * 1e3:.3f} and {theirs[-1] * 1e3:.1f} ms a question", file=sys.stderr)
    return {
        "median_words": statistics.median(len(text.split()) for texts in groups for text in texts),
        "speedup": round(statistics.median(ratios)),
        "ms_per_question": round(1e3 * statistics.median(ours), 3),
        "ms_per_question_rouge_score": round(1e3 * statistics.median(theirs), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="recorded traces to use in place of made-up ones")
    parser.add_argument("--words", type=int, nargs="+", default=[30, 120, 240], help="lengths of made-up traces")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--peer-problems", type=int, default=10, help="questions given to rouge-score")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    corpora = [recorded(options.traces)] if options.traces else [made(options.problems, n) for n in options.words]
    found = [measure(groups, options.peer_problems, options.repeats) for groups in corpora]
    result = {
        "speedup": min(row["speedup"] for row in found),
        "by_length": found,
        "draws_per_question": K,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("rapidfuzz", "rouge-score")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
