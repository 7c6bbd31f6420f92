"""The browser of this machine, driven by Playwright."""

import os
import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = "no Chromium: install the package chromium, or name its program in FSCLAP_CHROMIUM"


def find() -> str | None:
    """The program of a Chromium, if there is one."""
    return os.environ.get("FSCLAP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright: Playwright) -> Browser:
    """Start it, without a window.

    Raises:
        RuntimeError: There is none.
    """
    program = find()
    if program is None:
        raise RuntimeError(MISSING)
    # Its sandbox can't be had as root, and a container has little shared memory.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=program, args=[*root, "--disable-dev-shm-usage", "--mute-audio"])
