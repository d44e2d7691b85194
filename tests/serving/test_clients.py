"""The Open Inference Protocol as others write it: KServe's client, and the forms that MLServer's documentation and codecs send."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import small
from bench.live import Live
from bench.machine import CACHE
from bench.serving import environments

CLIENTS = Path(__file__).with_name("clients")
FLOWER = list(small.FLOWER.values())
PICTURE = [float(place % 256) for place in range(small.SIDE**2)]
WORDS = [dict(small.RECORD, word="Joanne", count=34), dict(small.RECORD, word="Michael", count=22)]
TYPES = {"word": "BYTES", "when": "BYTES", "flag": "BOOL", "count": "INT32", "big": "INT64", "share": "FP32", "size": "FP64", "blob": "BYTES",
         "note": "BYTES"}  # fmt: skip
DTYPES = {"BYTES": "object", "BOOL": "bool", "INT32": "int32", "INT64": "int64", "FP32": "float32", "FP64": "float64"}


def infer(live: Live, name: str, **document: Any) -> Any:
    with live.connect() as connection:
        reply = connection.post(document, f"/v2/models/{name}/infer")
        assert reply.status == 200, reply.body
        answer = reply.json()
        assert (answer["model_name"], answer["model_version"]) == (name, "3")
        return {output["name"]: output["data"] for output in answer["outputs"]}


def predicted(live: Live, body: Any) -> list[Any]:
    """What /predict says of the same rows."""
    with live.connect() as connection:
        return [item["prediction"] for item in connection.post(body, "/predict").json()["predictions"]]


@pytest.fixture(scope="module")
def kserve() -> Path:
    """The Python that has KServe's client."""
    environments.install(CACHE / "kserve", CLIENTS / "kserve.txt", lambda _: None)
    return CACHE / "kserve" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="kserve excludes Python 3.14")
def test_kserves_client(lives: dict[str, Live], kserve: Path) -> None:
    def question(name: str, *inputs: dict[str, Any], binary: bool, **more: Any) -> dict[str, Any]:
        return {"url": lives[name].url, "model": name, "inputs": inputs, "binary": binary, **more}

    flower = {"name": "rows", "datatype": "FP64", "dtype": "float64", "data": [FLOWER]}
    picture = {"name": "image", "datatype": "FP32", "dtype": "float32", "data": [PICTURE] * 2}
    words = [
        {"name": key, "datatype": kind, "dtype": DTYPES[kind], "data": [row[key] for row in WORDS]}
        for key, kind in TYPES.items()
    ]
    asked = []
    # Binary tensors are what the client sends unless it is told otherwise.
    for binary in (False, True):
        asked += [
            question(small.IRIS, flower, binary=binary, outputs=["predict", "predict_proba"]),
            question(small.DIGITS, picture, binary=binary),
            question(small.MIXED, *words, binary=binary, parameters={"factor": 2.0}),
            question(small.IRIS, {**flower, "data": [FLOWER[:3]]}, binary=binary),
        ]
    half = {"name": "image", "datatype": "FP16", "dtype": "float16", "data": [PICTURE]}
    asked.append(question(small.DIGITS, half, binary=True))
    # One process for all: the client alone takes seconds to import.
    command = [str(kserve), str(CLIENTS / "ask_kserve.py")]
    ran = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=120)
    answers = json.loads(ran.stdout)
    assert [answer["well"] for answer in answers] == [[True] * 3] * len(asked)
    digits = predicted(lives[small.DIGITS], [{"image": PICTURE}] * 2)
    for answer, pictures, described, refused in (answers[:4], answers[4:8]):
        assert (answer["model"], answer["id"]) == ("iris", "k-1")
        assert answer["outputs"]["predict"] == predicted(lives[small.IRIS], [small.FLOWER])
        assert sum(answer["outputs"]["predict_proba"][0]) == pytest.approx(1)
        assert pictures["outputs"] == {"predict": digits}
        said = predicted(lives[small.MIXED], {"records": WORDS, "params": {"factor": 2.0}})
        assert described["outputs"] == {"predict": said}
        assert refused["status"] == 422
        assert "body.inputs" in refused["message"]
    assert answers[8]["outputs"] == {"predict": digits[:1]}


