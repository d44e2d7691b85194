import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving import limits
from serving.errors import BadRequest, InvalidInput, TooLarge
from serving.frames import matrix
from serving.information import predict_example
from serving.signature import Batch, Signature, Tensor
from serving.typed import Request, Typed, answer, label, rows_of
from tests.serving.transport import DENSE, FLOWER, IMAGE, MIXED, NAMES, ROW, information


def no_raw() -> Any:
    raise AssertionError("MLflow's parser is not needed here")


def read(signature: Signature, document: Any, max_rows: int = 0, **more: Any) -> Request:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Typed(information(signature, **more), no_raw, max_rows).read(body)


def problems(signature: Signature, document: Any, **more: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(InvalidInput) as caught:
        read(signature, document, **more)
    return {item.loc: item.type for item in caught.value.problems}


def test_one_record_and_a_list() -> None:
    one = read(DENSE, FLOWER)
    assert (one.single, one.batch.rows) == (True, 1)
    many = read(DENSE, [FLOWER, {NAMES[0]: 1, NAMES[1]: 2}])
    assert (many.single, many.batch.rows) == (False, 2)
    assert matrix(DENSE, many.batch).tolist() == [[5.1, 3.5], [1.0, 2.0]]


def test_all_problems_with_their_paths() -> None:
    assert problems(DENSE, {NAMES[0]: "x", "more": 1}) == {
        ("body", NAMES[0]): "double_type",
        ("body", NAMES[1]): "missing",
        ("body", "more"): "extra_forbidden",
    }
    assert problems(DENSE, [FLOWER, {NAMES[0]: None, NAMES[1]: True}, 5][:2]) == {
        ("body", 1, NAMES[0]): "double_type",
        ("body", 1, NAMES[1]): "double_type",
    }
    assert problems(DENSE, [FLOWER, 5]) == {("body", 1): "object_type"}
    assert problems(DENSE, []) == {("body",): "too_short"}
    assert problems(DENSE, 5) == {("body",): "object_type"}


def test_unreadable() -> None:
    with pytest.raises(BadRequest):
        read(DENSE, b"{")
    with pytest.raises(TooLarge):
        read(DENSE, [FLOWER, FLOWER], 1)


def test_mixed_record_with_params() -> None:
    assert read(MIXED, ROW).batch.params is None
    request = read(MIXED, {"records": [ROW, ROW], "params": {"limit": 7}})
    assert (request.single, request.batch.rows, request.batch.params) == (False, 2, {"limit": 7})
    assert problems(MIXED, {"records": [ROW], "params": {"limit": 1.5, "no": 1}}) == {
        ("body", "params", "limit"): "integer_type",
        ("body", "params", "no"): "extra_forbidden",
    }
    assert problems(MIXED, {"records": [{**ROW, "flag": 1}]}) == {("body", "records", 0, "flag"): "boolean_type"}
    assert problems(MIXED, {**ROW, "word": None}) == {("body", "word"): "string_type"}


LOOK: dict[str, Any] = {"input_name": "image", "input_shape": (8, 8)}
FLAT = [float(value) for value in range(64)]
NESTED = np.array(FLAT).reshape(8, 8).tolist()


@pytest.mark.parametrize("value", [FLAT, NESTED])
def test_tensor_flat_and_nested(value: Any) -> None:
    for document in ({"image": value}, [{"image": value}, {"image": FLAT}]):
        request = read(IMAGE, document, **LOOK)
        assert request.single is isinstance(document, dict)
        assert matrix(IMAGE, request.batch).tolist() == [FLAT] * request.batch.rows


def test_tensor_problems() -> None:
    assert problems(IMAGE, {"image": [1.0] * 63}, **LOOK) == {("body", "image"): "shape"}
    assert problems(IMAGE, {"image": [*FLAT[:5], "x", *FLAT[6:]]}, **LOOK) == {("body", "image", 5): "float32_type"}
    wrong = [list(row) for row in NESTED]
    wrong[2][3] = 1e39
    assert problems(IMAGE, [{"image": FLAT}, {"image": wrong}], **LOOK) == {
        ("body", 1, "image", 2, 3): "number_out_of_range"
    }
    assert problems(IMAGE, {"inputs": FLAT}, **LOOK) == {
        ("body", "inputs"): "extra_forbidden",
        ("body", "image"): "missing",
    }
    assert problems(IMAGE, {"image": "no picture"}, **LOOK) == {("body", "image"): "image"}
    assert set(problems(IMAGE, {"image": None}, **LOOK)) == {("body", "image")}


def test_several_tensors() -> None:
    signature = Signature(tensors=(Tensor("a", np.dtype("int64"), (-1, 2)), Tensor("b", np.dtype("float64"), (-1,))))
    batch = read(signature, [{"a": [1, 2], "b": 0.5}, {"a": [3, 4], "b": 1}]).batch
    assert {str(name): values.tolist() for name, values in batch.data.items()} == {
        "a": [[1, 2], [3, 4]],
        "b": [0.5, 1.0],
    }


def png(pixels: Any, mode: str | None = None) -> str:
    image = (
        Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode)
        if mode is None
        else Image.fromarray(np.asarray(pixels, dtype=np.uint8)).convert(mode)
    )
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def seen(text: str) -> Any:
    return matrix(IMAGE, read(IMAGE, {"image": text}, **LOOK).batch).reshape(8, 8)


