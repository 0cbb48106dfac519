"""How different traces are: ROUGE-L, distinct-n, self-BLEU, answer entropy; and pass@k. Pure text and numbers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count

from rapidfuzz.distance import LCSseq

_SPACED = bytes(ord(chr(code).lower()) if code < 128 and chr(code).isalnum() else 32 for code in range(256))


def words(text: str) -> list[str]:
    """Lower-cased runs of ASCII letters and digits: the tokens that rouge-score compares."""
    return _spaced(text).decode("ascii").split()


def _spaced(text: str) -> bytes:
    """Lower case, a space for all but ASCII letters and digits."""
    whole = text if text.isascii() else text.lower()  # the sign for Kelvin, say, is a k in lower case
    return whole.encode("ascii", "replace").translate(_SPACED)


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """ROUGE-L F1 of two token lists (Lin 2004), 0 to 1; 0 when either is empty. Equal to rouge-score's `rougeL`."""
    if not first or not second:
        return 0.0
    common = LCSseq.similarity(first, second)
    return 2 * common / (len(first) + len(second))  # = 2PR/(P+R) with P = common/len(second), R = common/len(first)


class NearCopies:
    """The kept traces of one problem; says how close a new one comes to them.

    `threshold` is the ROUGE-L F1 above which a trace is a near-copy (0.80 in the paper; 1 lets everything in).
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.kept: list[str] = []  # each word one character: strings are compared several times faster than lists
        self._characters: dict[bytes, str] = defaultdict(map(chr, count()).__next__)

    def admit(self, text: str) -> tuple[bool, float]:
        """Whether the trace is kept, and its highest ROUGE-L F1 with one kept before; kept, it counts from then on."""
        tokens = "".join(map(self._characters.__getitem__, _spaced(text).split()))
        rouge = max((rouge_l(other, tokens) for other in self.kept), default=0.0)
        kept = rouge <= self.threshold
        if kept:
            self.kept.append(tokens)
        return kept, rouge


def rouge_matrix(texts: Sequence[str]) -> list[list[float]]:
    """K x K ROUGE-L F1 between traces, 1 on the diagonal."""
    tokens = [words(text) for text in texts]
    return [[1.0 if i == j else rouge_l(a, b) for j, b in enumerate(tokens)] for i, a in enumerate(tokens)]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of the traces (Li et al. 2016), 0 to 1."""
    grams = [gram for text in texts for gram in _ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], order: int = 4) -> float:
    """Mean BLEU of each trace against the others (Zhu et al. 2018), 0 to 1; high means alike. 0 for fewer than two."""
    tokens = [words(text) for text in texts]
    if len(tokens) < 2:
        return 0.0
    scores = [_bleu(own, tokens[:i] + tokens[i + 1 :], order) for i, own in enumerate(tokens)]
    return sum(scores) / len(scores)


def _bleu(hypothesis: list[str], references: list[list[str]], order: int) -> float:
    """Sentence BLEU with add-one smoothing from bigrams on (Lin and Och 2004)."""
    logs = []
    for n in range(1, order + 1):
        own = Counter(_ngrams(hypothesis, n))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, n))
        smooth = 1 if n > 1 else 0
        hits, total = sum((own & most).values()) + smooth, sum(own.values()) + smooth
        if not hits:
            return 0.0
        logs.append(math.log(hits / total))
    closest = min((abs(len(ref) - len(hypothesis)), len(ref)) for ref in references)[1]
    brevity = min(0.0, 1 - closest / len(hypothesis))
    return math.exp(brevity + sum(logs) / order)


def _ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Shannon entropy, in bits, of the answers given; None (unparsed) counts as one answer of its own."""
    counts = Counter(answers)
    total = sum(counts.values())
    return sum(n / total * math.log2(total / n) for n in counts.values())


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased pass@k, 1 - C(n-c, k)/C(n, k), of `correct` among `n` draws (Chen et al. 2021); needs k <= n."""
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} draws, there are {n}")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)
