"""Several processes of one run, started by `accelerate launch` or `torchrun`: the first leads, the others follow.

    accelerate launch --multi_gpu --num_processes 8 -m labkit distill NAME --recipe paper-tinyllama

Only the leader runs the algorithm and touches the run folder. For each piece of work that is shared it sends an order,
every process does its share, and `together` brings the results back. Each follower also holds a socket to the leader:
when a process ends, the others learn it at once, whatever they are in, and end with the reason instead of waiting.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from labkit.records import LabError

PATIENCE = timedelta(days=2)  # for whoever is still at work; a process that has ended is noticed at once
GRACE = 10.0  # seconds in which a process that lost another may end by itself

T = TypeVar("T")


class Lost(Exception):
    """Another process of the run has ended before its time; says which, and why if it could tell."""


@dataclass
class _Team:
    """This process among the others."""

    rank: int
    size: int
    group: Any  # gloo, for orders and results; gradients go over the default group
    line: socket.socket | None = None  # a follower's connection to the leader
    ended: bool = False
    lost: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    told: Callable[[str], None] | None = None


_team: _Team | None = None


def launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def size() -> int:
    """How many processes there are."""
    return _team.size if _team else 1


def rank() -> int:
    """This one's number; 0 leads."""
    return _team.rank if _team else 0


def join() -> None:
    """Meet the other processes of this launch; raises `LabError` where accelerate was told to do the wrapping."""
    global _team
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
            raise LabError(
                f"launched with {name}: only whole copies of the student are trained; launch with --multi_gpu"
            )
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    PartialState(cpu=not cuda)  # or accelerate takes a machine without a GPU for a single process
    _team = _Team(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))
    _lead() if _team.rank == 0 else _connect()


def environment() -> dict[str, str]:
    """The environment for a program that the run starts but that is not of the launch, as a server."""
    own = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
           "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_", "ACCELERATE_")  # fmt: skip
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of a list: every n-th."""
    return items[rank() :: size()]


def dealt(shares: Sequence[Sequence[T]]) -> list[T]:
    """The list whose shares these are, in its order."""
    whole: list[Any] = [None] * sum(map(len, shares))
    for number, part in enumerate(shares):
        whole[number :: len(shares)] = part
    return whole


# --- orders and results ----------------------------------------------------------------------------------------------


def order(name: str, *content: Any) -> None:
    """Tell the followers what to do next; nothing where there are none."""
    if _team:
        dist.broadcast_object_list([(name, *content)], src=0, group=_team.group)
        _team.ended = name == "end"


def heard() -> tuple[Any, ...]:
    """A follower's next order: its name, and what it needs."""
    found: list[Any] = [None]
    dist.broadcast_object_list(found, src=0, group=_team.group)
    return found[0]


def together(value: T) -> list[T]:
    """The value of every process, by rank."""
    if _team is None:
        return [value]
    found: list[Any] = [None] * _team.size
    dist.all_gather_object(found, value, group=_team.group)
    return found


# --- who is still there ----------------------------------------------------------------------------------------------


def _lead() -> None:
    """Wait for every follower's connection, and listen to each."""
    host = os.environ["MASTER_ADDR"]
    try:
        server = socket.create_server((host, 0))
    except OSError:  # the launcher named an address that is not one of this machine's own
        server = socket.create_server(("", 0))
    token = secrets.token_hex(16)
    dist.broadcast_object_list([(host, server.getsockname()[1], token)], src=0, group=_team.group)
    missing = _team.size - 1
    while missing:
        connection, _ = server.accept()
        connection.settimeout(60)
        lines = connection.makefile(errors="replace")
        said, _, who = lines.readline().strip().partition(" ")
        if secrets.compare_digest(said.encode(), token.encode()):
            connection.settimeout(None)
            missing -= 1
            threading.Thread(target=_listen, args=(connection, lines, who), daemon=True).start()
        else:
            connection.close()
    server.close()


def _listen(connection: socket.socket, lines: Any, who: str) -> None:
    """Until a follower's connection ends; its last words are why."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a machine that is gone closes nothing
    last = ""
    with suppress(OSError):
        for line in lines:
            last = line.strip()
    if last == "end":
        return
    _team.reason = _team.reason or f"{who} " + (f"failed: {last}" if last else "was killed, or its machine is gone")
    _team.lost.set()
    time.sleep(GRACE)  # whatever waits for the follower fails by itself; only a leader in long work is still there
    if not _team.ended:
        if _team.told:
            _team.told(_team.reason)
        os._exit(1)


def _connect() -> None:
    """A follower's line to the leader, which alone decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    host, port, token = heard()
    _team.line = socket.create_connection((host, port))
    _team.line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _say(f"{token} process {_team.rank} of {_team.size} (pid {os.getpid()} on {socket.gethostname()})")
    threading.Thread(target=_mind_leader, args=(_team.line,), daemon=True).start()


def _mind_leader(line: socket.socket) -> None:
    with suppress(OSError):
        line.recv(1)  # the leader never writes: this returns when it has ended
    time.sleep(GRACE / 10)
    if not _team.ended:
        os._exit(1)


def _say(line: str) -> None:
    with suppress(OSError):
        _team.line.sendall(line.encode(errors="replace") + b"\n")


def leave(last: str = "end") -> None:
    """A follower's last words to the leader: `end`, or why it ends early."""
    _team.ended = True
    _say(" ".join(last.split()))
    with suppress(OSError):
        _team.line.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the thread that reads


def reason_of(error: BaseException) -> str | None:
    """Why this process's work broke off, where the end of another process is why; None where the error is its own."""
    if _team is None or isinstance(error, LabError | ArithmeticError):
        return None
    broken = isinstance(error, RuntimeError)  # what an exchange raises whose other end is gone
    return _team.reason if _team.lost.wait(5.0 if broken else 0.0) else None


@contextmanager
def telling(told: Callable[[str], None]) -> Iterator[None]:
    """Within the block, `told` gets the reason if a follower ends while the leader is in work that does not notice."""
    if _team is None:
        yield
        return
    _team.told = told
    try:
        yield
    finally:
        _team.told = None
