"""The ORPO loss on a handful of numbers: odds, their ratio, its gradient's parts, and which tokens two answers share.

    L = L_SFT + lam * L_OR,   L_OR = -log sigmoid(log odds(chosen) - log odds(rejected)),   odds q = q / (1 - q)

with log q = the mean token log-probability (arXiv 2403.07691).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from rapidfuzz.distance import LCSseq
from torch import Tensor

Contrast = Literal["all", "differing", "wrong-step"]


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for log-probabilities x <= 0, with a finite gradient everywhere."""
    x = x.clamp(max=-1e-6)  # probability 1 has infinite odds, and its gradient is nan
    return torch.log(-torch.expm1(x))


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """log(odds(chosen) / odds(rejected)) of mean token log-probabilities, elementwise."""
    return (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))


def odds_factor(x: Tensor) -> Tensor:
    """1 / (1 - p) of log-probabilities x: how much the odds amplify the gradient of a side that is likely already."""
    return torch.exp(-log1mexp(x))


def orpo_loss(chosen: Tensor, rejected: Tensor, nll: Tensor, lam: float) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of a batch of pairs: mean token log-probabilities [pairs] and the batch's NLL [].

    With no pairs the loss is the NLL, and so are the metrics. Beside TRL's names stand the two factors of the odds
    ratio's gradient: on a side's mean log-probability it is lam * odds_pull * odds_factor, downwards for the rejected
    side (Hong et al. 2024, equation 9, which calls the pull delta).
    """
    if not len(chosen):
        return nll, {"nll_loss": nll.item()}
    log_odds = log_odds_ratio(chosen, rejected)
    ratio = F.logsigmoid(log_odds).mean()
    names = ["nll_loss", "log_odds_ratio", "log_odds_chosen", "logps/chosen", "logps/rejected"]
    names += ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"]
    names += ["odds_factor/chosen", "odds_factor/rejected", "odds_pull"]
    values = [nll, ratio, log_odds.mean(), chosen.mean(), rejected.mean()]
    values += [lam * chosen.mean(), lam * rejected.mean(), lam * (chosen - rejected).mean()]
    values.append((chosen > rejected).float().mean())
    values += [odds_factor(chosen).mean(), odds_factor(rejected).mean(), torch.sigmoid(-log_odds).mean()]
    return nll - lam * ratio, dict(zip(names, torch.stack(values).tolist(), strict=True))


def differing(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[list[float], list[float]]:
    """1 for each token outside the longest common subsequence of both sides, else 0.

    A side that lies wholly within the other one counts in full: it has no token of its own to be judged by.
    """
    first, second = [1.0] * len(chosen), [1.0] * len(rejected)
    for code in LCSseq.opcodes(chosen, rejected):
        if code.tag == "equal":
            first[code.src_start : code.src_end] = [0.0] * (code.src_end - code.src_start)
            second[code.dest_start : code.dest_end] = [0.0] * (code.dest_end - code.dest_start)
    return tuple(side if any(side) else [1.0] * len(side) for side in (first, second))  # type: ignore[return-value]