STROKE = np.zeros((8, 8), dtype=np.uint8)
STROKE[2:6, 3] = 200


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    assert (seen(png(STROKE)) == STROKE).all()
    assert (seen("data:image/png;base64," + png(STROKE)) == STROKE).all()


def test_colours_and_palettes_become_grey() -> None:
    for mode in ("RGB", "RGBA", "LA", "P"):
        assert (seen(png(STROKE, mode)) == STROKE).all(), mode


def test_dark_on_bright_is_turned_round() -> None:
    assert (seen(png(255 - STROKE)) == STROKE).all()


def test_a_transparent_ground_is_not_ink() -> None:
    for ink in (0, 255):
        rgba = np.full((8, 8, 4), ink, dtype=np.uint8)
        rgba[..., 3] = STROKE
        assert (seen(png(rgba)) == STROKE).all()


def told(text: str) -> str:
    return (*read(IMAGE, {"image": text}, **LOOK).pictures, "")[0]


def test_a_picture_that_fills_its_frame_is_scaled_as_a_whole() -> None:
    photograph = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))
    photograph[::2] = 255 - photograph[::2]
    small = seen(png(photograph))
    assert small[2:6].any(axis=1).all()
    assert not small[[0, 1, 6, 7]].any()
    assert told(png(photograph)).endswith("scaled to fit 8 x 8")


