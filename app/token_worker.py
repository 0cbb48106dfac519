"""The process behind the token view: loads one student of a run and answers what the pages ask for, then ends.

python -m app.token_worker runs/NAME current
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from app import indexed, store, tokens
from labkit import models, oracle, runs
from labkit.odds import differing, log1mexp, log_odds_ratio
from labkit.orpo import encode_response
from labkit.packing import counted
from labkit.prompting import encode
from labkit.records import LabError, Triplet
from labkit.stages import rendered

IDLE = 60  # seconds without a question before the worker ends


def work(where: Path, which: str) -> None:
    """Answer every `EPOCH-LINE.asked` in the student's folder until none has come for a while."""
    target = tokens.folder(where, which)
    try:
        with FileLock(target / ".lock", blocking=False):
            spec, label = tokens.student(where, which)
            model, tokenizer = models.load(spec, "float32")
            asked_last = time.monotonic()
            while time.monotonic() - asked_last < IDLE:
                for path in target.glob("*.asked"):
                    epoch, line = map(int, path.stem.split("-"))
                    found = pair(where, indexed.triplet(indexed.triplets(where, epoch), line), model, tokenizer)
                    runs.replace(path.with_suffix(".json"), json.dumps(found | {"label": label}))
                    path.unlink(missing_ok=True)
                    asked_last = time.monotonic()
                time.sleep(0.1)
    except Timeout:
        return
    except (LabError, OSError, ValueError, RuntimeError) as error:
        (target / "error.txt").write_text(" ".join(str(error).split()), encoding="utf-8")
        for path in target.glob("*.asked"):
            path.unlink(missing_ok=True)
        raise


@torch.no_grad()
def pair(where: Path, triplet: Triplet, model: models.Model, tokenizer: models.Tokenizer) -> dict[str, Any]:
    """Log-probability of every token of both sides, and the terms of the ORPO loss of this pair alone."""
    config = store.config(where)
    prompt = rendered(store.problems(where)[triplet.problem], tokenizer, config)
    start = tuple(encode(tokenizer, prompt))
    said = encode_response(tokenizer, triplet.chosen, prompt)
    before, chosen = _logps(model, start, said)
    span = torch.cat([before, chosen]) if config.nll_span == "prompt+response" else chosen
    lam = config.lam_at(triplet.epoch)
    found: dict[str, Any] = {"nll": -float(span.mean()), "lam": lam, "nll_span": config.nll_span, "rejected": None}
    found["loss"] = config.loss
    found["chosen"] = _side(tokenizer, said, chosen, chosen.mean())
    if triplet.rejected is not None:
        other = encode_response(tokenizer, triplet.rejected, prompt)
        rejected = _logps(model, start, other)[1]
        sides = (said, chosen), (other, rejected)
        if config.contrast == "wrong-step":
            problem = store.problems(where)[triplet.problem]
            said, other = oracle.marked(problem, triplet, said, other, tokenizer)
        kept = differing(said, other) if config.contrast == "differing" else map(counted, (said, other))
        means = [logps[torch.tensor(mask) > 0].mean() for (_, logps), mask in zip(sides, kept, strict=True)]
        found |= {
            name: _side(tokenizer, *side, mean)
            for name, side, mean in zip(("chosen", "rejected"), sides, means, strict=True)
        }
        found["ratio"] = -float(torch.nn.functional.logsigmoid(log_odds_ratio(*means)))
    return found


def _logps(
    model: models.Model, prompt: tuple[int, ...], response: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the prompt's tokens after its first, and of the response's."""
    row = torch.tensor([[*prompt, *response]], device=model.device)
    logps = model(row).logits[0, :-1].float().log_softmax(-1).gather(1, row[0, 1:, None])[:, 0].cpu()
    return logps[: len(prompt) - 1], logps[len(prompt) - 1 :]


def _side(tokenizer: models.Tokenizer, ids: tuple[int, ...], logps: torch.Tensor, mean: torch.Tensor) -> dict[str, Any]:
    """A side's tokens, and the mean log-probability that enters its odds."""
    said = [[tokenizer.decode([i]), round(float(logp), 4)] for i, logp in zip(ids, logps, strict=True)]
    return {"tokens": said, "mean": float(mean), "log_odds": float(mean - log1mexp(mean))}


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    work(Path(sys.argv[1]), sys.argv[2])
