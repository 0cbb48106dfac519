"""The oracle's pairs: of a wrong trace only its first wrong step counts in the odds, of the right one its counterpart.

An upper bound for what contrast can do: nobody but the generator of a pocket world knows the wrong step.
"""

from __future__ import annotations

from typing import Any

from labkit.packing import Ids, Marked
from labkit.pocket_steps import Span, counterpart, wrong_step
from labkit.records import Problem, Triplet


def marked(problem: Problem, triplet: Triplet, chosen: Ids, rejected: Ids, tokenizer: Any) -> tuple[Ids, Ids]:
    """Both sides' token ids with the tokens that count; as they are where no step of the rejected one is wrong.

    `chosen`, `rejected`: as `orpo.encode_response` makes them. Raises `LabError` for a problem of no pocket benchmark.
    """
    wrong = wrong_step(problem, triplet.rejected or "")
    if wrong is None:
        return chosen, rejected
    right = counterpart(triplet.chosen, triplet.rejected[slice(*wrong)])
    return _mark(tokenizer, triplet.chosen, chosen, right), _mark(tokenizer, triplet.rejected, rejected, wrong)


def _mark(tokenizer: Any, text: str, ids: Ids, span: Span) -> Ids:
    """A token counts if it holds a character of the span that is no space; the end token never does."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    kept = [any(not text[i].isspace() for i in range(max(a, span[0]), min(b, span[1]))) for a, b in places]
    kept = [*kept, False][-len(ids) :]
    return Marked(ids, [0.0] * (len(ids) - len(kept)) + [float(one) for one in kept]) if any(kept) else ids
