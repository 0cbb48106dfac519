"""The worlds know which step is wrong, in both wordings; the oracle's contrast is of that step alone."""

import pickle
import random

import pytest
import torch.nn.functional as F
from one_at_a_time import alone, make_model

from labkit import distill, method_rows, methods, models, oracle, pocket
from labkit.config import recipe
from labkit.odds import log_odds_ratio
from labkit.orpo import Example, encode_response, train_step
from labkit.packing import Marked
from labkit.pocket_steps import counterpart, steps, wrong_step
from labkit.pocket_words import ADVERBS, CONNECTIVES, SYNONYMS, plain, vary
from labkit.records import LabError, Triplet

SOME = [problem for benchmark in pocket.BENCHMARKS for problem in pocket.problems(benchmark, "train", 20)]


def _told(problem):
    return pocket.rationales(problem)[::17] + pocket.flawed(problem)


def test_many_words_say_the_same_and_leave_the_answer_alone():
    for problem in SOME:
        for text in _told(problem):
            varied = vary(text, random.Random(text))
            assert plain(varied) == text == plain(text)
            assert varied.endswith(text[text.index("\nAnswer: ") :])
    assert vary(text, random.Random(0)) == vary(text, random.Random(0)) != vary(text, random.Random(1))


def test_the_new_words_are_new():
    old = {word for problem in SOME for text in _told(problem) for word in text.lower().replace(".", " ").split()}
    new = [*CONNECTIVES, *ADVERBS, *(word for others in SYNONYMS.values() for word in others)]
    assert len(set(new)) == len(new) and not old & {word.lower() for word in new}


def test_no_right_rationale_has_a_wrong_step_and_every_flawed_one_has():
    for problem in SOME:
        for text in pocket.rationales(problem)[::17]:
            assert wrong_step(problem, text) is None and wrong_step(problem, vary(text, random.Random(1))) is None, text
        for text in pocket.flawed(problem):
            varied = vary(text, random.Random(text))
            places = [steps(told).index(wrong_step(problem, told)) for told in (text, varied)]
            assert places[0] == places[1] > 0, "an opener is never wrong"


@pytest.mark.parametrize(
    ("benchmark", "wrong", "right"),
    [
        ("pocket_arc", "The {x} is made of nothing, so it must be the {x}.", "so it must be the {gold}."),
        ("pocket_gsm8k", "Answer: 999", "Answer: {gold}"),
    ],
)
def test_the_wrong_step_and_its_counterpart_by_hand(benchmark, wrong, right):
    problem = pocket.problems(benchmark, "train", 1)[0]
    good = pocket.rationales(problem)[0]
    step = wrong.format(x=next((c for c in problem.choices if c != problem.answer), ""))
    first, second, *_ = (good[slice(*span)] for span in steps(good))
    text = f"{first} {second} {step}" if "Answer" not in step else good.replace(f"Answer: {problem.answer}", step)
    assert text[slice(*wrong_step(problem, text))] == step
    assert good[slice(*counterpart(good, step))].endswith(right.format(gold=problem.answer))


def test_true_facts_are_no_wrong_step():
    problem = pocket.problems("pocket_medqa", "train", 1)[0]
    assert wrong_step(problem, "Migraine does not bring cough.") is None
    assert wrong_step(problem, "Migraine does not bring nausea.") == (0, 31)


def test_the_oracle_marks_the_tokens_of_the_step_and_no_other():
    problem = pocket.problems("pocket_openbookqa", "train", 1)[0]
    good, bad = pocket.rationales(problem)[0], pocket.flawed(problem)[0]
    triplet = Triplet(problem.id, 1, 0, good, bad, 0, 0, "student", 0)
    for name in ("student-neox", "student-qwen", "teacher"):
        tokenizer = models.load_tokenizer(f"pocket:{name}")
        ids = [encode_response(tokenizer, text) for text in (good, bad)]
        sides = oracle.marked(problem, triplet, *ids, tokenizer)
        assert tuple(map(tuple, sides)) == tuple(ids)
        span = wrong_step(problem, bad)
        kept = [token for token, mark in zip(sides[1], sides[1].kept, strict=True) if mark]
        assert tokenizer.decode(kept).strip() == bad[slice(*span)]
        assert pickle.loads(pickle.dumps(sides[1])).kept == sides[1].kept


@pytest.mark.parametrize("packed", [True, False])
def test_contrast_of_marked_tokens_is_the_loss_written_out(packed):
    model, prompt = make_model("llama, tied"), (5, 6, 7)
    chosen, rejected = Marked((8, 9, 10, 2), [0.0, 1.0, 1.0, 0.0]), Marked((8, 20, 2), [0.0, 1.0, 0.0])
    examples = [Example(prompt, (chosen, (11, 2)), (rejected, None))]
    good, bad = (alone(model, prompt, tuple(side))[2:] for side in (chosen, rejected))
    odds = F.logsigmoid(log_odds_ratio(good[1:3].mean(), bad[1]))
    nll = -(good.sum() + alone(model, prompt, (11, 2))[2:].sum()) / 6
    metrics = train_step(model, examples, lam=0.5, contrast="wrong-step", packed=packed)
    assert metrics["loss"] == pytest.approx((nll - 0.5 * odds).item(), rel=1e-5)
    assert metrics["loss"] != pytest.approx(train_step(model, examples, lam=0.5, packed=packed)["loss"], rel=1e-4)


def test_the_oracle_and_the_other_losses_run_end_to_end_in_the_table(tmp_path):
    base = recipe("pocket-quick", {"benchmarks": "pocket_arc", "problems": 2, "test_problems": 4, "epochs": 2, "k": 2})
    cells = methods.group(tmp_path, "m", base, 1, method_rows.chosen(base, ["orpo-oracle", *method_rows.OTHER_LOSSES]))
    assert set(methods.run_group(cells).values()) == {"done"}
    weights = {file.read_bytes() for file in tmp_path.glob("*/student/model.safetensors")}
    assert len(weights) == 4, "four losses make four students"


def test_nobody_knows_the_wrong_steps_of_other_benchmarks(tmp_path):
    questions = tmp_path / "mine.jsonl"
    questions.write_text("".join(f'{{"question": "What is {i} + 1?", "answer": {i + 1}}}\n' for i in range(40)))
    config = recipe("pocket-quick", {"benchmarks": f"pocket_arc,{questions}", "contrast": "wrong-step"})
    with pytest.raises(LabError, match="nobody knows the wrong steps of"):
        distill.prepare(tmp_path / "run", config)