def columns(rows: list[dict[str, Any]], shape: list[int], **more: Any) -> list[dict[str, Any]]:
    """The rows as MLServer's codec for DataFrames sends them: an input for each column, with its content type where it is text."""
    text = {"parameters": {"content_type": "str"}}
    return [{"name": key, "shape": shape, "datatype": kind, "data": [row[key] for row in rows], **(text if kind == "BYTES" else {}), **more}
            for key, kind in TYPES.items()]  # fmt: skip


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_data_frame_in_mlservers_form(lives: dict[str, Live], shape: list[int]) -> None:
    expected = {"predict": predicted(lives[small.MIXED], WORDS)}
    live = lives[small.MIXED]
    assert infer(live, small.MIXED, parameters={"content_type": "pd"}, inputs=columns(WORDS, shape)) == expected
    # As pydantic writes a request with nothing left out.
    whole = [{"parameters": None, **item} for item in columns(WORDS, shape)]
    assert (
        infer(
            live, small.MIXED, id=None, parameters={"content_type": "pd", "headers": None}, inputs=whole, outputs=None
        )
        == expected
    )


def test_texts_whose_length_is_a_dimension_and_a_single_text(lives: dict[str, Live]) -> None:
    """In examples of MLServer a list of texts has their length in its shape, and one text stands without a list."""
    live = lives[small.MIXED]
    rows = columns(WORDS, [2])
    rows[0]["shape"] = [2, 7]
    assert infer(live, small.MIXED, inputs=rows) == {"predict": predicted(live, WORDS)}
    for shape in ([1], [6]):
        one = columns(WORDS[:1], [1])
        one[0] |= {"shape": shape, "data": "Joanne"}
        assert infer(live, small.MIXED, inputs=one) == {"predict": predicted(live, WORDS[:1])}


def test_dates_and_base64_in_mlservers_form(lives: dict[str, Live]) -> None:
    live = lives[small.MIXED]
    rows = columns(WORDS, [2, 1])
    for item in rows:
        if item["name"] in {"when", "blob"}:
            item["parameters"] = {"content_type": "datetime" if item["name"] == "when" else "base64"}
    assert infer(live, small.MIXED, inputs=rows) == {"predict": predicted(live, WORDS)}


def test_missing_values_in_mlservers_form(lives: dict[str, Live]) -> None:
    """Its codec writes null for NaN, which an optional column takes."""
    live = lives[small.MIXED]
    rows = [dict(WORDS[0], size=None), WORDS[1]]
    assert infer(live, small.MIXED, parameters={"content_type": "pd"}, inputs=columns(rows, [2, 1])) == {
        "predict": predicted(live, rows)
    }


@pytest.mark.parametrize("more", [{}, {"parameters": {"content_type": "np"}}])
def test_an_array_in_mlservers_form(lives: dict[str, Live], more: dict[str, Any]) -> None:
    """A tensor model gets one input of any name; a model of columns one input for all of them, or one for each."""
    picture = {"name": "foo", "shape": [2, small.SIDE**2], "datatype": "FP32", "data": PICTURE * 2, **more}
    assert infer(lives[small.DIGITS], small.DIGITS, inputs=[picture], **more) == {
        "predict": predicted(lives[small.DIGITS], [{"image": PICTURE}] * 2)
    }
    flowers = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "data": FLOWER * 2, **more}
    expected = {"predict": predicted(lives[small.IRIS], [small.FLOWER] * 2)}
    assert infer(lives[small.IRIS], small.IRIS, inputs=[flowers], **more) == expected
    each = [{"name": key, "shape": [2], "datatype": "FP32", "data": [value] * 2} for key, value in small.FLOWER.items()]
    assert infer(lives[small.IRIS], small.IRIS, inputs=each, parameters={"content_type": "pd"}) == expected


def test_metadata_says_how_to_ask(lives: dict[str, Live]) -> None:
    """A request made from the metadata alone is answered."""
    for name, values in ((small.IRIS, small.FLOWER), (small.DIGITS, {"image": PICTURE}), (small.MIXED, small.RECORD)):
        with lives[name].connect() as connection:
            described = connection.get(f"/v2/models/{name}").json()
        inputs = []
        for item in described["inputs"]:
            value = values[item["name"]]
            data = value if isinstance(value, list) else [value]
            inputs.append({**item, "shape": [1, *item["shape"][1:]], "data": data})
        outputs = infer(
            lives[name], name, inputs=inputs, outputs=[{"name": item["name"]} for item in described["outputs"]]
        )
        assert list(outputs) == [item["name"] for item in described["outputs"]]
