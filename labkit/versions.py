"""The versions of Python and of the packages that decide a run's numbers; nothing is imported to find them."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("labkit", "torch", "transformers", "accelerate", "tokenizers", "numpy", "rapidfuzz")


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Name -> version of Python and of PACKAGES, as far as they are installed; a run records it whenever it starts."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: said for name, said in found.items() if said}}
