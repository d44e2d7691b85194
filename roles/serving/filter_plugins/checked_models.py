"""Filter `checked_models`: what the registry says of the models, checked, as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What an MLmodel may be: MLflow writes none that is near to it.
DEEPEST = 24
MOST_NODES = 50_000
LONGEST_SIGNATURE = 1024 * 1024
MOST_COLUMNS = 20_000
SHOWN = 80
MOST_SHOWN = 3
# As an entry of served_models may have.
MOST_LABELS = 100
LABEL_LENGTH = 80
NULLS = ("", "~", "null", "Null", "NULL")

PYTHON_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}[a-z0-9.+]{0,16}", re.ASCII)
FLAVOR = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

# What each flavor may say for a model that is loaded without unpickling anything or running code of its own. Whatever else one says
# counts as code.
WORD = re.compile(r"[A-Za-z0-9_.:-]{0,64}", re.ASCII)
# A type that the loader of skops may be told to accept: a class of a library that the runtime brings.
TRUSTED = re.compile(
    r"(sklearn|xgboost|lightgbm)(\.\w+)*\.[A-Z]\w*|numpy\.(dtype|ndarray|[a-z]+\d+)|collections\.OrderedDict", re.ASCII
)
BOOSTER = "lightgbm.basic.Booster"
# A file in the model's own directory.
FILE = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}"
NEVER = re.compile(r"(?!)")
SKOPS = {"serialization_format": WORD, "code": NEVER, "skops_trusted_types": TRUSTED}
FORMS: dict[str, dict[str, re.Pattern[str]]] = {
    "sklearn": SKOPS | {"pickled_model": re.compile(FILE + r"\.skops"), "sklearn_version": WORD},
    "xgboost": {
        "code": NEVER,
        "data": re.compile(FILE + r"\.(ubj|json|xgb)"),
        "model_class": re.compile(r"xgboost\.(core\.Booster|sklearn\.XGB\w+)", re.ASCII),
        "model_format": re.compile("ubj|json|xgb"),
        "xgb_version": WORD,
    },
    "lightgbm": SKOPS
    | {
        "data": re.compile(FILE + r"\.(lgb|txt|skops)"),
        "model_class": re.compile(r"lightgbm\.(basic\.Booster|sklearn\.LGBM\w+)", re.ASCII),
        "lgb_version": WORD,
    },
    "onnx": {
        "code": NEVER,
        "data": re.compile(FILE + r"\.onnx"),
        "onnx_version": WORD,
        "providers": WORD,
        "onnx_session_options": NEVER,
    },
}
PYFUNC = {
    "loader_module": re.compile("|".join(rf"mlflow\.{name}" for name in FORMS)),
    "data": re.compile(FILE),
    "model_path": re.compile(FILE),
    "predict_fn": WORD,
    "python_version": WORD,
    "code": NEVER,
    "config": NEVER,
}


class ModelError(Exception):
    """The file MLmodel cannot be used; the message says why."""


def shown(value: object) -> str:
    """A value as an error message shows it."""
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


class Reader:
    """Reads YAML as mappings, lists and texts: no anchors, aliases, tags, merges or second documents, and bounded in depth and size."""

    def __init__(self, text: str) -> None:
        self.events = yaml.parse(text.encode(), Loader=Loader)
        self.nodes = 0

    def document(self) -> Any:
        """The only document of the text."""
        for kind in (yaml.StreamStartEvent, yaml.DocumentStartEvent):
            if not isinstance(next(self.events), kind):
                raise ModelError("it is empty")
        value = self.value(next(self.events), 1)
        next(self.events)
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            raise ModelError("it has more than one document")
        return value

    def value(self, event: Any, depth: int) -> Any:
        """The value that begins with this event; null is None, all other scalars are texts."""
        self.nodes += 1
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ModelError(f"{where} has an anchor or an alias, which MLflow never writes")
        if event.tag is not None:
            raise ModelError(f"{where} has the tag {shown(event.tag)}, which MLflow never writes")
        if depth > DEEPEST or self.nodes > MOST_NODES:
            raise ModelError(f"{where}: it is deeper than {DEEPEST} or has more than {MOST_NODES} values")
        if isinstance(event, yaml.ScalarEvent):
            return None if event.implicit[0] and event.value in NULLS else str(event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return list(self.items(yaml.SequenceEndEvent, depth))
        items = list(self.items(yaml.MappingEndEvent, depth))
        mapping: dict[str, Any] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) or key in mapping or key == "<<":
                raise ModelError(f"{where}: the key {shown(key)} is no text, there twice or a merge")
            mapping[key] = value
        return mapping

    def items(self, end: type, depth: int) -> Iterable[Any]:
        """The values up to the event that ends their collection."""
        while not isinstance(event := next(self.events), end):
            yield self.value(event, depth + 1)


def mapping_of(value: object, what: str) -> dict[str, Any]:
    """The value, if it is a mapping."""
    if not isinstance(value, dict):
        raise ModelError(f"{what} is {shown(value)}, which is no mapping")
    return value


def signature_of(value: object) -> dict[str, Any] | None:
    """The signature with its inputs, outputs and parameters, each None or a list of mappings that have a type."""
    if value is None:
        return None
    texts = mapping_of(value, "signature")
    return {key: columns(texts.get(key), f"signature.{key}") for key in ("inputs", "outputs", "params")}


def columns(text: object, what: str) -> list[dict[str, Any]] | None:
    """The columns of one part of a signature."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > LONGEST_SIGNATURE:
        raise ModelError(f"{what} is {shown(text)}, which is no text or longer than {LONGEST_SIGNATURE}")
    try:
        found = json.loads(text, parse_constant=lambda _: None)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what} is {shown(text)}, which is no JSON: {error}") from None
    if found is None:
        return None
    if not isinstance(found, list) or len(found) > MOST_COLUMNS or deep(found, DEEPEST):
        raise ModelError(
            f"{what} is {shown(text)}, which is no list, or longer than {MOST_COLUMNS}, or deeper than {DEEPEST}"
        )
    for column in found:
        if not isinstance(column, dict) or not isinstance(column.get("type"), str):
            raise ModelError(f"{what} holds {shown(column)}, which is no mapping with a type")
        if not isinstance(column.get("name", ""), str | None):
            raise ModelError(f"{what} holds a column whose name is {shown(column['name'])}, which is no text")
    return found


