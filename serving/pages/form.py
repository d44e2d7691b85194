"""The form of the page: one labelled field per column, tensor and parameter, filled with the input example."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from serving.information import ModelInformation
from serving.protocols import first_record
from serving.schemas import image_shape, plain, row_shape, tensor_key
from serving.signature import Column, Param

# What <input type="datetime-local"> can show; other values are edited as text.
LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?")
# The side of the canvas in pixels of the screen; the style sheet scales it down on narrow ones.
CANVAS = 280
TITLES = {"integer": "whole number", "long": "whole number", "float": "number", "double": "number", "string": "text",
          "boolean": "yes or no", "binary": "base64", "datetime": "date and time", "any": "JSON"}  # fmt: skip


def form(information: ModelInformation) -> str:
    """All fields in the order of the signature; model parameters below."""
    signature = information.signature
    record = first_record(information) or {}
    if image_shape(information):
        fields = [_canvas(information)]
    elif signature.tensors:
        fields = [
            _tensor(f"field-{place}", tensor_key(tensor, information), row_shape(tensor, information),
                    record.get(tensor_key(tensor, information)))
            for place, tensor in enumerate(signature.tensors)
        ]  # fmt: skip
    elif signature.columns:
        fields = [
            _column(f"field-{place}", column, record.get(column.name)) for place, column in enumerate(signature.columns)
        ]
    else:
        fields = [_whole(information)]
    params = [_param(f"param-{place}", param) for place, param in enumerate(signature.params)]
    group = (
        f'<fieldset><legend>Parameters</legend><div class="fields">{"".join(params)}</div></fieldset>' if params else ""
    )
    return f'<div class="fields">{"".join(fields)}</div>{group}'


@dataclass(frozen=True)
class _Input:
    """A labelled control: what it is called, what it holds, and what the script must know of it."""

    ident: str
    name: str
    kind: str
    note: str
    value: Any = None
    # The script sends a required field even if it is empty, and an optional one only if it is not.
    required: bool = False
    group: str = "record"

    @property
    def text(self) -> str:
        return "" if self.value is None else str(self.value)

    @property
    def attributes(self) -> str:
        return (
            f'id="{self.ident}" data-name="{escape(self.name)}" data-type="{self.kind}" data-group="{self.group}" '
            f'aria-describedby="{self.ident}-error"' + (' data-required=""' if self.required else "")
        )

    def field(self) -> str:
        """The label, the control that fits the type, and a place for what is wrong with it."""
        wide = " wide" if self.kind in {"any", "body"} or "\n" in self.text else ""
        return (
            f'<div class="field{wide}"><label for="{self.ident}">{escape(self.name)} <small>{escape(self.note)}</small></label>'
            f'{self.control()}<p class="error" id="{self.ident}-error" role="alert"></p></div>'
        )

    def control(self) -> str:
        if self.kind == "boolean":
            return self.checkbox() if self.required else self.select()
        if self.kind in {"any", "body"} or "\n" in self.text:
            return self.area()
        kind, more = "text", ' autocomplete="off"'
        if self.kind in {"integer", "long"}:
            kind, more = "number", ' step="1" inputmode="numeric"'
        elif self.kind in {"float", "double"}:
            kind, more = "number", ' step="any" inputmode="decimal"'
        elif self.kind == "datetime" and (not self.text or LOCAL_TIME.fullmatch(self.text)):
            kind, more = "datetime-local", ' step="any"'
        return f'<input type="{kind}"{more} {self.attributes} value="{escape(self.text)}">'

    def checkbox(self) -> str:
        return f'<input type="checkbox" {self.attributes}{" checked" if self.value is True else ""}>'

    def select(self) -> str:
        """Three states: not given is none of the two others."""
        states = (("", "not given", None), ("true", "yes", True), ("false", "no", False))
        options = (
            f'<option value="{option}"{" selected" if self.value is state else ""}>{label}</option>'
            for option, label, state in states
        )
        return f"<select {self.attributes}>{''.join(options)}</select>"

    def area(self) -> str:
        shown = self.value
        if self.kind in {"any", "body"} and shown is not None:
            shown = json.dumps(shown, ensure_ascii=False, indent=1 if self.kind == "body" else None)
        rows = 10 if self.kind == "body" else 4
        # The first line break of a textarea is not part of its text.
        return f'<textarea rows="{rows}" spellcheck="false" {self.attributes}>\n{escape(shown or "")}</textarea>'


def _column(ident: str, column: Column, value: Any) -> str:
    """The field of a column; null and absent are the same for it."""
    note = TITLES[column.type] + ("" if column.required else ", may be empty")
    return _Input(ident, column.name, column.type, note, plain(value), column.required).field()


def _param(ident: str, param: Param) -> str:
    """The field of a parameter: empty means its default."""
    default = plain(param.default)
    shown = default if isinstance(default, str) else json.dumps(default)
    kind = "any" if param.shape else param.type
    note = f"{TITLES[param.type]}{' list' if param.shape else ''}, default {shown}"
    return _Input(ident, param.name, kind, note, group="params").field()


def _tensor(ident: str, name: str, shape: tuple[int, ...], value: Any) -> str:
    """A tensor as JSON text."""
    sizes = " x ".join("n" if size < 0 else str(size) for size in shape) or "one value"
    return _Input(ident, name, "any", f"JSON list, {sizes}", plain(value), required=True).field()


def _whole(information: ModelInformation) -> str:
    """The whole body, where no signature says what is in it."""
    example = None if information.predict_example is None else plain(information.predict_example)
    return _Input("field-0", "Request", "body", "JSON: one record or a list of records", example, required=True).field()


def _canvas(information: ModelInformation) -> str:
    """Something to draw on, and the picture that the model gets of it."""
    height, width = image_shape(information) or (0, 0)
    wide, high = (
        (CANVAS, round(CANVAS * height / width)) if width >= height else (round(CANVAS * width / height), CANVAS)
    )
    name = escape(tensor_key(information.signature.tensors[0], information))
    return f"""
<div class="drawing wide">
<div class="field"><p class="caption">{name} <small>draw here</small></p>
<canvas id="field-0" width="{wide}" height="{high}" tabindex="0" role="application" data-name="{name}" data-type="image" data-group="record"
 aria-label="{name}: drawing area. Arrow keys move the pen, the space bar puts it down and lifts it." aria-describedby="field-0-error"></canvas>
<p class="error" id="field-0-error" role="alert"></p></div>
<div class="field small"><p class="caption" id="seen-label">What the model sees <small>{width} x {height}</small></p>
<canvas id="seen" width="{width}" height="{height}" role="img" aria-labelledby="seen-label"></canvas>
<div class="buttons"><button type="button" id="clear">Clear</button> <button type="button" id="example" hidden>Example</button></div></div>
</div>"""
