"""What the lab is built on: every pinned package with its version and licence, as a table or an SBOM (CycloneDX 1.6).

python -m tests.supply [--sbom sbom.json]
"""

import argparse
import importlib.metadata
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = re.compile(
    r"(?i)(the )?(mit|bsd|apache|iscl?|psf|python software|mpl|mozilla|zlib|cc0|0bsd|bsl|cnri|llvm|public domain)\b"
)
UNSTATED = {"axe-playwright-python": "MIT", "torchao": "BSD-3-Clause"}  # what the metadata lacks, by their own files
LOOKED_AT = {"chardet": "LGPL, a library that lm-eval brings, in the tests alone and as it is"}


def pinned():
    """Name -> version of every package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def licence(name):
    """What an installed package says of its licence: the expression, else the classifier, else a line of text."""
    told = importlib.metadata.metadata(name)
    classes = [one.split(" :: ")[-1] for one in told.get_all("Classifier") or [] if one.startswith("License ::")]
    found = told.get("License-Expression") or next(iter(classes), "") or (told.get("License") or "").split("\n")[0]
    return found.strip() or UNSTATED.get(name, "")


def installed():
    """(name, installed version, licence) of every pinned package that is installed here."""
    for name in pinned():
        try:
            yield name, importlib.metadata.version(name), licence(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def allowed(said):
    """Whether every part of a licence expression is of a kind that the lab is built on: no copyleft on its users."""
    parts = [part for part in re.split(r" AND | OR | WITH |[()]", said) if part.strip()]
    return bool(parts) and all(ALLOWED.match(part.strip()) for part in parts)


def doubtful():
    """(name, licence) of the installed packages whose licence is not allowed and that nobody has looked at."""
    return [(name, said) for name, _, said in installed() if not allowed(said) and name not in LOOKED_AT]


def sbom():
    """The packages as a CycloneDX document."""
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}",
         "licenses": [{"license": {"name": said}}]}
        for name, version, said in installed()
    ]  # fmt: skip
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def main():
    """Print the table; exit code 1 where a licence is not of the allowed kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sbom", type=Path)
    given = parser.parse_args()
    rows = list(installed())
    for name, version, said in rows:
        remark = "" if allowed(said) else f"   <- {LOOKED_AT.get(name, 'look at this one')}"
        print(f"{name:32} {version:18} {said}{remark}")
    if given.sbom:
        given.sbom.write_text(json.dumps(sbom(), indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(doubtful()))


if __name__ == "__main__":
    main()
