"""The ORPO loss, its metrics, and the optimiser step's forward and backward on packed rows.

    L = L_SFT + lam * L_OR,   L_SFT = -log q(chosen),   L_OR = -log sigmoid(log odds(chosen) - log odds(rejected))

given the prompt, with odds q = q / (1 - q) and there log q = the mean token log-probability (arXiv 2403.07691).
`odds.orpo_loss` says it on a handful of numbers; `train_step` computes the same, with its gradient, for a whole batch
of triplets under a token budget. Each chunk of vocabulary logits becomes its gradient as soon as its pairs are
complete, so the logits of the batch never exist at once and are never computed twice. Metrics carry TRL's names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from labkit.linear import onednn_linears
from labkit.odds import Contrast
from labkit.odds import orpo_loss as orpo_loss  # the loss is looked for here
from labkit.packing import Example, Row, pack, pad, split
from labkit.preferences import ORPO, Preference, batch_loss, pair_losses
from labkit.projection import (
    Chunk,
    ChunkedLoss,
    TokenLogps,
    chunk_limit,
    chunks_of,
    run_packed,
    unwrap,
)
from labkit.row_attention import packed_attention

Span = Literal["response", "prompt+response"]
_exact: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models whose packed rows were checked


def encode_response(tokenizer: Any, text: str, prompt: str = "") -> tuple[int, ...]:
    """Token ids of a response, ending in the end token exactly once. Tokenised apart from its prompt, so that the
    prompt's ids are the same before every response.

    A tokenizer like Llama's puts a space before every text; none belongs there where `prompt` ends in a new line.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if prompt.endswith("\n"):
        line = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
        whole = list(tokenizer("\n" + text, add_special_tokens=False)["input_ids"])
        if tokenizer.convert_ids_to_tokens(line)[0] == "▁" and whole[: len(line)] == line:
            ids = whole[len(line) :]
    while ids and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return (*ids, tokenizer.eos_token_id)


@dataclass(frozen=True)
class Totals:
    """What the two means of the loss divide by: the NLL's tokens and the pairs of the whole batch."""

    tokens: int
    pairs: int


def totals(examples: list[Example], nll_span: Span) -> Totals:
    """The divisors for `examples`; over several processes, their sum belongs to every process."""
    prompt = nll_span == "prompt+response"
    tokens = sum(len(c) + prompt * (len(e.prompt) - 1) for e in examples for c in e.chosen)
    return Totals(tokens, sum(r is not None for e in examples for r in e.rejected))


