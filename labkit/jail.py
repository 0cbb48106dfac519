"""Run one Python file under limits; `verifiers.py` starts this as a process of its own: `python -I jail.py FILE`.

Limited are processor seconds, memory, file sizes, open files and new processes. There is no network where the system
lets a process leave it (Linux with user namespaces), and sockets, programs, foreign libraries, and files outside the
working folder and Python's own are refused to the code. That stops careless code and accidents; it is no wall against
somebody who wants out: run models that you do not trust in a container as well.

The first line of stdin is a secret, said on stdout only when the file has run to its end: leaving early is no success.
"""

import ctypes
import os
import resource
import runpy
import sys

SECONDS, MEMORY, SIZE = 5, 512 * 2**20, 2**20
NEW_USER, NEW_NET = 0x10000000, 0x40000000  # of Linux's unshare
REFUSED = (
    "socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
    "shutil.", "pty.", "gc.", "resource.",
)  # fmt: skip


def limit() -> None:
    """Lower this process's limits, for good, and leave the network where that is allowed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NET)
    wanted = {"CPU": SECONDS, "AS": MEMORY, "FSIZE": SIZE, "NOFILE": 32, "NPROC": 0, "CORE": 0}
    for name, most in wanted.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def guard(folder: str) -> None:
    """Refuse the code what it has no business with; a hook cannot be taken away again."""
    roots = tuple(os.path.realpath(root) + os.sep for root in (folder, sys.prefix, sys.base_prefix))

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event.startswith(REFUSED):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open" and isinstance(args[0], str | bytes):
            path, flags = os.path.realpath(os.fsdecode(args[0])), args[2]
            allowed = path.startswith(roots[:1] if isinstance(flags, int) and flags & 3 else roots)
            if not allowed:
                raise PermissionError(f"{path} is not allowed here")

    sys.addaudithook(hook)


if __name__ == "__main__":
    secret, say = sys.stdin.readline(), sys.stdout.write
    sys.dont_write_bytecode = True
    limit()
    guard(os.getcwd())
    runpy.run_path(sys.argv[1], run_name="__main__")
    say("\n" + secret)