@pytest.mark.parametrize(("size", "top", "left"), [(60, 3, 100), (40, 120, 6), (90, 60, 60)])
def test_ink_is_found_wherever_it_is(size: int, top: int, left: int) -> None:
    drawing = np.zeros((200, 160), dtype=np.uint8)
    drawing[top : top + size, left : left + size // 2] = 180
    for picture, done in (
        (drawing, "scaled to 6, centred by mass"),
        (255 - drawing, "inverted, scaled to 6, centred by mass"),
    ):
        small = seen(png(picture))
        assert (small[1:7] > 0).any(axis=1).all()
        assert not small[[0, 7]].any()
        assert small[2:6, 3:5].min() > 200
        assert told(png(picture)) == done


def test_light_noise_and_dust_are_no_ink() -> None:
    random = np.random.default_rng(0)
    paper = 180 + 25 * np.linspace(-1, 1, 160)[None, :] + random.normal(0, 4, (160, 160))
    paper[100:140, 20:40] -= 110
    paper[10, 150] = 0
    small = seen(png(paper.clip(0, 255)))
    assert small[2:6, 3].min() > 150
    assert not small[:, [0, 1, 6, 7]].any()


def test_a_picture_without_ink_is_none_either() -> None:
    for level in (0, 90, 255):
        assert told(png(np.full((50, 50), level))).endswith("scaled to fit 8 x 8")


def test_what_was_done_is_said_for_each_record() -> None:
    request = read(IMAGE, [{"image": png(STROKE)}, {"image": png(255 - STROKE)}], **LOOK)
    assert request.pictures == ["", "inverted"]
    body = answer([1, 2], None, single=False, names=[], origin={}, pictures=request.pictures)
    assert json.loads(body) == {"predictions": [{"prediction": 1}, {"prediction": 2, "picture": "inverted"}]}


MNIST = Path(__file__).parents[2] / "training/data/mnist"


def test_digits_on_a_canvas_are_read_as_those_of_the_right_size() -> None:
    pixels = np.frombuffer(gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8).reshape(
        -1, 784
    )
    labels = np.frombuffer(gzip.decompress((MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)

    def blurred(flat: Any) -> Any:
        """Half a pixel more or less makes no difference, as to a trained model."""
        wide = np.pad(flat.reshape(-1, 28, 28).astype(np.float32), ((0, 0), (1, 1), (1, 1)))
        shifted = [wide[:, y : y + 28, x : x + 28] for y in range(3) for x in range(3)]
        return np.sum(shifted, axis=0).reshape(-1, 784)

    known = blurred(pixels[1000:])
    squares = (known**2).sum(1)

    def nearest(picture: Any) -> int:
        places = np.argsort(squares - 2 * known @ blurred(picture)[0])[:3]
        return int(np.bincount(labels[1000:][places]).argmax())

    # Those of the first digits that this simple model reads right in their own size.
    chosen = [place for place in range(110) if nearest(pixels[place]) == labels[place]][:100]
    right = 0
    for count, place in enumerate(chosen):
        side = (40, 70, 100, 130)[count % 4]
        canvas = np.full((200, 200), 255, dtype=np.uint8)
        top, left = (37 * count) % (200 - side), (61 * count) % (200 - side)
        digit = Image.fromarray(pixels[place].reshape(28, 28)).resize((side, side), Image.Resampling.BICUBIC)
        canvas[top : top + side, left : left + side] -= np.asarray(digit)
        look: dict[str, Any] = {"input_shape": (28, 28), "input_name": "image"}
        signature = Signature(tensors=(Tensor(None, np.dtype("float32"), (-1, 784)),))
        batch = read(signature, {"image": png(canvas)}, **look).batch
        right += nearest(matrix(signature, batch)[0]) == labels[place]
    assert right >= 95


def test_sixteen_bits() -> None:
    file = io.BytesIO()
    Image.fromarray(STROKE.astype(np.uint16) * 257).save(file, "PNG")
    assert (seen(base64.b64encode(file.getvalue()).decode()) == STROKE).all()


def test_pictures_that_are_refused() -> None:
    for text in (png(np.zeros((2049, 2049))), png(STROKE)[:40], base64.b64encode(b"GIF89a").decode(), "", "%"):
        assert problems(IMAGE, {"image": text}, **LOOK) == {("body", "image"): "image"}


def test_pictures_are_counted_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"image": png(STROKE)}
    monkeypatch.setattr(limits, "BODY_PIXELS", 2 * STROKE.size)
    assert read(IMAGE, [one] * 2, **LOOK).batch.rows == 2
    assert set(problems(IMAGE, [one] * 3, **LOOK)) == {("body", 2, "image")}
    monkeypatch.setattr(limits, "PICTURES", 1)
    with pytest.raises(TooLarge, match="2 pictures, the limit is 1"):
        read(IMAGE, [one] * 2, **LOOK)


def test_a_large_picture_of_any_kind_looks_the_same() -> None:
    found = []
    for mode in ("L", "LA", "I;16"):
        small = (
            Image.fromarray(STROKE.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(STROKE).convert(mode)
        )
        large = small.resize((STROKE.shape[1] * 96, STROKE.shape[0] * 96), Image.Resampling.NEAREST)
        file = io.BytesIO()
        large.save(file, "PNG")
        found.append(seen(base64.b64encode(file.getvalue()).decode()))
    assert np.abs(found[0] - found[1]).max() <= 1
    assert np.abs(found[0] - found[2]).max() <= 1


def test_answers() -> None:
    origin = {"model": "m", "version": "3"}
    one = answer([7], [[0.25, 0.75]], single=True, names=["a", "b"], origin=origin)
    assert json.loads(one) == {"prediction": 7, "probabilities": {"a": 0.25, "b": 0.75}, "model": "m", "version": "3"}
    many = answer([1.5, float("nan")], None, single=False, names=[], origin=origin)
    assert json.loads(many) == {
        "predictions": [{"prediction": 1.5}, {"prediction": None}],
        "model": "m",
        "version": "3",
    }


def test_answers_of_odd_types() -> None:
    import pandas as pd

    values = [np.int64(1), np.datetime64("2024-01-02"), pd.Timestamp("2024-01-02"), np.array([1.5])]
    found = json.loads(answer(values, None, single=False, names=[], origin={}))["predictions"]
    assert [item["prediction"] for item in found] == [1, "2024-01-02", "2024-01-02T00:00:00", [1.5]]
    assert rows_of(pd.DataFrame({"a": [1, 2]}), 2) == [{"a": 1}, {"a": 2}]
    assert rows_of(pd.Series([1, 2]), 2) == [1, 2]
    assert rows_of({"a": [1, 2]}, 2) == [{"a": 1}, {"a": 2}]
    assert rows_of("whole", 2) == ["whole", "whole"]


def test_labels() -> None:
    assert [label(value) for value in (np.int64(3), 2.0, "a", True, 0.5)] == ["3", "2", "a", "True", "0.5"]


HINTS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "numbers": ({"type": "long"}, [1, 2]),
    "texts": ({"type": "string"}, ["a", "b"]),
    "anything": ({"type": "any"}, [{"a": 1}, "x"]),
    "objects": ({"type": "object", "properties": {"a": {"type": "string"}}}, [{"a": "x"}, {"a": "y"}]),
    "maps": ({"type": "map", "values": {"type": "long"}}, [{"a": 1}, {"b": 2}]),
    "lists": ({"type": "array", "items": {"type": "double"}}, [[1.0, 2.0], [3.0]]),
}


@pytest.mark.parametrize("kind", HINTS)
def test_a_model_with_type_hints_is_asked_as_it_describes_it(kind: str) -> None:
    column, values = HINTS[kind]
    mlmodel = {"signature": {"inputs": [column | {"required": True}]}, "is_signature_from_type_hint": True}
    signature = Signature.from_mlmodel(mlmodel)
    example = predict_example(signature, {"inputs": values}, "inputs", None)
    assert example == {"0": values[0]}
    asked: list[Any] = []

    class Raw:
        def parse(self, document: dict[str, Any], form: str) -> Batch:
            asked.append((document, form))
            return Batch({}, len(document["inputs"]), raw=document["inputs"])

    typed = Typed(information(signature), Raw)
    one = typed.read(json.dumps(example).encode())
    many = typed.read(json.dumps([{"0": value} for value in values]).encode())
    assert asked == [({"inputs": values[:1]}, "inputs"), ({"inputs": values}, "inputs")]
    assert (one.single, many.single, many.batch.rows) == (True, False, 2)


def test_other_nameless_columns_are_no_hint() -> None:
    mlmodel = {"signature": {"inputs": [{"type": "long"}]}}
    assert not Signature.from_mlmodel(mlmodel).hinted
