"""Packed rows change what a step costs and nothing else: every claim against one sequence at a time."""

import warnings

import pytest
import torch
import transformers as hf
from one_at_a_time import GPT2, SHAPES, SIZES, WORDS, gradients, make_examples, make_model, plain_orpo

from labkit import orpo
from labkit.orpo import disable_dropout, token_logps, train_step
from labkit.packing import Example, pack, pad, split
from labkit.row_attention import _clusters


def same_gradients(model, expected):
    found = gradients(model)
    assert found.keys() == expected.keys()
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in found.items():
        allowed = 1e-4 * expected[name].norm() + 1e-6 * whole
        assert (gradient - expected[name]).norm() <= allowed, name


@pytest.mark.parametrize("nll_span", ["response", "prompt+response"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_gradients_and_token_log_probabilities_are_those_of_one_sequence_at_a_time(shape, nll_span):
    model, examples = make_model(shape), make_examples()
    disable_dropout(model)
    loss, logps = plain_orpo(model, examples, 0.7, nll_span)
    loss.backward()
    expected = gradients(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fall back to padded batches would be exact as well
        for max_tokens in (10_000, 60, 1):
            model.zero_grad()
            metrics = train_step(model, examples, lam=0.7, nll_span=nll_span, max_tokens=max_tokens)
            assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
            same_gradients(model, expected)
        found = [t for e in token_logps(model, examples, max_tokens=60) for pair in e for t in pair if t is not None]
    for ours, theirs in zip(found, logps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient():
    for shape in ("llama, tied", "gemma3, sliding", "gpt2"):
        model, examples = make_model(shape), make_examples()
        train_step(model, examples, lam=1.0)
        expected = gradients(model)
        model.zero_grad()
        model.gradient_checkpointing_enable()
        model.eval()  # as loaded: checkpointing must work all the same
        train_step(model, examples, lam=1.0)
        same_gradients(model, expected)
        assert not model.training


@pytest.mark.parametrize(
    "config",
    [
        hf.BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=4),  # positions come from the mask
        hf.MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2),  # no attention at all
        hf.CohereConfig(**SIZES),  # scales its logits after the output layer
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_cannot_be_packed_is_trained_on_padded_batches_with_one_notice(config):
    model, examples = make_model(config), make_examples()
    loss, _ = plain_orpo(model, examples, 0.7, "response")
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    with pytest.warns(UserWarning, match="cannot train on packed rows .* padded batches"):
        metrics = train_step(model, examples, lam=0.7, max_tokens=60)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    same_gradients(model, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_step(model, examples, lam=0.7)


def test_sequences_longer_than_an_attention_chunk_are_not_packed():
    model, examples = make_model("llama, tied"), make_examples()
    model.config.attention_chunk_size = 8  # as Llama 4 has it
    with pytest.warns(UserWarning, match="attention in chunks"):
        train_step(model, examples, lam=1.0)


def test_after_a_step_the_model_is_as_it_was():
    model, examples = make_model("gemma2, soft caps"), make_examples()
    train_step(model, examples, lam=1.0)
    assert model.config._attn_implementation == "eager"
    assert model.config.final_logit_softcapping == 2.0
    assert not [m for m in model.modules() if "forward" in vars(m)]


def test_the_prompt_of_k_pairs_is_in_the_row_once_and_branches_continue_its_positions():
    row = pack([Example((5, 6, 7), ((8, 9), (10,)), ((11,), None))])
    assert row.ids.tolist() == [[5, 6, 7, 8, 9, 11, 10]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 4, 3, 3]]
    first, second = row.pairs[0]
    assert first[0].rows == [2, 3]  # the first token is predicted by the prompt's last, the second by the first
    assert (first[1].rows, second[0].rows, second[1]) == ([2], [2], None)


def test_the_padded_batch_holds_every_branch_behind_its_prompt():
    row = pad([Example((5, 6, 7), ((8, 9),), ((11,),))])
    assert row.ids.tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 11, 0]]
    assert row.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert (row.pairs[0][0][1].rows, row.prompts[0].rows) == ([7], [0, 1])


@pytest.mark.parametrize("packed", [True, False])
def test_micro_batches_hold_every_pair_once_and_keep_to_the_budget(packed):
    examples = make_examples()
    pairs = [(e.prompt, *pair) for e in examples for pair in zip(e.chosen, e.rejected, strict=True)]
    for budget in (1, 30, 50, 70, 1000):
        batches = split(examples, budget, packed)
        assert [(e.prompt, *p) for b in batches for e in b for p in zip(e.chosen, e.rejected, strict=True)] == pairs
        for batch in batches:
            tokens = (pack if packed else pad)(batch).ids.numel()
            assert tokens <= budget or sum(len(e.chosen) for e in batch) == 1
    assert len(split(examples, 1000, packed)) == 1


def test_micro_batches_are_about_equally_full():
    batch = [Example((5,) * 30, ((7,) * 20,) * 8, ((8,) * 20,) * 8)]
    sizes = [pack(part).ids.numel() for part in split(batch, 300)]
    assert sizes == [190, 190]


def test_attention_is_not_wasted_between_branches():
    row = pack([Example(tuple(range(3, 43)), tuple((7,) * n for n in (30, 31, 90, 33)), ((9,) * 29,) * 4)])
    clusters = _clusters(row.segments, width=64)
    assert sorted(s.start for c in clusters for s in c) == [s.start for s in row.segments]
    scores = sum(len(c) * c[0].length * (max(s.prefix_length for s in c) + c[0].length) for c in clusters)
    needed = sum(s.length * (s.prefix_length + s.length) for s in row.segments)
    assert needed <= scores < 1.5 * needed < 0.5 * row.ids.numel() ** 2
    assert len(clusters) < len(row.segments)


def test_the_same_step_gives_the_same_bytes():
    model, examples = make_model("llama, tied"), make_examples()
    runs = []
    for _ in range(2):
        model.zero_grad()
        runs.append((train_step(model, examples, lam=1.0), gradients(model)))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(gradient, runs[1][1][name]) for name, gradient in runs[0][1].items())


def test_logits_exist_for_one_chunk_of_pairs_at_a_time_and_are_made_once(monkeypatch):
    model, examples = make_model(hf.GPT2Config(**GPT2)), make_examples()
    assert orpo.packs_exactly(model, examples)
    made = []
    head = model.lm_head.forward
    model.lm_head.forward = lambda rows: made.append(len(rows)) or head(rows)
    monkeypatch.setattr("labkit.projection.LOGITS_AT_ONCE", 25 * WORDS)
    train_step(model, examples, lam=1.0)
    responses = [b for e in examples for b in (*e.chosen, *e.rejected) if b is not None]
    assert sum(made) == sum(map(len, responses))  # the prompts' logits are not needed, and none is made twice
    assert max(made) <= 26 and len(made) > 2
