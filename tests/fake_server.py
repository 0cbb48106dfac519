"""An OpenAI-compatible server that answers as a script says: well, badly, late or not at all."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from labkit import distill, servers
from labkit.config import recipe
from labkit.generation import Request, Settings

ASKED = [
    Request("x/test/0", "Is a flea large?", ("greedy",)),
    Request("x/test/1", "What is 2 + 2?\nThink step by step.", ("greedy",)),
    Request("x/test/2", "Why?", ("greedy",), (("Is 2 odd?", "Answer: no"),)),
    Request("x/test/3", "Name the <|im_end|> token.", ("greedy",)),
    Request("x/test/4", "A snowman, \u2603?", ("greedy",)),
    Request("x/test/5", "What comes after 19?", ("greedy",)),
]
GREEDY = Settings(0.0, max_new_tokens=24)
SMALL = {"problems": 6, "test_problems": 12, "benchmarks": "pocket_arc", "max_new_tokens": 96, "epochs": 1}
KEYS = ("model", "messages", "max_tokens", "temperature", "seed", "n")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def quick(spec, **settings):
    """A generator that waits milliseconds where it would wait seconds."""
    return servers.UrlGenerator(spec, **{"backoff": 0.01, "retries": 3, **settings})


def small_run(folder, **changes):
    """Prepare and run the quick recipe on one small benchmark; returns its final state."""
    distill.prepare(folder, recipe("pocket-quick", {**SMALL, **changes}))
    return distill.run(folder)


def choice(text="Two.\nAnswer: 2", finish="stop", **more):
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}


def reply(*choices, prompt=10, tokens=5, **more):
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
    return {"model": "good", "choices": list(choices) or [choice()], "usage": usage, **more}


class Fake:
    """`script(body, number)` returns what is said to the request of that number (from 0): a dict (200), bytes (200), a
    number of seconds to hang, or (status, headers, dict)."""

    def __init__(self, script):
        self.script, self.bodies, self.headers, self.busy, self.most = script, [], [], 0, 0
        self.lock = threading.Lock()

    def handle(self, body, headers):
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            said = self.script(body, number)
            if isinstance(said, int | float):
                time.sleep(said)
                said = reply()
            return said if isinstance(said, tuple) else (200, {}, said)
        finally:
            with self.lock:
                self.busy -= 1


@contextmanager
def fake(script, models=("good",)):
    """(spec of model `good` at a server on this machine, its Fake)."""
    state = Fake(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._send(200, {}, {"data": [{"id": name} for name in models]}) if models else self._send(404, {}, {})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*state.handle(body, dict(self.headers)))

        def _send(self, status, headers, said):
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):  # a client that hung up is part of the tests
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1#good", state
    finally:
        server.shutdown()
        server.server_close()
