"""The slow, obvious ORPO: one sequence at a time through the model as it comes, autograd for the rest."""

import random

import torch
import torch.nn.functional as F
import transformers as hf
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from labkit.packing import Example

WORDS = 60
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
WINDOW = 6  # shorter than every prompt below but one
GPT2 = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
SHAPES = {
    "llama, tied": lambda: hf.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": lambda: hf.Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED),
    "gemma3, sliding": lambda: hf.Gemma3TextConfig(
        **GROUPED, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt-neox": lambda: hf.GPTNeoXConfig(**SIZES),
    "gpt2": lambda: hf.GPT2Config(**GPT2),
    "gemma2, soft caps": lambda: hf.Gemma2Config(**GROUPED, sliding_window=WINDOW, final_logit_softcapping=2.0),
    "granite, scaled logits": lambda: hf.GraniteConfig(**SIZES, logits_scaling=4.0),
    "gpt-oss, sinks": lambda: hf.GptOssConfig(**GROUPED, **EXPERTS, sliding_window=WINDOW),
}


def make_model(shape, seed=0):
    """A random model whose answers are not all the same, dropout as its config has it, in training mode."""
    torch.manual_seed(seed)
    config = SHAPES[shape]() if isinstance(shape, str) else shape
    bends = config.model_type in ("gemma2", "gpt_oss")  # only the eager attention bends the scores on CPU
    model = hf.AutoModelForCausalLM.from_config(config, **({"attn_implementation": "eager"} if bends else {}))
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    return model.train()


def make_examples(seed=0):
    """Three prompts; responses of 1 to 14 tokens, some without a rejected one."""
    rng = random.Random(seed)

    def tokens(length):
        return tuple(rng.randrange(3, WORDS) for _ in range(length))

    return [
        Example(tokens(5), (tokens(3), tokens(1)), (tokens(2), None)),
        Example(tokens(17), (tokens(9), tokens(2), tokens(14)), (tokens(1), tokens(8), tokens(12))),
        Example(tokens(8), (tokens(4),), (tokens(7),)),
    ]


def alone(model, prompt, response):
    """Log-probabilities [len(prompt + response) - 1] of a text's tokens after the first."""
    ids = torch.tensor([prompt + response])
    return model(input_ids=ids).logits[0, :-1].float().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def plain_orpo(model, examples, lam, nll_span):
    """(loss, token log-probabilities of every response in order), by the formulas of the two papers."""
    nll, ratios, seen, count = 0.0, [], [], 0
    for example in examples:
        before = len(example.prompt) - 1
        for chosen, rejected in zip(example.chosen, example.rejected, strict=True):
            logps = alone(model, example.prompt, chosen)
            learnt = logps if nll_span == "prompt+response" else logps[before:]
            nll, count = nll - learnt.sum(), count + len(learnt)
            seen.append(logps[before:])
            if rejected is not None:
                seen.append(alone(model, example.prompt, rejected)[before:])
                good, bad = seen[-2].mean().exp(), seen[-1].mean().exp()
                ratios.append(F.logsigmoid((good / (1 - good)).log() - (bad / (1 - bad)).log()))
    loss = nll / count
    return (loss - lam * torch.stack(ratios).mean() if ratios else loss), [logps.detach() for logps in seen]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def make_tokenizer():
    """One token per word, w0 to w56."""
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(WORDS - 3))]
    base = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=base, eos_token="</s>", pad_token="<pad>")


TEXTS = [("w1 w2 w3", "w4 w5", "w6"), ("w9 w8", "w7", "w5 w4 w3 w2"), ("w20 w21 w22 w23", "w1 w1", "w2 w30 w31")]


def trl_step(trainer_class, config_class, folder, model, tokenizer, **settings):
    """One batch of TEXTS by TRL's trainer, with the gradients left in `model`: (trainer, loss, its metrics)."""
    rows = [{"prompt": p, "chosen": f" {c}", "rejected": f" {r}"} for p, c, r in TEXTS]
    args = config_class(
        str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=64,
        report_to="none",
        **settings,
    )
    trainer = trainer_class(model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    loss, metrics = trainer.get_batch_loss_metrics(model.train(), batch)  # dropout in its config; TRL switches it off
    loss.backward()
    return trainer, loss, metrics