def deep(value: object, left: int) -> bool:
    """Whether values lie in more than so many collections."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left == 0 or any(deep(item, left - 1) for item in inner)


def fits(value: object, form: re.Pattern[str]) -> bool:
    """Whether a value, or all texts in a list, have the form; nothing at all has every form."""
    if isinstance(value, list):
        return all(isinstance(item, str) and form.fullmatch(item) for item in value)
    return value in (None, {}) or (isinstance(value, str) and bool(form.fullmatch(value)))


def code_of(flavors: Mapping[str, dict[str, Any]]) -> list[str]:
    """What of the flavors makes loading the model unpickle something or run code of its own."""
    pyfunc = flavors.get("python_function", {})
    loader = str(pyfunc.get("loader_module"))
    reasons = [] if loader.removeprefix("mlflow.") in flavors else [f"python_function.loader_module: {shown(loader)}"]
    # Without this format a loader takes the model for a pickle.
    reasons += [
        f"{name}.serialization_format: {shown(flavor.get('serialization_format'))}"
        for name, flavor in flavors.items()
        if FORMS.get(name, {}).get("serialization_format")
        and flavor.get("serialization_format") != "skops"
        # LightGBM's own models are text, and have no format; null is not its default.
        and not (name == "lightgbm" and flavor.get("model_class", BOOSTER) == BOOSTER)
    ]
    for name, flavor in flavors.items():
        forms = PYFUNC if name == "python_function" else FORMS.get(name)
        if forms is None:
            reasons.append(f"the flavor {name}")
            continue
        reasons += [
            f"{name}.{key}: {shown(value)}"
            for key, value in flavor.items()
            if (name, key) != ("python_function", "env") and not fits(value, forms.get(key, NEVER))
        ]
    return reasons


def labels_of(metadata: object) -> dict[str, str]:
    """What people call the classes: `labels` of the metadata, a mapping or a list for the classes 0, 1 and so on. Those that no page can show are none."""
    found = metadata.get("labels") if isinstance(metadata, dict) else None
    named = {str(place): text for place, text in enumerate(found)} if isinstance(found, list) else found
    if not isinstance(named, dict) or len(named) > MOST_LABELS:
        return {}
    fit = all(isinstance(text, str) and 0 < len(text) <= LABEL_LENGTH for text in (*named, *named.values()))
    return named if fit else {}


def mlmodel_facts(text: str) -> dict[str, Any]:
    """Python version, signature, labels, names of the flavors, what makes the model code or bytecode, of the text of an MLmodel. Raises ModelError."""
    try:
        document = mapping_of(Reader(text).document(), "it")
        # Not every text of YAML is one that can be written again.
        json.dumps(document, ensure_ascii=False).encode()
    except (yaml.YAMLError, ValueError) as error:
        raise ModelError(" ".join(str(error).split())) from None
    flavors = {
        name: mapping_of(flavor, f"flavors.{shown(name)}")
        for name, flavor in mapping_of(document.get("flavors"), "flavors").items()
    }
    for name in flavors:
        if not FLAVOR.fullmatch(name):
            raise ModelError(f"flavors has the key {shown(name)}, which names no flavor")
    if "python_function" not in flavors:
        raise ModelError("flavors has no python_function, which is what is served")
    python = flavors["python_function"].get("python_version")
    if python is not None and not (isinstance(python, str) and PYTHON_VERSION.fullmatch(python)):
        raise ModelError(f"flavors.python_function.python_version is {shown(python)}, which is no version of Python")
    return {
        "python": python or "",
        "signature": signature_of(document.get("signature")),
        "labels": labels_of(document.get("metadata")),
        "flavors": sorted(flavors),
        "code": code_of(flavors),
        # The bytecode of a class that cloudpickle took along is read by the same Python alone; by another one it ends the process.
        "bytecode": flavors["python_function"].get("python_model") is not None,
    }


def allowed(wanted: Mapping[str, Any], version: str, *, default: bool) -> bool:
    """Whether the inventory lets this version be unpickled."""
    said = wanted["allow_pickle"]
    if said is None:
        return default
    return bool(said) if isinstance(said, bool) else version in said


def checked_model(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, allow_pickle: bool, python: str
) -> dict[str, Any]:
    """What is known of one version, complete whatever is wrong with it; the text of its MLmodel is no part of it."""
    nothing: dict[str, Any] = {
        "run_id": "", "source": "", "artifact_uri": "", "metrics": {}, "requirements": [], "input_example": None, "sha256": "",
        "python": "", "python_differs": False, "signature": None, "labels": {}, "flavors": [], "pickle": True,
    }  # fmt: skip
    model = nothing | {key: value for key, value in found.items() if key not in ("mlmodel", "code_files")}
    if model["problem"] or not model["found"]:
        return model
    what = f"version {model['version']} of {model['model']} (alias {wanted['alias']})"
    try:
        facts = mlmodel_facts(found["mlmodel"])
    except ModelError as error:
        return model | {
            "problem": f"The file MLmodel of {what} cannot be used: {error}. Log the model again with MLflow, or set the alias to another version."
        }
    # Of another first or second number, and so with another bytecode.
    facts["python_differs"] = facts["python"] != "" and facts["python"].split(".")[:2] != python.split(".")[:2]
    if facts.pop("bytecode") and facts["python_differs"]:
        return model | {
            "problem": f"{what} was logged by Python {facts['python']} as a pickled class (python_function.python_model), which only the same Python "
            f"can load; models are served by Python {python}. Log it by Python {python}, or as models from code: "
            "mlflow.pyfunc.log_model(python_model='file.py'), which any Python loads."
        }
    code = [*(f"the file {shown(name)}" for name in found["code_files"]), *facts.pop("code")]
    model |= facts | {"pickle": bool(code)}
    if code and not allowed(wanted, model["version"], default=allow_pickle):
        more = f" and {len(code) - MOST_SHOWN} more" if len(code) > MOST_SHOWN else ""
        model["problem"] = (
            f"{what} holds what may be a pickle or other code, which runs when the model is loaded: {', '.join(code[:MOST_SHOWN])}{more}. Log the model "
            f"in a form without (skops, ONNX, XGBoost's JSON, LightGBM's text), or, if you trust who logged it, set allow_pickle: "
            f'["{model["version"]}"] in the entry {wanted["name"]} of served_models.'
        )
    return model


def checked_models(
    versions: list[Mapping[str, Any]], wanted: list[Mapping[str, Any]], *, allow_pickle: bool, python: str
) -> list[dict[str, Any]]:
    """What the registry says of every model that is wanted; `problem` says why one must not be served."""
    return [
        checked_model(found, entry, allow_pickle=allow_pickle, python=python)
        for entry, found in zip(wanted, versions, strict=True)
    ]


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {"checked_models": checked_models}
