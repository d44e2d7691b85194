"""The page of a model as a person uses it in a browser: draw a digit, change a flower, read the answer."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from browser import Browser, Point, in_instance
from instance import Instance

MODELS = "http://localhost:8000/models"
# Shares of the canvas's width and height.
ZERO: list[Point] = [(0.5, 0.15), (0.35, 0.2), (0.27, 0.35), (0.25, 0.5), (0.28, 0.7), (0.38, 0.85), (0.5, 0.88),
                     (0.64, 0.83), (0.73, 0.68), (0.75, 0.5), (0.73, 0.32), (0.63, 0.19), (0.5, 0.15)]  # fmt: skip
ONE: list[Point] = [(0.52, 0.12), (0.5, 0.5), (0.48, 0.88)]
SEVEN: list[Point] = [(0.25, 0.2), (0.45, 0.2), (0.75, 0.2), (0.65, 0.42), (0.55, 0.62), (0.47, 0.9)]
# Small and in a corner: the page has to enlarge and centre it.
SMALL_SEVEN: list[Point] = [(0.05 + x * 0.3, 0.05 + y * 0.3) for x, y in SEVEN]
# The pages keep their origin, which a browser needs to send a key, and what they may ask is named path by path: this hint is about frames without that.
HINT = "allow-scripts and allow-same-origin"
RESULT = "document.querySelector('#answer:not([aria-busy]) .result')?.textContent"


def complaints(browser: Browser) -> list[str]:
    """What the browser found fault with."""
    return [complaint for complaint in browser.complaints if HINT not in complaint]


@pytest.fixture
def browser(instance: Instance) -> Generator[Browser]:
    """A browser on the instance; a test that used it must have left no complaint."""
    with Browser(in_instance(instance.name)) as found:
        found.screen(1000, 900)
        yield found


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
@pytest.mark.parametrize(
    ("strokes", "digit"), [(ZERO, "0"), (ONE, "1"), (SEVEN, "7"), (SMALL_SEVEN, "7")], ids=["0", "1", "7", "small 7"]
)
def test_a_drawn_digit_is_read(browser: Browser, strokes: list[Point], digit: str, touch: bool) -> None:
    browser.open(f"{MODELS}/digits/")
    browser.until(RESULT)
    browser.evaluate("document.querySelector('#clear').click()")
    browser.until("document.querySelector('#answer').textContent === 'Nothing is drawn yet.'")
    browser.draw("#field-0", strokes, touch=touch)
    browser.until(f"{RESULT} === '{digit}'")
    bars = browser.evaluate(
        "[...document.querySelectorAll('.bars tr')].map(row => [row.cells[0].textContent, row.className])"
    )
    assert [name for name, _ in bars] == list("0123456789")
    assert [name for name, kind in bars if kind == "chosen"] == [digit]
    assert complaints(browser) == []


def test_a_digit_is_drawn_with_the_keyboard(browser: Browser) -> None:
    browser.open(f"{MODELS}/digits/")
    browser.until(RESULT)
    browser.evaluate("document.querySelector('#clear').click(); document.querySelector('#field-0').focus()")
    browser.press("ArrowUp", 9)
    browser.press(" ")
    browser.press("ArrowDown", 18)
    browser.until(f"{RESULT} === '1'")
    assert complaints(browser) == []


def test_the_form_of_columns_answers_at_once_and_says_which_field_is_wrong(browser: Browser) -> None:
    browser.open(f"{MODELS}/flowers/")
    assert browser.until(RESULT) in {"setosa (0)", "versicolor (1)", "virginica (2)"}
    for place, value in enumerate(("6.3", "3.3", "6.0", "2.5")):
        browser.fill(f"#field-{place}", value)
    browser.until(f"{RESULT} === 'virginica (2)'")
    assert complaints(browser) == []
    browser.fill("#field-1", "")
    assert "required" in browser.until("document.querySelector('#field-1-error').textContent")
    assert browser.evaluate("document.querySelectorAll('[aria-invalid]').length") == 1
    # The browser itself notes the refused request, and nothing else.
    assert [complaint for complaint in complaints(browser) if "422" not in complaint] == []


def test_the_command_line_of_the_page_gives_the_same_answer(instance: Instance, browser: Browser) -> None:
    browser.open(f"{MODELS}/flowers/")
    result = browser.until(RESULT)
    command = browser.text("#curl")
    assert command.startswith(f"curl '{MODELS}/flowers/predict'")
    body = browser.evaluate("request().body")
    assert command.endswith(f"-d '{body}'")
    answer = instance.http(f"{MODELS}/flowers/predict", body, headers={"Content-Type": "application/json"})
    assert f"{answer.json()['label']} ({answer.json()['prediction']})" == result


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["flowers/", "digits/", "flowers/docs"])
def test_pages_fit_on_a_small_screen(browser: Browser, path: str, scheme: str) -> None:
    browser.screen(320, 640, scheme)
    browser.open(f"{MODELS}/{path}")
    browser.until("document.querySelector('.result, details.operation')")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 320
    assert complaints(browser) == []


def test_the_documentation_sends_a_request(browser: Browser) -> None:
    browser.open(f"{MODELS}/flowers/docs")
    browser.until("document.querySelector('#predict form button')")
    browser.evaluate("document.querySelector('#predict form button').click()")
    assert str(browser.until("document.querySelector('#predict .status')?.textContent")).startswith("200 ")
    assert '"prediction"' in browser.text("#predict .tried")
    assert complaints(browser) == []


def test_the_index_leads_to_the_page(browser: Browser) -> None:
    browser.open("http://localhost:8000/models")
    browser.evaluate("document.querySelector('h2 a[href=\"/models/flowers/\"]').click()")
    browser.until(RESULT)
    assert browser.evaluate("location.pathname") == "/models/flowers/"
