"""A headless Chromium, driven over a pipe by its own DevTools protocol; tests that need one skip where none is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT = 60  # seconds for one answer; a loaded machine is slow to start it


def program() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page. `said` has what it wrote to the console, errors, and requests to the network."""

    def __init__(self, process: subprocess.Popen[bytes], into: int, out: int) -> None:
        self._process, self._into, self._out = process, into, out
        self._last, self._buffer, self._session = 0, b"", None
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], TIMEOUT)
            assert ready, "the browser does not answer"
            part = os.read(self._out, 2**20)
            assert part, "the browser is gone"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(line)
        self._note(event)
        return dict(event)

    def _note(self, event: dict[str, Any]) -> None:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.said.append(f"console: {about['args']}")
        elif method == "Runtime.exceptionThrown":
            self.said.append(f"exception: {about['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.said.append(f"log: {about['entry']['text']}")
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(
            ("data:", "file:")
        ):
            self.said.append(f"request: {about['request']['url']}")

    def open(self, page: Path, width: int, height: int = 800) -> None:
        """Shows a file in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=page.absolute().as_uri())
        end = time.monotonic() + TIMEOUT
        while self.ask("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.02)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str, place: int = 0) -> None:
        """A click with the mouse into the middle of an element."""
        x, y = self.middle(selector, place)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def point(self, selector: str, place: int = 0) -> None:
        """The mouse over the middle of an element."""
        x, y = self.middle(selector, place)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def middle(self, selector: str, place: int = 0) -> tuple[float, float]:
        """Where an element is, scrolled into sight."""
        box = self.ask(
            f"(() => {{ const e = document.querySelectorAll({json.dumps(selector)})[{place}];"
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """What is to be seen as a PNG file; the whole page rather than the window."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return (
            {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
            if whole
            else {}
        )

    def pdf(self) -> bytes:
        """The page as it is printed, on A4."""
        return base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser of its own, with an empty page.

    Args:
        profile: an empty folder for its files.
    """
    found = program()
    if found is None:
        pytest.skip("no Chromium on this machine")
    theirs_in, into = os.pipe()
    out, theirs_out = os.pipe()

    def pipes() -> None:  # the browser reads commands from descriptor 3 and answers on 4
        first, second = os.dup(theirs_in), os.dup(theirs_out)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [
            found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=pipes, close_fds=False,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Tab(process, into, out)
    finally:
        os.close(into)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(out)