def _chunk_loss(
    logps: Tensor, chunk: Chunk, whole: Totals, lam: float, preference: Preference, references: Tensor | None
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The chunk's share of the batch's loss, its pairs' sides (see `preferences`), and its share of the NLL."""
    lengths = torch.tensor(chunk.lengths, device=logps.device)
    counted = logps if chunk.contrasted is None else logps * chunk.contrasted
    means = torch.zeros(len(chunk.lengths), device=logps.device).index_add(0, chunk.sequence, counted) / lengths
    nll = -(logps * chunk.weights).sum() / whole.tokens
    theirs = means.new_zeros(len(chunk.chosen), 2) if references is None else references.to(means.device)
    sides = [
        torch.stack((means[which], lengths[which], reference), 1)
        for which, reference in zip((chunk.chosen, chunk.rejected), theirs.unbind(1), strict=True)
    ]
    if not chunk.chosen or not lam:
        return nll * (preference.nll if lam else 1.0), sides, nll
    return preference.nll * nll + lam * pair_losses(preference, *sides).sum() / whole.pairs, sides, nll


def disable_dropout(model: nn.Module) -> None:
    """Switch every dropout of the model off, as TRL does for ORPO: the odds of two answers should not be noise."""
    for module in model.modules():
        for name in [n for n, v in vars(module).items() if "drop" in n and type(v) is float]:
            setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _padded_logits(model: nn.Module, row: Row) -> Tensor:
    """The model's logits [rows x tokens, vocabulary] of a padded batch."""
    return model(input_ids=row.ids, attention_mask=row.mask, use_cache=False).logits.float().flatten(0, 1)


@contextmanager
def _ready(inner: nn.Module, packed: bool, training: bool) -> Iterator[None]:
    """Within the block the model computes by oneDNN where that applies, attends to packed rows, and is in this mode."""
    before = inner.training
    inner.train(training)  # gradient checkpointing works in training mode only
    try:
        with onednn_linears(inner), packed_attention(inner.config) if packed else nullcontext():
            yield
    finally:
        inner.train(before)


def _logps(model: nn.Module, examples: list[Example], packed: bool) -> list[Tensor]:
    """Token log-probabilities of every response, in order, without gradient."""
    found: list[Tensor] = []
    inner = unwrap(model)
    row = (pack if packed else pad)(examples, inner.device)

    def keep(project: Callable[[Tensor], Tensor], limit: int) -> None:
        for chunk in chunks_of(row, False, limit):
            logps = TokenLogps.apply(project(chunk.rows), chunk.targets)
            found.extend(logps.split(chunk.lengths))

    def work(hidden: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        keep(lambda rows: project(hidden[rows]), chunk_limit(model))
        return hidden.new_zeros(1)

    with torch.no_grad(), _ready(inner, packed, training=False):
        if packed:
            run_packed(model, row, work)
        else:
            logits = _padded_logits(model, row)
            keep(lambda rows: logits[rows], row.ids.numel())
    return found


def packs_exactly(model: nn.Module, examples: list[Example]) -> bool:
    """Whether packed rows give this model's own log-probabilities: tried once per model, on the first batch.

    If not (attention that takes no function, recurrent layers, positions that are not passed in ...), a warning says
    so and plain padded batches are used.
    """
    inner = unwrap(model)
    if inner not in _exact:
        first = examples[0]
        chosen, rejected = first.chosen[0][:32], (first.rejected[0] or first.chosen[0][::-1])[:32]
        prompt = first.prompt[-256:]
        probe = [Example(prompt, (chosen,), (rejected,)), Example(prompt[::-1], (rejected, chosen), (None, chosen[:1]))]
        loose = inner.dtype != torch.float32 or torch.is_autocast_enabled(inner.device.type)
        try:
            pairs = zip(_logps(model, probe, True), _logps(model, probe, False), strict=True)
            worst = max((a - b).abs().max().item() for a, b in pairs)
            reason = "" if worst < (0.2 if loose else 1e-3) else f"log-probabilities differ by {worst:.3g}"
            if getattr(inner.config.get_text_config(), "attention_chunk_size", None):
                reason = "attention in chunks, which only long rows would show"
        except Exception as error:  # whatever a foreign model raises, the plain way is still open
            reason = f"{type(error).__name__}: {error}"
        if reason:
            name = type(inner).__name__
            warnings.warn(f"{name} cannot train on packed rows ({reason}): using padded batches, slower", stacklevel=2)
        _exact[inner] = not reason
    return _exact[inner]


def token_logps(
    model: nn.Module, examples: list[Example], *, packed: bool = True, max_tokens: int = 4096
) -> list[list[tuple[Tensor, Tensor | None]]]:
    """Log-probabilities [tokens] of every response: per example, per pair, (chosen, rejected or None). No gradient."""
    packed = packed and packs_exactly(model, examples)
    flat = iter([t for batch in split(examples, max_tokens, packed) for t in _logps(model, batch, packed)])
    return [[(next(flat), None if r is None else next(flat)) for r in example.rejected] for example in examples]


def _packed_loss(model: nn.Module, row: Row, loss_of: Callable[[Tensor, Chunk], Tensor], *parts: Any) -> Tensor:
    """Loss of a packed row, its gradients for the output layer already made."""
    chunks = chunks_of(row, parts[0], chunk_limit(model), parts[1])

    def work(hidden: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        # within the forward pass: only there FSDP has put them together
        weights = [p for p in unwrap(model).get_output_embeddings().parameters() if p.requires_grad]
        return ChunkedLoss.apply(lambda rows, chunk: loss_of(project(rows), chunk), chunks, hidden, *weights)

    return run_packed(model, row, work)[0]


def _padded_loss(model: nn.Module, row: Row, loss_of: Callable[[Tensor, Chunk], Tensor], *parts: Any) -> Tensor:
    """Loss of a padded batch by the model's own logits and autograd."""
    logits = _padded_logits(model, row)
    (chunk,) = chunks_of(row, parts[0], logits.numel(), parts[1])
    return loss_of(logits.index_select(0, chunk.rows), chunk)


def train_step(
    model: nn.Module,
    examples: list[Example],
    *,
    lam: float,
    nll_span: Span = "response",
    contrast: Contrast = "all",
    preference: Preference = ORPO,
    references: Tensor | None = None,
    max_tokens: int = 4096,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    whole: Totals | None = None,
    processes: int = 1,
    together: Callable[[Any], list[Any]] = lambda value: [value],
    idle: Example | None = None,
    packed: bool = True,
) -> dict[str, float]:
    """Forward and backward of one optimiser batch: adds the batch's gradient to the parameters, returns its metrics.

    `examples` is cut into micro-batches of at most `max_tokens` tokens (split between pairs), which changes memory and
    speed but not the gradient. `backward` is `accelerator.backward` in a training loop. Dropout is switched off.
    With `contrast="differing"` odds are of the tokens that a pair's sides do not share, with "wrong-step" of those that
    are `packing.Marked`; the NLL keeps all of them. `preference` takes another loss than ORPO's; KTO's needs what its
    reference says of the pairs, summed log-probabilities [pairs, 2] of chosen and rejected in order, in one process.

    With several processes, each passes its own examples (perhaps none), the `totals` of all of them as `whole`, and
    their number; `together` returns every process's value of something. All then make as many forward passes as the
    one with most: `idle` fills them up, with weight 0. Every process returns the whole batch's metrics.
    """
    inner = unwrap(model)
    disable_dropout(inner)
    packed = packed and packs_exactly(model, examples or [idle])
    whole = whole or totals(examples, nll_span)
    chosen, rejected, nlls = [], [], []

    def loss_of(logits: Tensor, chunk: Chunk) -> Tensor:
        seen = sum(map(len, chosen))
        theirs = None if references is None else references[seen : seen + len(chunk.chosen)]
        logps = TokenLogps.apply(logits, chunk.targets)
        loss, (good, bad), nll = _chunk_loss(logps, chunk, whole, lam, preference, theirs)
        chosen.append(good.detach())
        rejected.append(bad.detach())
        nlls.append(nll.detach())
        return loss

    batches = split(examples, max_tokens, packed)
    own, counted = len(batches), 0
    batches += [[idle]] * (max(together(own)) - own)
    loss_by, parts = _packed_loss if packed else _padded_loss, (nll_span == "prompt+response", contrast)
    with _ready(inner, packed, training=True):
        for number, batch in enumerate(batches, 1):
            row = (pack if packed else pad)(batch, inner.device)
            alone = getattr(model, "no_sync", nullcontext) if number < len(batches) else nullcontext
            weight = processes if number <= own else 0
            with alone():  # processes exchange gradients once per step, however many micro-batches each has
                backward(loss_by(model, row, loss_of, *parts) * weight)
            counted = len(nlls) if weight else counted
    sides = [torch.cat([torch.zeros(0, 3), *(t.cpu() for t in part[:counted])]) for part in (chosen, rejected)]
    shares = together((*sides, sum(nll.item() for nll in nlls[:counted])))
    good, bad, nll = zip(*shares, strict=True)
    loss, metrics = batch_loss(preference, torch.cat(good), torch.cat(bad), torch.tensor(sum(nll)), lam)
    return {"loss": loss.item(), **metrics}
