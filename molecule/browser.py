"""A headless browser that tests drive as a person would: it opens pages, draws, types, and says what the page complained about."""

from __future__ import annotations

import base64
import json
import selectors
import subprocess
import time
from pathlib import Path
from typing import IO, Any, Self

from pace import too_late

IMAGE = "ma-instance/browser:13"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --disable-background-networking "
    "--disable-component-update --disable-dev-shm-usage --user-data-dir=/tmp/browser --remote-debugging-pipe about:blank"
)
# The browser speaks its protocol on descriptors 3 and 4; a container has only the first three.
SCRIPT = f"exec chromium {FLAGS} 3<&0 4>&1 1>&2"
ANSWER_SECONDS = 30

Point = tuple[float, float]


def in_instance(name: str) -> list[str]:
    """The command of a browser on the network of a test instance."""
    network = f"container:{name}"
    return ["docker", "run", "--rm", "--interactive", "--network", network, "--entrypoint", "sh", IMAGE, "-c", SCRIPT]


class Browser:
    """One browser with one page; ``complaints`` collects errors of scripts, of loading, and of the page's own policy."""

    def __init__(self, command: list[str]) -> None:
        """Take the command that starts the browser with its protocol on standard input and output."""
        self.command = command
        self.complaints: list[str] = []
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        # Requests for data under way: number -> address. Of scripts of workers the end is told elsewhere.
        self._loading: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._output, selectors.EVENT_READ)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._ready.close()
        self._output.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one call of the browser's protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._input.write(json.dumps(message).encode() + b"\0")
        self._input.flush()
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            found = self._receive(deadline, method)
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self._note(found.get("method", ""), found.get("params", {}))

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready = self._ready.select(max(0, deadline - time.monotonic()))
            assert ready, f"no answer to {method} within {ANSWER_SECONDS} s"
            chunk = self._output.read1(1 << 20)  # type: ignore[attr-defined]
            assert chunk, f"the browser ended before it answered {method}"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            entry = params["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".rstrip())
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(f"console: {params['args']}")
        elif event == "Network.requestWillBeSent" and params.get("type") in {"Document", "XHR", "Fetch"}:
            self._loading[params["requestId"]] = params["request"]["url"]
        elif event in {"Network.loadingFinished", "Network.loadingFailed"}:
            self._loading.pop(params["requestId"], None)

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        result = self.call("Page.navigate", url=url)
        assert "errorText" not in result, f"{url}: {result['errorText']}"
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 20) -> Any:
        """Wait until an expression is true in the page, as an element is; return its value."""
        expression = f"(found => found instanceof Node || found)({expression})"
        began = time.monotonic()
        while not (value := self.evaluate(expression)):
            assert not too_late(began, seconds), (
                f"not within {seconds} s: {expression}\n{self.text('body')}\n{self.complaints}"
            )
            time.sleep(0.05)
        return value

    def quiet(self, seconds: float = 0.5, limit: float = 30) -> None:
        """Wait until the page has asked for nothing for some time."""
        began = last = time.monotonic()
        while time.monotonic() - last < seconds:
            assert not too_late(began, limit), f"not within {limit} s: {sorted(self._loading.values())}"
            self.evaluate("1")
            if self._loading:
                last = time.monotonic()
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """The text of an element as a person sees it."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def draw(self, selector: str, *strokes: list[Point], touch: bool = False) -> None:
        """Draw lines with the mouse or a finger; coordinates are shares of the element's width and height."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView(); const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height] }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for stroke in strokes:
            points = [{"x": box[0] + x * box[2], "y": box[1] + y * box[3]} for x, y in stroke]
            if touch:
                for number, point in enumerate(points):
                    self.call(
                        "Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=[point]
                    )
                self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
                continue
            kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1)]
            for kind, point in zip(kinds, points, strict=True):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **point)
            self.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", clickCount=1, **points[-1])

    def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code="Space" if key == " " else key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code="Space" if key == " " else key)

    def fill(self, selector: str, value: str) -> None:
        """Type into a field in place of what is there."""
        self.evaluate(f"(e => {{ e.focus(); e.select() }})(document.querySelector({json.dumps(selector)}))")
        if value:
            self.call("Input.insertText", text=value)
        else:
            self.call(
                "Input.dispatchKeyEvent", type="keyDown", key="Backspace", code="Backspace", windowsVirtualKeyCode=8
            )

    def screen(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the window and what the person prefers, light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))
