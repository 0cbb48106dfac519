"""The batching engine says what the model's own code says, one prompt at a time."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from labkit.choosing import Job, Settings, choose, uniforms
from labkit.decoding import batches_exactly, decode
from labkit.linear import linear, onednn_linears

VOCABULARY = 300
ENDS = list(range(12))
_SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_LLAMA = {**_SHAPE, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256}
_GEMMA = {**_LLAMA, "head_dim": 8, "sliding_window": 8, "tie_word_embeddings": False}
_NO_IDS = {"bos_token_id": None, "eos_token_id": None}

MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_LLAMA)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_SHAPE, intermediate_size=64)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, **_NO_IDS)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_LLAMA, head_dim=8)),
    "gemma3, sliding window": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**_GEMMA, layer_types=["sliding_attention", "full_attention"])
    ),
    "gemma2, capped scores": lambda: Gemma2ForCausalLM(Gemma2Config(**_GEMMA)),
}


def random_model(make):
    """A model whose answers differ: the usual small random weights say one token for ever."""
    torch.manual_seed(1)
    model = make()
    for weights in model.parameters():
        if weights.ndim > 1:
            nn.init.normal_(weights, std=0.25)
    return model.eval()


@pytest.fixture(scope="module")
def llama():
    return random_model(MODELS["llama"])


def prompts(n=10):
    """Lengths around the engine's block of 32 tokens, and short ones."""
    rng = np.random.default_rng(0)
    return [rng.integers(12, VOCABULARY, size=rng.choice([1, 5, 31, 32, 33, 64, 70])).tolist() for _ in range(n)]


def alone(model, prompt, new, ends=ENDS):
    ids = torch.tensor([prompt])
    told = {"do_sample": False, "max_new_tokens": new, "eos_token_id": ends, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **told)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", MODELS)
def test_batched_greedy_answers_equal_those_of_generate_one_at_a_time(kind):
    model = random_model(MODELS[kind])
    jobs = [Job(prompt, ("a", "b")) for prompt in prompts()]
    # end tokens are taken from what it would say, so that answers end early and at different lengths
    endless = [alone(model, job.ids, 40, ends=None) for job in jobs]
    ends = sorted({tokens[5 * i % 37] for i, tokens in enumerate(endless[1:6])})
    expected = [alone(model, job.ids, 40, ends) for job in jobs]
    assert len({len(tokens) for tokens in expected}) > 3
    # places for 7 draws and 12 blocks: draws wait, leave, move, and are sent back for want of memory
    said = decode(model, jobs, Settings(0, max_new_tokens=40), ends, batch=7, kv_tokens=12 * 32)
    assert [[draw.tokens for draw in draws] for draws in said] == [[tokens, tokens] for tokens in expected]
    assert [draws[0].stopped for draws in said] == [tokens[-1] in ends for tokens in expected]


def test_a_model_without_the_attention_interface_is_sampled_one_by_one_with_a_notice():
    model = random_model(
        lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))
    )
    assert not batches_exactly(model)
    jobs, told = [Job(prompt, ("x/0", "x/1")) for prompt in prompts(3)], []
    with pytest.warns(UserWarning, match="BloomForCausalLM cannot be batched here"):
        said = decode(model, jobs, Settings(0, max_new_tokens=8), ENDS, progress=told.append)
    assert [draws[1].tokens for draws in said] == [alone(model, job.ids, 8) for job in jobs]
    assert told == [2, 2, 2]
    drawn = decode(model, jobs, Settings(1.0, max_new_tokens=8), ENDS)
    assert drawn == decode(model, jobs, Settings(1.0, max_new_tokens=8), ENDS) and drawn[0][0] != drawn[0][1]


def test_a_draw_does_not_depend_on_what_else_is_in_the_batch(llama):
    jobs = [Job(prompt, tuple(f"{i}/{k}" for k in range(4))) for i, prompt in enumerate(prompts())]
    settings = Settings(0.8, max_new_tokens=30)
    together = decode(llama, jobs, settings, ENDS, batch=16)
    single = decode(llama, [Job(jobs[6].ids, ("6/2",))], settings, ENDS)
    assert single[0][0].tokens == together[6][2].tokens
    assert len({tuple(draw.tokens) for draw in together[6]}) == 4
    assert decode(llama, jobs, settings, ENDS, batch=16) == together, "equal calls, equal results"


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_first_tokens_follow_the_model_at_the_temperature(llama, temperature):
    prompt = prompts()[1]
    with torch.no_grad():
        logits = llama(torch.tensor([prompt])).logits[0, -1]
    job = Job(prompt, tuple(str(i) for i in range(6000)))
    said = decode(llama, [job], Settings(temperature, max_new_tokens=1), ENDS)[0]
    counts = np.bincount([draw.tokens[0] for draw in said], minlength=VOCABULARY)
    expected = (logits.double() / temperature).softmax(-1).numpy() * len(said)
    often = expected > 5
    seen = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    assert often.sum() > 5
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-3
    logprobs = logits.log_softmax(-1)
    assert all(abs(draw.logprob - logprobs[draw.tokens[0]].item()) < 1e-4 for draw in said[:50])


