"""The loss against its formula and against TRL; the step's edges: one-token answers, SFT, dropout, many processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from one_at_a_time import TEXTS, gradients, make_examples, make_model, make_tokenizer, plain_orpo, trl_step
from torch.distributed.fsdp import fully_shard

from labkit.orpo import Example, disable_dropout, encode_response, orpo_loss, totals, train_step


@pytest.fixture
def tokenizer():
    return make_tokenizer()


# --- the loss --------------------------------------------------------------------------------------------------------


def test_loss_and_gradient_are_those_of_the_formula_written_out():
    chosen = torch.tensor([-0.2, -1.5, -3.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-0.9, -0.1, -8.0], dtype=torch.float64, requires_grad=True)
    nll = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)

    def written_out():
        good, bad = chosen.exp(), rejected.exp()
        odds_ratio = (good / (1 - good)) / (bad / (1 - bad))
        return nll - 0.3 * torch.log(torch.sigmoid(torch.log(odds_ratio))).mean()

    ours, theirs = orpo_loss(chosen, rejected, nll, 0.3)[0], written_out()
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(x, [chosen, rejected, nll]) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("edge", [0.0, -1e-8, -1e-4, -100.0])
@pytest.mark.parametrize("side", ["chosen", "rejected", "both"])
def test_loss_and_gradient_are_finite_where_an_answer_is_certain_or_impossible(edge, side):
    pair = {"chosen": torch.tensor([-0.5]), "rejected": torch.tensor([-0.7])}
    pair = {k: torch.tensor([edge]) if side in (k, "both") else v for k, v in pair.items()}
    pair = {k: v.requires_grad_() for k, v in pair.items()}
    loss, metrics = orpo_loss(pair["chosen"], pair["rejected"], -pair["chosen"].mean(), 1.0)
    loss.backward()
    assert math.isfinite(loss.item()) and all(map(math.isfinite, metrics.values()))
    assert all(torch.isfinite(v.grad).all() for v in pair.values())


def test_one_token_answers_of_a_certain_student_train_without_nan():
    model = make_model("gpt-neox")
    model.get_output_embeddings().weight.data.mul_(1e4)  # probabilities 0 and 1 in fp32
    sure = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax().item()
    for answers in ((sure, 9), (9, sure), (sure, sure)):
        model.zero_grad()
        metrics = train_step(model, [Example((5, 6, 7), ((answers[0],),), ((answers[1],),))], lam=1.0)
        assert all(map(math.isfinite, metrics.values()))
        assert all(torch.isfinite(g).all() for g in gradients(model).values())


def test_each_term_has_a_gradient_of_its_own():
    model = make_model("llama, tied")
    pair = [Example((5, 6, 7), ((8, 9),), ((10, 11),))]
    chosen_only = [Example((5, 6, 7), ((8, 9),), (None,))]
    found = []
    for examples, lam in ((pair, 0.0), (chosen_only, 1.0), (pair, 1.0), (pair, 2.0)):
        model.zero_grad()
        train_step(model, examples, lam=lam)
        found.append(torch.cat([g.flatten() for g in gradients(model).values()]))
    sft, alone, one, two = found
    torch.testing.assert_close(sft, alone)  # lam = 0 is SFT on the chosen trace
    odds = one - sft
    assert sft.norm() > 1e-3 and odds.norm() > 1e-3
    torch.testing.assert_close(two - sft, 2 * odds, rtol=1e-3, atol=1e-5 * odds.abs().max().item())
    assert F.cosine_similarity(odds, sft, 0).abs() < 0.99


def test_metrics_have_trl_s_names_and_meaning():
    chosen, rejected = torch.tensor([-0.5, -2.0]), torch.tensor([-1.0, -1.0])
    loss, metrics = orpo_loss(chosen, rejected, torch.tensor(0.9), 0.5)
    assert metrics["rewards/chosen"] == pytest.approx(0.5 * -1.25)
    assert metrics["rewards/margins"] == pytest.approx(metrics["rewards/chosen"] - metrics["rewards/rejected"])
    assert metrics["rewards/accuracies"] == 0.5
    assert metrics["logps/chosen"] == -1.25
    assert metrics["log_odds_ratio"] < 0
    assert loss.item() == pytest.approx(metrics["nll_loss"] - 0.5 * metrics["log_odds_ratio"])


# --- against TRL -----------------------------------------------------------------------------------------------------


def test_loss_log_probabilities_and_gradients_are_trl_s(tmp_path, tokenizer):
    orpo = pytest.importorskip("trl.experimental.orpo")
    model = make_model("gpt2")
    trainer, loss, theirs = trl_step(orpo.ORPOTrainer, orpo.ORPOConfig, tmp_path, model, tokenizer, beta=0.7)
    expected = gradients(model)
    model.zero_grad()

    examples = []
    for i, (text, *responses) in enumerate(TEXTS):
        prompt = tuple(tokenizer(text)["input_ids"])
        chosen, rejected = (encode_response(tokenizer, response) for response in responses)
        row = trainer.train_dataset[i]
        assert (row["chosen_input_ids"], row["rejected_input_ids"]) == ([*prompt, *chosen], [*prompt, *rejected])
        examples.append(Example(prompt, (chosen,), (rejected,)))
    ours = train_step(model, examples, lam=0.7, nll_span="prompt+response", max_tokens=12)
    assert ours["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name in theirs.keys() & ours.keys():
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name
    assert ours.keys() - theirs.keys() == {"loss", "odds_factor/chosen", "odds_factor/rejected", "odds_pull"}
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in gradients(model).items():
        assert (gradient - expected[name]).norm() <= 1e-5 * whole, name


# --- the step --------------------------------------------------------------------------------------------------------


def test_without_rejected_traces_the_step_is_sft():
    model = make_model("qwen2")
    examples = [Example(e.prompt, e.chosen, (None,) * len(e.chosen)) for e in make_examples()]
    loss, _ = plain_orpo(model, examples, 1.0, "response")
    metrics = train_step(model, examples, lam=1.0, max_tokens=40)
    assert metrics == {"loss": pytest.approx(loss.item(), rel=1e-5), "nll_loss": pytest.approx(loss.item(), rel=1e-5)}


def test_training_runs_without_dropout():
    model = make_model("gpt2")
    assert model.config.resid_pdrop == 0.1
    losses = {train_step(model, make_examples(), lam=1.0)["loss"] for _ in range(3)}
    assert len(losses) == 1


def test_functional_dropout_is_off_too():
    model = make_model("llama, tied")
    model.model.layers[0].self_attn.attention_dropout = 0.5
    disable_dropout(model)
    assert model.model.layers[0].self_attn.attention_dropout == 0.0


def test_two_processes_average_to_the_gradient_of_the_whole_batch():
    model, examples = make_model("llama, tied"), make_examples()
    train_step(model, examples, lam=1.0)
    expected = gradients(model)
    model.zero_grad()
    for share in (examples[:1], examples[1:]):
        train_step(model, share, lam=1.0, whole=totals(examples, "response"), processes=2)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient / 2, expected[name], rtol=1e-3, atol=1e-5)


def test_wrapped_models_are_called_through_their_wrapper_and_exchange_gradients_once_a_step():
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls, self.quiet = module, 0, 0

        def forward(self, **inputs):
            self.calls += 1
            return self.module(**inputs)

        def no_sync(self):
            self.quiet += 1
            return torch.enable_grad()

    model, examples = Wrapper(make_model("llama, tied")), make_examples()
    accelerator = Accelerator(cpu=True)
    train_step(model, examples, lam=1.0)  # the first step also tries packing out
    before = model.calls
    train_step(model, examples, lam=1.0, max_tokens=60, backward=accelerator.backward)
    assert model.calls - before == 3 and model.quiet == 2


def one_of_two_processes(rank, port_file):
    """Train one step under DDP and one under FSDP on unequal shares, and compare with the whole batch here."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=2)
    examples = make_examples()
    share = {"examples": examples[:1] if rank else examples[1:], "whole": totals(examples, "response"), "processes": 2}
    alone, replicated, sharded = (make_model("llama, tied") for _ in range(3))
    train_step(alone, examples, lam=1.0)
    expected = gradients(alone)
    train_step(torch.nn.parallel.DistributedDataParallel(replicated), lam=1.0, max_tokens=40, **share)
    for layer in sharded.model.layers:
        fully_shard(layer)
    fully_shard(sharded)
    train_step(sharded, lam=1.0, **share)
    for found in (gradients(replicated), {n: g.full_tensor() for n, g in gradients(sharded).items()}):
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)
    torch.distributed.destroy_process_group()


def test_data_parallel_and_sharded_training_step_as_one_process_does(tmp_path):
    torch.multiprocessing.spawn(one_of_two_processes, (str(tmp_path / "meeting-point"),), nprocs=2)


# --- token ids -------------------------------------------------------------------------------------------------------


def test_a_response_ends_in_the_end_token_exactly_once(tokenizer):
    end = tokenizer.eos_token_id
    for text in ("w1 w2", "w1 w2 </s>", "w1 w2 </s> </s>"):
        assert encode_response(tokenizer, text) == (4, 5, end)
    assert encode_response(tokenizer, "") == (end,)
