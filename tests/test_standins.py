"""The paper's recipes from end to end on stand-ins: the same architectures, layouts and templates, but small."""

import json

import pytest
import torch
from transformers import AutoConfig

from labkit import cli, distill, methods, models, pocket, runs, standins
from labkit import config as configuring
from labkit.config import recipe
from labkit.generation import Request, Settings, TransformersGenerator, prompt_ids, render
from labkit.orpo import encode_response
from labkit.records import LabError, Score, Trace, Triplet

PAPER = {
    "k": 8,
    "temperature": 0.8,
    "rouge_threshold": 0.8,
    "phi": 0.5,
    "lam": 1.0,
    "epochs": 5,
    "nll_span": "response",
}
QUICK = {"problems": "1", "test_problems": "1", "evaluate_every": "2"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a model -> folder of its stand-in."""
    root = tmp_path_factory.mktemp("models")
    for i, name in enumerate(standins.SHAPES):
        standins.write_model(name, root / str(i), ["Think step by step. Answer: yes", "The user is an assistant."] * 5)
    return {name: root / str(i) for i, name in enumerate(standins.SHAPES)}


# --- the models ------------------------------------------------------------------------------------------------------


def test_the_stand_ins_have_the_papers_models_shapes_at_a_small_width(folders):
    model, words = models.load(str(folders[standins.TINYLLAMA]), device="cpu")
    own = model.config
    assert (own.num_hidden_layers, own.num_attention_heads, own.num_key_value_heads) == (22, 32, 4)
    assert (own.vocab_size, len(words), own.max_position_embeddings, own.hidden_size) == (32000, 32000, 2048, 64)
    assert own.rope_parameters == {"rope_theta": 10000.0, "rope_type": "default"} and own.rms_norm_eps == 1e-5
    assert own.hidden_size / own.intermediate_size == 2048 / 5632 and not own.tie_word_embeddings
    native = json.loads((folders[standins.INTERNLM] / "config.json").read_text())
    assert native["model_type"] == "internlm2" and "auto_map" in native
    model, words = models.load(str(folders[standins.INTERNLM]), device="cpu")
    own = model.config
    assert (own.num_hidden_layers, own.num_attention_heads, own.num_key_value_heads) == (24, 16, 8)
    assert own.rope_parameters == {"rope_theta": 1e6, "rope_type": "dynamic", "factor": 2.0}
    assert words.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"]) == [92542, 92543] and len(words) == 92544
    assert model.generation_config.eos_token_id == [2, 92542] and words.eos_token_id == 92542


def test_tinyllama_is_asked_in_zephyrs_template_with_one_beginning_of_text(folders):
    words = models.load_tokenizer(str(folders[standins.TINYLLAMA]))
    text = render(words, "Is it?", shots=[("So?", "Answer: yes")])
    assert text == "<|user|>\nSo?</s>\n<|assistant|>\nAnswer: yes</s>\n<|user|>\nIs it?</s>\n<|assistant|>\n"
    ids = prompt_ids(words, "Is it?")
    assert ids == words(render(words, "Is it?"))["input_ids"]  # as its model card tokenises the rendered text
    assert ids[0] == words.bos_token_id and ids.count(words.bos_token_id) == 1 and ids.count(words.eos_token_id) == 1
    assert "<|user|>" not in render(words, "x</s>\n<|user|>\ny").removeprefix("<|user|>")  # plain text, not a token


@pytest.mark.parametrize("name", standins.SHAPES)
def test_a_response_is_trained_on_the_tokens_that_it_has_after_its_prompt(folders, name):
    words = models.load_tokenizer(str(folders[name]))
    text = render(words, "Is it?")
    for said in ("The user.\nAnswer: yes", " leading", "\n\nnew lines", "漢字"):
        whole = words(text + said, add_special_tokens=False)["input_ids"]
        prompt = words(text, add_special_tokens=False)["input_ids"]
        assert encode_response(words, said, text) == (*whole[len(prompt) :], words.eos_token_id), said


def test_a_prompt_beyond_the_context_of_2048_is_refused_with_the_numbers_before_anything_is_sampled(folders, tmp_path):
    spec = str(folders[standins.TINYLLAMA])
    model, words = models.load(spec, device="cpu")
    said = []
    model.register_forward_pre_hook(lambda *_: said.append(1))
    long = Request("medqa/test/3", "step " * 380, ("0",))
    length = len(prompt_ids(words, long.question))
    assert length < 2048
    room = 2048 - length
    with pytest.raises(
        LabError, match=rf"medqa/test/3: .* {length} tokens .* {room + 1}, .* 2048 .* to {room} or less"
    ):
        TransformersGenerator(model, words, "m").generate([long], Settings(0.0, max_new_tokens=room + 1))
    assert not said
    base = recipe("pocket-quick", {"student": spec, "method": "zero-shot", "benchmarks": "pocket_arc"})
    asked = distill.questions(base)[:3]
    longest = max(len(prompt_ids(words, pocket.prompt(problem))) for problem in asked)
    distill.check(base.model_copy(update={"max_new_tokens": 2048 - longest}), asked)
    with pytest.raises(
        LabError, match=rf"of {longest} tokens .* = {2049 - longest} exceed the 2048 .* to {2048 - longest}"
    ):
        distill.check(base.model_copy(update={"max_new_tokens": 2049 - longest}), asked)


# --- the recipes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper-tinyllama", "paper-internlm", "paper-ablations"])
def test_the_recipes_have_the_papers_settings_and_models(name):
    config = recipe(name)
    assert {field: getattr(config, field) for field in PAPER} == PAPER
    assert config.teacher == "internlm/internlm2_5-7b-chat" and config.student in standins.SHAPES
    assert len(config.benchmarks) == (2 if name == "paper-ablations" else 5)
    assert set(config.benchmarks) <= set(standins.LOOK_ALIKES)


def _stand_in(folder, name, changes):
    return standins.prepare(folder.with_name(f"{folder.name}.stand-in"), standins.settings(name, changes))


@pytest.mark.parametrize("name", ["paper-tinyllama", "paper-internlm"])
def test_a_recipe_runs_through_every_stage_on_stand_ins(name, tmp_path):
    folder = tmp_path / "run"
    config = _stand_in(folder, name, QUICK)
    assert (config.phi, config.lam, config.temperature, config.rouge_threshold) == (0.5, 1.0, 0.8, 0.8)
    distill.prepare(folder, config)
    assert distill.run(folder) == "done"
    teacher = runs.records(folder, "traces/teacher.jsonl", Trace)
    assert {trace.outcome for trace in teacher} == {"correct", "wrong"}
    second = runs.records(folder, "triplets/epoch-2.jsonl", Triplet)
    assert len(second) == 10 and {pair.rejected_epoch for pair in second} == {0, 1}  # a mix, from both students
    scores = runs.records(folder, "scores.jsonl", Score)
    assert len(scores) == 10 and {score.benchmark for score in scores} == set(standins.LOOK_ALIKES.values())
    before, after = (torch.cat([p.detach().flatten() for p in models.load(str(where), device="cpu")[0].parameters()])
                     for where in (config.student, folder / "student"))  # fmt: skip
    assert before.shape == after.shape and not torch.equal(before, after)
    assert AutoConfig.from_pretrained(folder / "student").model_type == "llama"
    assert _stand_in(folder, name, QUICK) == config  # the same command continues with the same models


def test_the_ablations_run_on_stand_ins_and_share_what_does_not_differ(tmp_path):
    base = _stand_in(tmp_path / "a", "paper-ablations", {**QUICK, "benchmarks": "pocket_arc"})
    every = configuring.variants("paper-ablations")
    assert list(every) == ["phi-0.5", "k-4", "k-12", "phi-0", "phi-0-teacher", "phi-0.25", "phi-0.75", "phi-1"]
    variants = {name: every[name] for name in ("k-12", "phi-0", "phi-0-teacher", "phi-1")}  # the ends of each ablation
    cells = methods.group(tmp_path, "a", base, 1, variants)
    assert set(methods.run_group(cells).values()) == {"done"}
    folders = {name: folder for (name, _), (folder, _) in cells.items()}
    kept = {name: sum(t.use == "kept" for t in runs.records(folder, "traces/teacher.jsonl", Trace))
            for name, folder in folders.items()}  # fmt: skip
    assert kept.pop("k-12") > 8 and set(kept.values()) == {2}
    sides = {pair.rejected_side for pair in runs.records(folders["phi-0-teacher"], "triplets/epoch-2.jsonl", Triplet)}
    assert sides == {"teacher"}
    fresh = {name: [pair.rejected_epoch for pair in runs.records(folders[name], "triplets/epoch-2.jsonl", Triplet)]
             for name in ("phi-0", "phi-1")}  # fmt: skip
    assert fresh == {"phi-0": [0, 0], "phi-1": [1, 1]}
    initial = [folders[name] / "traces/student-0.jsonl" for name in ("phi-0", "phi-1")]
    assert len({path.read_bytes() for path in initial}) == 1
    assert len({(folder / "answers/epoch-0.jsonl").read_bytes() for folder in folders.values()}) == 1
    assert [row["method"] for row in methods.table(cells)] == list(variants)


def test_your_own_rows_can_stand_behind_a_recipe(tmp_path):
    own = tmp_path / "rows" / "arc_challenge"
    own.mkdir(parents=True)
    for split, n in (("train", 3), ("test", 2)):
        rows = [{"question": f"Which of the {split} things is number {i}?", "answerKey": "B",
                 "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}} for i in range(n)]  # fmt: skip
        (own / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data": str(tmp_path / "rows"), "benchmarks": "arc_challenge", "problems": "3"}
    config = _stand_in(tmp_path / "run", "paper-tinyllama", changes)
    lines = [json.loads(line) for line in (tmp_path / "run.stand-in" / "teacher.jsonl").read_text().splitlines()]
    assert {(line["benchmark"], line["row"]) for line in lines} == {("arc_challenge", i) for i in range(3)}
    assert {line["text"].splitlines()[-1] for line in lines} == {"Answer: A", "Answer: B", "Answer: C"}
    distill.prepare(tmp_path / "run", config)


def test_a_model_without_a_stand_in_is_refused(tmp_path):
    with pytest.raises(LabError, match="there is none for the student pocket:student-neox"):
        _stand_in(tmp_path / "x", "pocket-quick", {})
    assert not list(tmp_path.iterdir())


def test_the_command_makes_the_stand_ins_and_continues_with_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [f"--set={field}={value}" for field, value in {**QUICK, "method": "zero-shot"}.items()]
    command = ["labkit", "distill", "a", "--recipe", "paper-tinyllama", "--stand-in", "--benchmarks", "pocket_arc"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", [*command, *small])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    assert "pocket_arc" in capsys.readouterr().out
    config = runs.load_config(tmp_path / "runs" / "a")
    assert (config.recipe, config.student) == ("paper-tinyllama", "runs/a.stand-in/student")
    assert [row["name"] for row in runs.listing(tmp_path / "runs")] == ["a"]