def test_logprob_is_the_mean_over_all_tokens_at_temperature_1(llama):
    [[said]] = decode(llama, [Job(prompts()[3], ("s",))], Settings(0.5, max_new_tokens=25), ENDS)
    ids = torch.tensor([[*prompts()[3], *said.tokens]])
    with torch.no_grad():
        logprobs = llama(ids).logits[0, :-1].log_softmax(-1)
    per_token = logprobs.gather(1, ids[0, 1:, None])[-len(said.tokens) :]
    assert said.logprob == pytest.approx(per_token.mean().item(), abs=1e-4)


def test_the_model_comes_back_as_it_was(llama):
    llama.train()
    before = llama.config._attn_implementation, torch.get_num_threads()
    decode(llama, [Job([20, 21], ("s",))], Settings(0.5, max_new_tokens=2), ENDS)
    assert llama.training and (llama.config._attn_implementation, torch.get_num_threads()) == before
    assert llama(torch.tensor([[20, 21]])).logits.requires_grad
    llama.eval()


def test_suppressed_tokens_are_never_said_and_progress_counts_every_draw(llama):
    jobs, told = [Job(prompt, ("a", "b", "c")) for prompt in prompts(5)], []
    said = decode(llama, jobs, Settings(1.5, max_new_tokens=20), ENDS, suppressed=range(200), progress=told.append)
    assert min(token for draws in said for draw in draws for token in draw.tokens) >= 200
    assert sum(told) == 15


@pytest.mark.parametrize("size", [3, 256, 5000])
def test_choose_takes_the_token_whose_share_of_the_sum_the_number_falls_in(size):
    torch.manual_seed(0)
    logits = torch.randn(64, size) * 3
    chances = np.linspace(0, np.nextafter(1, 0), 64)
    tokens, _ = choose(logits, chances, Settings(1.3))
    sums = (logits.double() / 1.3).softmax(-1).cumsum(-1).numpy()
    upper = sums[np.arange(64), tokens]
    lower = np.where(tokens > 0, sums[np.arange(64), tokens - 1], 0)
    assert (chances <= upper + 1e-5).all() and (chances >= lower - 1e-5).all()


def test_a_token_without_probability_is_never_chosen():
    logits = torch.full((3, 1000), -torch.inf)
    logits[:, [7, 600]] = 0.0
    tokens, logprobs = choose(logits, np.array([0.0, 0.51, np.nextafter(1, 0)]), Settings(1.0))
    assert tokens.tolist() == [7, 600, 600]
    assert logprobs == pytest.approx(np.log(0.5))


def test_top_p_keeps_the_likeliest_tokens_that_reach_it():
    probabilities = torch.tensor([0.05, 0.4, 0.3, 0.15, 0.1]).repeat(1, 100) / 100  # 500 tokens: beyond a first search
    chances = uniforms("top-p", 2000)
    tokens, _ = choose(probabilities.log().expand(2000, -1), chances, Settings(1.0, top_p=0.69))
    assert set((tokens % 5).tolist()) == {1, 2}
    tokens, _ = choose(torch.tensor([[0.05, 0.4, 0.3, 0.15, 0.1]]).log().expand(2000, -1), chances, Settings(1.0, 0.75))
    assert set(tokens.tolist()) == {1, 2, 3}


def test_random_numbers_have_an_address():
    assert (uniforms("0/student/1", 5) == uniforms("0/student/1", 9)[:5]).all()
    assert not np.intersect1d(uniforms("0/student/1", 50), uniforms("0/student/2", 50)).size
    assert stats.kstest(uniforms("any", 5000), "uniform").pvalue > 1e-3


def test_onednn_products_and_gradients_equal_those_of_torch():
    torch.manual_seed(0)
    rows = torch.randn(2, 9, 300, dtype=torch.float64)
    layer = nn.Linear(300, 260, dtype=torch.float64)
    layer(rows.requires_grad_()).square().sum().backward()
    mine = [t.detach().float().requires_grad_() for t in (rows, layer.weight, layer.bias)]
    linear(*mine).square().sum().backward()
    for got, wanted in zip(mine, (rows, layer.weight, layer.bias), strict=True):
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-4, atol=1e-2)


def test_swapped_layers_are_the_originals_again_afterwards(monkeypatch):
    monkeypatch.setattr("labkit.linear._MKL", False)
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))
    rows = torch.randn(5, 300)
    plain = model(rows)
    with onednn_linears(model):
        assert "forward" in vars(model[0]) and "forward" not in vars(model[2]), "a small one is left alone"
        torch.testing.assert_close(model(rows), plain, rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(model[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model(rows), plain)


def test_on_intel_s_processors_only_generation_is_swapped(monkeypatch):
    monkeypatch.setattr("labkit.linear._MKL", True)
    model = nn.Sequential(nn.Linear(300, 300))
    with onednn_linears(model):
        assert "forward" not in vars(model[0])
    with torch.no_grad(), onednn_linears(model, rows=8):
        assert "forward" in vars(model[0])
