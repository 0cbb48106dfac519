"""What a run may spend on servers, in tokens and in money, and the journal of everything that was paid for.

Every answer is written to `servers.jsonl` in the run folder as it arrives: a run that is stopped, killed or capped in
the middle of a chunk asks for none of them again, and its spending is simply the sum of the journal.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import files
from labkit.records import Completion, LabError


class Capped(Exception):
    """The next request could pass the cap; nothing is in flight."""


@dataclass
class Budget:
    """Caps on everything sent to and got from servers. Prices: money per million tokens, in and out."""

    token_cap: int | None = None
    money_cap: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    spent: tuple[int, int] = (0, 0)  # tokens in, tokens out
    _held: list[tuple[int, int]] = field(default_factory=list)  # the most that each request in flight may take
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def money(self, tokens: tuple[int, int]) -> float:
        """Price of (tokens in, tokens out)."""
        return (tokens[0] * self.price_in + tokens[1] * self.price_out) / 1e6

    def hold(self, most: tuple[int, int]) -> None:
        """Set `most` aside for a request; waits for others to come back if need be. Raises `Capped`."""
        with self._changed:
            while self._over(most):
                if not self._held:
                    raise Capped(self._reason(most))
                self._changed.wait()
            self._held.append(most)

    def settle(self, most: tuple[int, int], spent: tuple[int, int]) -> None:
        """The request that held `most` is over and took `spent`."""
        with self._changed:
            self._held.remove(most)
            self.add(spent)
            self._changed.notify_all()

    def add(self, spent: tuple[int, int]) -> None:
        """Count tokens (in, out) as spent."""
        with self._changed:
            self.spent = (self.spent[0] + spent[0], self.spent[1] + spent[1])

    def _over(self, most: tuple[int, int]) -> bool:
        columns = list(zip(self.spent, most, *self._held, strict=True))
        wanted = (sum(columns[0]), sum(columns[1]))
        return (self.token_cap is not None and sum(wanted) > self.token_cap) or (
            self.money_cap is not None and self.money(wanted) > self.money_cap
        )

    def _reason(self, most: tuple[int, int]) -> str:
        if self.token_cap is not None and sum(self.spent) + sum(most) > self.token_cap:
            name, cap, used, more = "token_cap", self.token_cap, sum(self.spent), sum(most)
        else:
            name, cap, used, more = "money_cap", self.money_cap, self.money(self.spent), self.money(most)
        return (
            f"spending cap: {used:,.6g} spent of {name} = {cap:,.6g}, and the next request may take {more:,.4g}; "
            f"raise it to continue: --set {name}=..."
        )


class Journal:
    """Answers by address, appended to a file as they come; without a file, forgotten."""

    def __init__(self, path: Path | None, budget: Budget) -> None:
        """Reads what is there (a half-written last line is cut off) and counts it as spent; `LabError` if damaged."""
        self.path, self.budget, self._lock = path, budget, threading.Lock()
        self.answers: dict[str, Completion] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        files.drop_half_line(path)
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
                if (address := row.get("address")) is not None:
                    self.answers[address] = Completion(row["text"], row["finish"], row["tokens"], row["logprob"])
                self.budget.add((row["paid_in"], row["paid_out"]))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise LabError(
                    f"{path}, line {number}: damaged ({error!r}): remove this line, its answer is then paid for again"
                ) from None

    def write(self, address: str, said: Completion, paid_in: int) -> None:
        """Keep one answer; `paid_in`: prompt tokens that were paid for it."""
        self.answers[address] = said
        fields = {"text": said.text, "finish": said.finish, "tokens": said.tokens, "logprob": said.logprob}
        self._append({"address": address, **fields, "paid_in": paid_in, "paid_out": said.tokens})

    def lost(self, tokens: tuple[int, int]) -> None:
        """A request whose answer never came, counted at its longest: the server may have written it."""
        self._append({"paid_in": tokens[0], "paid_out": tokens[1]})

    def _append(self, row: dict[str, Any]) -> None:
        if self.path is not None:
            line = json.dumps(row, ensure_ascii=False) + "\n"
            with self._lock:
                files.add(self.path, line.encode("utf-8", "backslashreplace"), sync=True)
