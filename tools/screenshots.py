"""Pictures of every state of the page, on a desk and on a phone, dark and light.

    python tools/screenshots.py FOLDER [--only models,system] [--sizes desk,phone] [--themes dark,light]

The states are those of `tests/states.py`; a new one is one line there. FOLDER lies outside the repository.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browsing import DESK, PHONE, launch, new_context  # noqa: E402
from playwright.sync_api import Browser, Error, sync_playwright  # noqa: E402
from scenes import Scene  # noqa: E402
from states import STATES  # noqa: E402

SIZES = {"desk": DESK, "phone": PHONE}
SETTLE_MS = 700  # until what moves has come to rest


def take(browser: Browser, scene: Scene, state: str, size: str, theme: str, target: Path) -> None:
    """One picture. What a finger needs is bigger on a phone, so it is told that it is one."""
    phone = size == "phone"
    context = new_context(
        browser,
        SIZES[size],
        color_scheme=theme,
        has_touch=phone,
        is_mobile=phone,
        device_scale_factor=2 if phone else 1,
    )
    try:
        page = context.new_page()
        STATES[state](page, scene)
        page.wait_for_timeout(SETTLE_MS)
        page.screenshot(path=target)
    finally:
        context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(STATES))
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--themes", default="dark,light")
    options = parser.parse_args()
    if ROOT in options.folder.resolve().parents:
        parser.error("the folder lies in the repository")
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as data, Scene(Path(data)) as scene, sync_playwright() as playwright:
        browser = launch(playwright)
        for state in options.only.split(","):
            for size in options.sizes.split(","):
                for theme in options.themes.split(","):
                    target = options.folder / f"{state}-{size}-{theme}.png"
                    try:
                        take(browser, scene, state, size, theme, target)
                        print(target)
                    except Error as error:
                        failed += 1
                        print(f"{target}: {error.message.splitlines()[0]}", file=sys.stderr)
        browser.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
