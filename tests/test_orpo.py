"""The ORPO loss and its step: equal to the formula by hand, to one sequence at a time, and to TRL's trainer."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen3Config

from labkit import models
from labkit.orpo import encode, orpo_loss, token_logps, train_step
from labkit.packing import Example, split

SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
SHAPES = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma3": Gemma3TextConfig(**GROUPED, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4),
}
BATCH = [
    Example(tuple(range(3, 15)), ((20, 21, 22, 1), (30, 1)), ((40, 41, 1), None)),
    Example((5, 6, 7), ((50, 51, 52, 53, 54, 1), (1,), (60, 1)), ((61, 1), (62, 63, 1), (64, 65, 66, 67, 1))),
]


def _model(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(SHAPES[name], dtype=torch.float32)


def _plain_logps(model, prompt, response):
    """Log-probabilities of a response's tokens, one sequence at a time."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def _plain_loss(model, lam):
    """The paper's loss, written out: mean NLL of chosen tokens - lam * mean log sigmoid(log odds ratio)."""
    nll, ratios = [], []
    for example in BATCH:
        for chosen, rejected in zip(example.chosen, example.rejected, strict=True):
            right = _plain_logps(model, example.prompt, chosen)
            nll.append(-right)
            if rejected is not None:
                wrong = _plain_logps(model, example.prompt, rejected)
                odds = [p / (1 - p) for p in (right.mean().exp(), wrong.mean().exp())]
                ratios.append(torch.sigmoid((odds[0] / odds[1]).log()).log())
    return torch.cat(nll).mean() - lam * torch.stack(ratios).mean()


def _gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("max_tokens", [4096, 20])
@pytest.mark.parametrize("name", SHAPES)
def test_the_packed_step_equals_the_formula_one_sequence_at_a_time(name, max_tokens):
    model = _model(name).eval()
    expected = _plain_loss(model, 1.0)
    expected.backward()
    gradient = _gradient(model)
    model.zero_grad()
    metrics = train_step(model, BATCH, lam=1.0, max_tokens=max_tokens)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert (_gradient(model) - gradient).norm() / gradient.norm() < 1e-4


@pytest.mark.parametrize("name", SHAPES)
def test_packed_token_log_probabilities_equal_the_plain_ones(name):
    model = _model(name).eval()
    for example, pairs in zip(BATCH, token_logps(model, BATCH), strict=True):
        for i, (chosen, rejected) in enumerate(pairs):
            for said, logps in ((example.chosen[i], chosen), (example.rejected[i], rejected)):
                if said is not None:
                    assert torch.allclose(logps, _plain_logps(model, example.prompt, said), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_padded_batches_give_the_same_gradient_as_packed_rows(lam):
    gradients = []
    for packed in (True, False):
        model = _model("llama")
        train_step(model, BATCH, lam=lam, packed=packed)
        gradients.append(_gradient(model))
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-4


def test_each_term_of_the_loss_moves_the_weights():
    chosen, rejected = torch.tensor([-0.3], requires_grad=True), torch.tensor([-0.4], requires_grad=True)
    loss, _ = orpo_loss(chosen, rejected, torch.tensor(0.0), 1.0)
    loss.backward()
    assert chosen.grad.item() < -0.1 and rejected.grad.item() > 0.1
    only_nll, both = _model("llama"), _model("llama")
    train_step(only_nll, BATCH, lam=0.0)
    train_step(both, BATCH, lam=1.0)
    assert _gradient(only_nll).norm() > 0.1 and (_gradient(both) - _gradient(only_nll)).norm() > 0.1


@pytest.mark.parametrize("logp", [0.0, -1e-8, -1e-6, -1e-3, -50.0])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_certain_and_hopeless_sequences_have_a_finite_loss_and_gradient(logp, side):
    values = {"chosen": torch.tensor([-0.5]), "rejected": torch.tensor([-0.5]), side: torch.tensor([logp])}
    chosen, rejected = (values[key].requires_grad_() for key in ("chosen", "rejected"))
    loss, metrics = orpo_loss(chosen, rejected, torch.tensor(0.1), 1.0)
    loss.backward()
    assert loss.isfinite() and chosen.grad.isfinite().all() and rejected.grad.isfinite().all()
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_metrics_have_trls_names_and_the_loss_is_their_sum():
    metrics = train_step(_model("llama"), BATCH, lam=0.5)
    assert metrics["loss"] == pytest.approx(metrics["nll_loss"] - 0.5 * metrics["log_odds_ratio"], rel=1e-5)
    assert metrics["rewards/margins"] == pytest.approx(
        0.5 * (metrics["logps/chosen"] - metrics["logps/rejected"]), rel=1e-3
    )


@pytest.mark.parametrize("max_tokens", [1, 7, 16, 33, 200])
@pytest.mark.parametrize("packed", [True, False])
def test_micro_batches_hold_every_pair_once_whatever_the_budget(max_tokens, packed):
    batches = split(BATCH * 3, max_tokens, packed)
    assert all(batches) and all(example.chosen for batch in batches for example in batch)
    pairs = [pair for batch in batches for e in batch for pair in zip(e.chosen, e.rejected, strict=True)]
    assert pairs == [pair for e in BATCH * 3 for pair in zip(e.chosen, e.rejected, strict=True)]


def test_responses_end_in_one_end_token():
    tokenizer = models.load_tokenizer("pocket:student-neox")
    prompt, chosen, rejected = encode(tokenizer, "Why?", "So.\nAnswer: yes" + tokenizer.eos_token, "No.")
    assert chosen[-1] == rejected[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in chosen[:-1]
    assert tokenizer.decode(prompt) == "Why?"


def test_loss_log_probabilities_and_gradients_equal_trls_trainer(tmp_path):
    """TRL's NLL covers prompt and response, and its batches are padded: same loss, same gradient."""
    trl = pytest.importorskip("trl.experimental.orpo")
    from datasets import Dataset

    tokenizer = models.load_tokenizer("pocket:student-neox")
    model, _ = models.load("pocket:student-neox", device="cpu")
    rows = [
        {"prompt": "Ida has 20 pens.", "chosen": " She buys 2. Answer: 22", "rejected": " Answer: 18"},
        {
            "prompt": "Is a drum older than a radio?",
            "chosen": " It is. Answer: yes",
            "rejected": " A radio is old. Answer: no",
        },
    ]
    settings = trl.ORPOConfig(
        str(tmp_path), beta=0.7, max_length=128, per_device_train_batch_size=2, bf16=False, use_cpu=True,
        report_to="none", gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.ORPOTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    loss, theirs = trainer.get_batch_loss_metrics(model, batch, train_eval="train")
    model.zero_grad()
    loss.backward()
    gradient = _gradient(model)
    model.zero_grad()

    def ids(key, row):
        kept = batch[f"{key}_input_ids"][row][batch[f"{key}_attention_mask"][row].bool()].tolist()
        start = (batch[f"{key}_labels"][row] != -100).nonzero()[0].item()
        return tuple(kept[:start]), tuple(kept[start:])

    examples = []
    for row in range(2):
        (prompt, chosen), (_, rejected) = ids("chosen", row), ids("rejected", row)
        examples.append(Example(prompt, (chosen,), (rejected,)))
    ours = train_step(model, examples, lam=0.7, nll_span="prompt+response")
    assert ours["loss"] == pytest.approx(loss.item(), abs=1e-5)
    for key in ("logps/chosen", "logps/rejected", "nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/margins"):
        value = theirs[key]
        assert ours[key] == pytest.approx(float(value), abs=1e-5), key
    assert (_gradient(model) - gradient).norm() / gradient.norm() < 1e-5
