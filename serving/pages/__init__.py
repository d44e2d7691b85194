"""What a person sees of a served model: its page with a form, and its documentation to try on."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

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
# The same as on the pages of the edge (roles/edge/templates/page_head.j2).
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='7' fill='%230b5cad'/%3E"
    "%3Cpath d='M7 23V11l6 7 6-7v12M25 9v14' fill='none' stroke='%23fff' stroke-width='3' stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)
# Metrics that come first on the page; a model without any of them shows its own first ones.
HEADLINE = ("accuracy", "f1_macro", "log_loss", "roc_auc", "r2_score", "root_mean_squared_error", "mean_absolute_error")
SHOWN_METRICS = 4


def pages(information: ModelInformation, settings: Settings) -> Pages:
    """Every page and its parts. Links are relative: the edge shows them below /models/NAME/, a model's own port below /."""
    sources = files(__name__)
    facts = {
        "icon": ICON,
        "brand": _brand(settings),
        "facts": _facts(information, settings.mlflow_url.rstrip("/")),
        "title": escape(information.name),
    }
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


def _brand(settings: Settings) -> str:
    """The product's name; behind the edge it leads to all models."""
    name = f'<img src="{ICON}" alt="" width="24" height="24"> mlflow-anywhere'
    return (
        f'<p class="brand"><a href="/models">{name}: all models</a></p>'
        if settings.root_path
        else f'<p class="brand">{name}</p>'
    )


def _facts(information: ModelInformation, mlflow: str) -> str:
    """The model's facts as terms and descriptions."""
    alias = f" @ {information.alias}" if information.alias else ""
    rows: list[tuple[str, str]] = []
    named = [name for name in HEADLINE if name in information.metrics] or list(information.metrics)
    rows += [(name.replace("_", " "), f"{information.metrics[name]:.4g}") for name in named[:SHOWN_METRICS]]
    model = information.model or information.name
    page = f"{mlflow}/#/models/{quote(model, safe='')}/versions/{quote(information.version, safe='')}"
    registered = f'<a href="{escape(page)}">{escape(model)}</a>' if mlflow else escape(model)
    run = (
        f' <a href="{escape(f"{mlflow}/#/runs/{quote(information.run_id)}")}">training run</a>'
        if mlflow and information.run_id
        else ""
    )
    cells = [f"<div><dt>Registered model</dt><dd>{registered}{escape(alias)}{run}</dd></div>"]
    cells += [f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in rows]
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
    if not information.signature.columns and not information.signature.tensors:
        return "The model was logged without signature and example. Write a request, then press Predict."
    return "The model was logged without an example. The answer follows the fields."


def _data(information: ModelInformation, settings: Settings) -> dict[str, Any]:
    """What the script cannot read from the form."""
    return {
        "shape": image_shape(information),
        "example": plain(first_record(information)) if image_shape(information) else None,
        "params": bool(information.signature.params),
        "seconds": settings.timeout,
        "labels": information.labels,
    }


def _script_data(value: Any) -> str:
    """JSON that stays inside its script element, whatever text it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
