"""The student served by any OpenAI-compatible server while it is sampled: started, waited for, asked, and ended.

    with served(model, tokenizer, config, folder, say) as generator:  # by config.serve, a command

The model is saved as it is now into `serving/` of the run folder, with a chat template if it has none, and removed
afterwards. The server runs under `labkit.guard`: it ends with this process, however that ends.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from labkit import asking, catalog, files, models, processes
from labkit.config import RunConfig
from labkit.prompting import as_text, plain_template
from labkit.records import LabError
from labkit.servers import UrlGenerator

POLL = 0.25  # seconds


def check(template: str) -> None:
    """Raises `LabError` where the command of a `serve` setting cannot be started here."""
    program = command(template, Path("model"), 8000)[0]
    if shutil.which(program) is None:
        raise LabError(f"serve: no program {program!r} here: install it, or give its path")


def command(template: str, model: Path, port: int) -> list[str]:
    """The command as a list of arguments; a path with spaces stays one argument."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise LabError(f"serve = {template!r}: {error}") from None
    if not words:
        raise LabError("serve is empty: give a command, as vllm serve {model} --port {port}")
    return [word.replace("{model}", str(model)).replace("{port}", str(port)) for word in words]


@contextmanager
def served(
    model: models.Model, tokenizer: models.Tokenizer, config: RunConfig, folder: Path, say: Callable[[str], None]
) -> Iterator[UrlGenerator]:
    """A generator that asks a fresh server with the model's present weights; the server is gone afterwards.

    Raises `LabError` where the server ends by itself, or does not answer within `config.serve_wait` seconds.
    """
    where, port = (folder / "serving").resolve(), _free_port()
    _save(model, tokenizer, where)
    words = command(config.serve or "", where, port)
    files.cap(folder / "server.log")
    try:
        with _guarded(words, folder / "server.log") as process:
            say(f"serving the student: {shlex.join(words)}")
            name = _wait(process, port, where, config.serve_wait, folder / "server.log")
            generator = UrlGenerator(
                f"http://127.0.0.1:{port}/v1#{name}", concurrency=config.concurrency, choices=config.choices,
                timeout=config.timeout, retries=config.retries, key=False, note=say,
                clean=partial(as_text, tokenizer),
            )  # fmt: skip
            generator.name = config.student
            yield generator
    finally:
        shutil.rmtree(where, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _save(model: models.Model, tokenizer: models.Tokenizer, where: Path) -> None:
    """A folder that serves as the model speaks here: sampling where asked, and the plain template of a base model."""
    shutil.rmtree(where, ignore_errors=True)
    models.save(model, tokenizer, where)
    settings = type(model.generation_config).from_pretrained(where)
    settings.do_sample, settings.top_k, settings.top_p = True, 0, 1.0
    settings.save_pretrained(where)
    if tokenizer.chat_template is None:
        (where / "chat_template.jinja").write_text(plain_template(tokenizer), encoding="utf-8")


@contextmanager
def _guarded(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in processes.environment().items() if name != asking.KEY}
    with open(log, "ab") as output:
        guard = subprocess.Popen(
            [sys.executable, "-m", "labkit.guard", *words],
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True, env=environment,
        )  # fmt: skip
    try:
        yield guard
    finally:
        guard.stdin.close()
        guard.wait()


def _wait(process: subprocess.Popen[bytes], port: int, where: Path, seconds: float, log: Path) -> str:
    """The model's name at the server, once it answers."""
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    with httpx.Client(timeout=20, trust_env=False) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise LabError(f"serve: the server ended with {process.returncode}: {_last_line(log)} (see {log})")
            if _healthy(client, f"{url}/health") or _healthy(client, f"{url}/v1/models"):
                names = catalog.models(asking.connect(f"{url}/v1", key=False, retries=0))
                return names[0] if len(names) == 1 and str(where) not in names else str(where)
            time.sleep(POLL)
    raise LabError(f"serve: no answer within serve_wait = {seconds:g} s: {_last_line(log)} (see {log})")


def _healthy(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")[-40:]
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"
