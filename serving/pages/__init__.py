"""What a person sees of a served model: its page with a form, and its documentation to try on."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from serving.information import ModelInformation
from serving.pages.form import form
from serving.protocols import first_record
from serving.schemas import image_shape, plain
from serving.settings import Settings

# Path -> content type, body, headers.
Pages = dict[str, tuple[str, bytes, dict[str, str]]]

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": CSP, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
HTML = "text/html; charset=utf-8"
# Path -> content type and the files that make it up.
ASSETS = {
    "/page.css": ("text/css; charset=utf-8", ("page.css",)),
    "/page.js": ("text/javascript; charset=utf-8", ("element.js", "answer.js", "drawing.js", "page.js")),
    "/docs.js": ("text/javascript; charset=utf-8", ("element.js", "schema.js", "docs.js")),
}
# Metrics that come first on the page; a model without any of them shows its own first ones.
HEADLINE = ("accuracy", "f1_macro", "log_loss", "roc_auc", "r2_score", "root_mean_squared_error", "mean_absolute_error")
SHOWN_METRICS = 4


def pages(information: ModelInformation, settings: Settings) -> Pages:
    """Every page and its parts. Links are relative: the edge shows them below /models/NAME/, a model's own port below /."""
    sources = files(__name__)
    facts = {"name": escape(information.name), "facts": _facts(information), "title": escape(information.name)}
    page = Template(sources.joinpath("page.html").read_text("utf-8")).substitute(
        facts,
        form=form(information),
        data=_script_data(_data(information, settings)),
        hint=_hint(information),
    )
    docs = Template(sources.joinpath("docs.html").read_text("utf-8")).substitute(facts)
    found: Pages = {
        # What a cache keeps of / depends on who asked: programs get JSON there.
        "/": (HTML, page.encode(), {**HEADERS, "vary": "accept"}),
        "/docs": (HTML, docs.encode(), HEADERS),
    }
    for path, (kind, names) in ASSETS.items():
        found[path] = (kind, b"".join(sources.joinpath(name).read_bytes() for name in names), HEADERS)
    return found


def _facts(information: ModelInformation) -> str:
    """The model's facts as terms and descriptions."""
    alias = f" @ {information.alias}" if information.alias else ""
    rows = [("Registered model", f"{information.model or information.name}{alias}")]
    named = [name for name in HEADLINE if name in information.metrics] or list(information.metrics)
    rows += [(name, f"{information.metrics[name]:.4g}") for name in named[:SHOWN_METRICS]]
    cells = [f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in rows]
    reason = f": {information.predictor_reason}" if information.predictor_reason else ""
    way = escape(f"the {information.predictor} model{reason}")
    cells.append(f'<div class="wide"><dt>Predicts with</dt><dd>{way}</dd></div>')
    if information.pickle:
        cells.append(
            '<div class="wide"><dt>Loaded from</dt><dd>a pickle or other code: whoever logged it decides what runs</dd></div>'
        )
    state = f'<p class="state"><span class="live">version {escape(information.version or "none")}</span></p>'
    heading = f'<div class="title"><h1>{escape(information.name)}</h1>{state}</div>'
    return f"{heading}<dl>{''.join(cells)}</dl>"


def _hint(information: ModelInformation) -> str:
    if image_shape(information):
        return "Draw with mouse, pen or finger. The answer follows the drawing."
    if information.predict_example is not None:
        return "Filled with the example that the model was logged with. The answer follows the fields."
    return "The model was logged without an example. The answer follows the fields."


def _data(information: ModelInformation, settings: Settings) -> dict[str, Any]:
    """What the script cannot read from the form."""
    return {
        "shape": image_shape(information),
        "example": plain(first_record(information)) if image_shape(information) else None,
        "params": bool(information.signature.params),
        "seconds": settings.timeout,
    }


def _script_data(value: Any) -> str:
    """JSON that stays inside its script element, whatever text it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
