"""A headless Chromium, driven over the WebDriver protocol by the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dschat.runtime.rendezvous import free_port

START_SECONDS = 30


@dataclass(frozen=True)
class Browser:
    """One window."""

    session: str
    """URL of the WebDriver session."""

    def open(self, path: Path) -> None:
        """Load a local page and wait for its scripts."""
        _call("POST", f"{self.session}/url", {"url": path.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """The value that a JavaScript function body returns."""
        return _call("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def screenshot(self, path: Path) -> Path:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(_call("GET", f"{self.session}/screenshot")))
        return path

    def console_errors(self) -> list[str]:
        """Errors that the page's scripts and its security policy reported."""
        entries = _call("POST", f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextmanager
def open_browser(*, width: int = 1280, height: int = 1600) -> Iterator[Browser]:
    """Start Chromium; the test is skipped where it is not installed."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    port = free_port()
    process = subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    root = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(root)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"binary": chromium, "args": [*arguments, f"--window-size={width},{height}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = _call("POST", f"{root}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{root}/session/{started['sessionId']}"
        yield Browser(session)
        _call("DELETE", session)
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(root: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if _call("GET", f"{root}/status")["ready"]:
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise TimeoutError("chromedriver did not start")


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["value"]
