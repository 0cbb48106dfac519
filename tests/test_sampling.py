"""Sampling keeps what the paper asks for and accounts for every draw; the generator here speaks from a script."""

from collections import Counter

from labkit.config import configure
from labkit.records import Completion, Problem
from labkit.sampling import Job, pools, sample, tally

PROBLEMS = [Problem(f"sums/train/{i}", "sums", "train", f"What is {i} + 1?", "number", str(i + 1)) for i in range(5)]
CORRECT = Job("teacher", "teacher", 0, "correct")
WRONG = Job("student-2", "student", 2, "wrong")
STYLES = [
    "We count on from {0}.",
    "Adding one to {0} gives the next number.",
    "Look at a ruler: after {0} comes it.",
    "By definition of successor this is plain for {0}.",
    "One more than {0}, so to speak, is wanted here.",
]


class Scripted:
    """Says `lines(problem number, draw)`; remembers what it was asked."""

    name = "scripted"

    def __init__(self, lines):
        self.lines, self.asked = lines, []

    def generate(self, requests, settings, progress=None):
        self.asked += [seed for request in requests for seed in request.seeds]
        return [[self._say(request.problem, seed) for seed in request.seeds] for request in requests]

    def _say(self, problem, seed):
        text = self.lines(int(problem.rsplit("/", 1)[1]), int(seed.rsplit("/", 1)[1]))
        finish = "length" if text.endswith("...") else "stop"
        return Completion(text, finish, len(text.split()), -0.25)


def _right(number, draw):
    return STYLES[draw % 5].format(number) + f"\nAnswer: {number + 1}"


def _config(**changes):
    return configure({"benchmarks": "sums", "k": 3, "max_draws": 12, "chunk": 2, **changes})


def _traces(lines, job=CORRECT, n=3, **changes):
    generator = Scripted(lines)
    chunks = list(sample(generator, PROBLEMS, [n] * 5, job, _config(**changes)))
    return generator, chunks, [trace for chunk in chunks for trace in chunk]


def test_k_diverse_correct_traces_are_kept_per_problem_and_no_more_are_drawn():
    generator, chunks, traces = _traces(_right)
    assert {problem: len(pool) for problem, pool in pools(traces).items()} == {p.id: 3 for p in PROBLEMS}
    assert len(generator.asked) == 15 and [len(chunk) for chunk in chunks] == [6, 6, 3]


def test_near_copies_wrong_loose_and_cut_traces_are_recorded_but_not_kept():
    script = [
        _right(0, 0),
        _right(0, 0),
        "It is 9.\nAnswer: 9",
        "So we get 1",
        "We go on and on...",
        "Well",
        _right(0, 1),
        _right(0, 2),
    ]
    _, _, traces = _traces(lambda number, draw: script[draw] if number == 0 and draw < 8 else _right(number, draw), n=3)
    uses = [(trace.use, trace.outcome) for trace in traces if trace.problem == "sums/train/0"]
    assert uses[:6] == [
        ("kept", "correct"), ("near-copy", "correct"), ("other", "wrong"), ("loose", "correct"),
        ("other", "truncated"), ("other", "unparsed"),
    ]  # fmt: skip
    assert [use for use, _ in uses].count("kept") == 3


def test_a_problem_stops_at_its_budget_and_is_counted_as_short():
    _, _, traces = _traces(lambda number, draw: _right(number, 0))
    assert set(Counter(trace.problem for trace in traces).values()) == {12}
    counts = tally(traces, {p.id: 3 for p in PROBLEMS})
    assert counts["nats_per_token"] == 0.25  # the script says -0.25 for every completion
    assert counts["kept"] == 5 and counts["short"] == 5 and counts["empty"] == 0
    assert counts["short_problems"] == [p.id for p in PROBLEMS]


def test_wrong_traces_of_the_student_are_parsed_and_different_from_gold():
    def lines(number, draw):
        return _right(number, draw) if draw % 2 else STYLES[draw % 5].format(number) + f"\nAnswer: {number + 2 + draw}"

    _, _, traces = _traces(lines, job=WRONG)
    kept = [trace for pool in pools(traces).values() for trace in pool]
    assert kept and all(trace.outcome == "wrong" and trace.epoch == 2 and trace.side == "student" for trace in kept)


def test_unparsed_negatives_come_in_only_when_asked_for():
    def lines(number, draw):
        return " ".join(f"mumble{draw}{i}" for i in range(9))

    assert pools(_traces(lines, job=WRONG)[2]) == {}
    assert len(pools(_traces(lines, job=WRONG, unparsed_negatives=True)[2])) == 5


def test_every_draw_has_its_own_address():
    generator, _, traces = _traces(_right, job=WRONG)
    assert len(set(generator.asked)) == len(generator.asked) == len(traces)
    assert generator.asked[0] == "0/student-2/sums/train/0/0"


def test_what_a_problem_gets_does_not_depend_on_the_chunks():
    assert _traces(_right, chunk=1)[2] == _traces(_right, chunk=5)[2]
