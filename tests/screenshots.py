"""Pictures of every tab: light, dark and narrow. They are looked at after each change, and three are in the README.

python -m tests.screenshots FOLDER [--runs-dir runs]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent))

from app_server import TABS, browsing, new_page, serving

LOOKS = {"light": ("light", 1440, 1000), "dark": ("dark", 1440, 1000), "narrow": ("light", 390, 844)}


def shoot(url, folder):
    """One picture per tab and look; the token view is opened in Pairs."""
    with sync_playwright() as engine, browsing(engine) as browser:
        for look, (scheme, width, height) in LOOKS.items():
            page = new_page(browser, viewport={"width": width, "height": height}, color_scheme=scheme)
            for tab, ready in TABS.items():
                page.goto(f"{url}/?tab={tab}")
                page.wait_for_selector(f"{ready} >> visible=true")
                if tab == "pairs":
                    page.click("#token-view")
                    page.wait_for_selector("#tokens .sum")
                page.wait_for_timeout(2500)
                page.screenshot(path=folder / f"{tab}-{look}.png")
                print(folder / f"{tab}-{look}.png", file=sys.stderr)
            page.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs-dir", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as empty, serving(given.runs_dir or empty) as url:
        shoot(url, given.folder)


if __name__ == "__main__":
    main()
