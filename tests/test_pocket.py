"""The generated benchmarks keep their promises, and the shipped pocket models are what their cards say."""

import random
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit import pocket, pocket_models
from labkit.answers import grade
from labkit.diversity import NearCopies
from labkit.records import Completion, LabError

FIFTY = [problem for benchmark in pocket.BENCHMARKS for problem in pocket.problems(benchmark, "train", 50)]
FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


@cache
def loaded(name):
    folder = pocket.path(name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def outcome(problem, text):
    return grade(Completion(text, "stop", 1), problem)


@pytest.mark.parametrize("benchmark", pocket.BENCHMARKS)
def test_a_benchmark_is_large_and_its_splits_share_no_core(benchmark):
    least = {"train": 2000, "validation": 500, "test": 1000}
    asked = {split: pocket.problems(benchmark, split) for split in least}
    for split, rows in asked.items():
        assert len({(row.question, row.choices) for row in rows}) == len(rows) >= least[split]
        assert [row.id for row in rows[:2]] == [f"{benchmark}/{split}/0", f"{benchmark}/{split}/1"]
    cores = {split: {case.core for case in pocket._cases(benchmark, split)} for split in least}
    text = pocket.cases(benchmark, "pretrain")
    cores["pretrain"] = {next(text).core for _ in range(3000)}
    assert sum(map(len, cores.values())) == len(set().union(*cores.values()))


def test_problems_can_be_taken_in_parts():
    whole = pocket.problems("pocket_arc", "test", 30)
    assert pocket.problems("pocket_arc", "test", 10, offset=20) == whole[20:]
    assert len(set(pocket.problems("pocket_arc", "test"))) == pocket.SIZES["test"]


def test_the_right_choice_is_among_the_options_at_any_place():
    for benchmark in ("pocket_arc", "pocket_openbookqa", "pocket_medqa"):
        rows = pocket.problems(benchmark, "test")
        places = [row.choices.index(row.answer) for row in rows]
        assert all(0.2 < places.count(i) / len(rows) < 0.3 for i in range(4))


def test_every_rationale_grades_as_correct_and_strict():
    for problem in FIFTY:
        for text in random.Random(problem.id).sample(pocket.rationales(problem), 12):
            graded, reading = outcome(problem, text)
            assert graded == "correct" and reading.strict, (problem, text)


def test_every_flawed_rationale_grades_as_wrong_and_the_mistakes_vary():
    for problem in FIFTY:
        texts = pocket.flawed(problem)
        assert len(set(texts)) >= 10
        assert {outcome(problem, text)[0] for text in texts} == {"wrong"}, problem


def test_arithmetic_in_correct_rationales_is_true():
    for problem in pocket.problems("pocket_gsm8k", "train", 200):
        for text in pocket.rationales(problem)[::36]:
            for left, right in (part.split(" = ") for part in text.split(". ") if part.count(" = ") == 1):
                sides = left.split()[-3:]
                assert eval(" ".join(sides)) == int(right.split()[0].strip(".,")), text


def test_eight_different_traces_are_in_reach_of_32_draws():
    reached = 0
    for problem in FIFTY:
        told, copies = random.Random(problem.id).choices(pocket.rationales(problem), k=32), NearCopies(0.8)
        reached += sum(copies.admit(text)[0] for text in told) >= 8
    assert reached > 0.9 * len(FIFTY)


@pytest.mark.parametrize("name", pocket.MODELS)
def test_a_shipped_model_is_an_ordinary_folder_that_reads_and_writes_its_own_texts(name):
    model, tokenizer = loaded(name)
    assert all((pocket.path(name) / file).is_file() for file in (*FILES, "README.md"))
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    for problem in FIFTY[::10]:
        for text in (*pocket.rationales(problem)[::50], *pocket.flawed(problem)[::5]):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("Straße, 5 µg of Xylitol?")["input_ids"]  # unknown words are no error


@pytest.mark.parametrize("name", pocket.MODELS)
def test_the_chat_template_is_what_the_model_was_trained_on(name):
    _, tokenizer = loaded(name)
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes.\nAnswer: yes"}]
    asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == asked + turns[1]["content"] + tokenizer.eos_token
    assert whole.startswith(tokenizer.bos_token)
    ids, start = pocket_models.encode(tokenizer, "Is it?", turns[1]["content"])
    assert ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert ids[:start] == tokenizer(asked, add_special_tokens=False)["input_ids"]


def test_all_weights_together_are_small():
    assert sum(file.stat().st_size for file in pocket.WEIGHTS.rglob("*") if file.is_file()) <= 6e6


def test_the_teacher_knows_and_the_students_have_much_to_learn():
    right = {name: pocket_models.accuracy(*loaded(name), "test", 20) for name in pocket.MODELS}
    assert right["teacher"]["mean"] >= 0.95
    for name in ("student-neox", "student-qwen"):
        assert 0.2 < right[name]["mean"] < 0.7
        assert right[name]["answer line"] >= 0.95


def test_sampled_teacher_traces_reach_eight_kept_ones():
    problems, full = FIFTY[::10], 0
    torch.manual_seed(1)
    sample = {"do_sample": True, "temperature": 0.8, "top_k": 0}
    said = pocket_models.answers(*loaded("teacher"), [pocket.prompt(p) for p in problems for _ in range(32)], sample)
    for i, problem in enumerate(problems):
        copies = NearCopies(0.8)
        right = [text for text in said[32 * i : 32 * i + 32] if outcome(problem, text)[0] == "correct"]
        full += sum(copies.admit(text)[0] for text in right) >= 8
    assert full >= 0.9 * len(problems)


def test_building_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        scores = pocket_models.build(tmp_path / folder, names=["student-qwen"], shrink=400, say=lambda line: None)
        assert set(scores["student-qwen"]) >= set(pocket.BENCHMARKS)
    for file in FILES:
        first, second = ((tmp_path / folder / "student-qwen" / file).read_bytes() for folder in ("a", "b"))
        assert first == second, file
    assert "bad habits on purpose" in (tmp_path / "a" / "student-qwen" / "README.md").read_text()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: pocket.path("professor"),
        lambda: pocket.problems("pocket_history", "test"),
        lambda: pocket.problems("pocket_arc", "dev"),
        lambda: pocket.problems("pocket_arc", "test", 10_000),
        lambda: pocket_models.build("nowhere", names=["professor"]),
    ],
)
def test_unknown_names_and_too_many_questions_are_said_in_one_line(ask):
    with pytest.raises(LabError) as error:
        ask()
    assert "\n" not in str(error.value)


def test_a_changed_problem_has_no_rationale():
    first, second = pocket.problems("pocket_arc", "train", 2)
    moved = type(first)(second.id, *[getattr(first, field) for field in list(first.__dataclass_fields__)[1:]])
    with pytest.raises(LabError, match="pocket_arc/train/1"):
        pocket.rationales(moved)
