"""POST /predict: rows of raw features in, probabilities, values and tags out; or candidates in, a ranking out.

Everything that the route says of its fields is read from the bundle's config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from litestar import post
from litestar.datastructures import State
from litestar.exceptions import ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPI, OpenAPIType, Reference, Schema
from litestar.params import JSONBody

from distilrec.bundle.row_runtime import RowBundle
from distilrec.errors import DataError
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.serving.schema import (
    MAX_K,
    MAX_ROWS,
    MAX_ROWS_BYTES,
    Prediction,
    PredictRequest,
    PredictResponse,
    Problem,
    RankedCandidate,
)

__all__ = ["describe_rows", "example_row", "predict"]

_K = 10
_ROW = "Row"
_BAD_BODY = {
    400: ResponseSpec(Problem, description="The body is not JSON.", generate_examples=False),
    413: ResponseSpec(Problem, description="The body is too large.", generate_examples=False),
    422: ResponseSpec(Problem, description="A row, a field or the request is not what is expected; the answer says "
                                           "which row and which field.", generate_examples=False),
}
_ANY_OF = {"category": [OpenAPIType.STRING, OpenAPIType.NUMBER, OpenAPIType.BOOLEAN], "text": [OpenAPIType.STRING]}


@post("/predict", status_code=200, sync_to_thread=False, responses=_BAD_BODY, summary="Predict rows, rank candidates",
      request_max_body_size=MAX_ROWS_BYTES, raises=[])
def predict(data: JSONBody[PredictRequest], state: State) -> PredictResponse:
    """With `rows`: a prediction per row, by head. With `candidates` (and a `context` that they share): the k best of
    them by one head, equal ones in the order given. Values that the bundle does not know are answered like missing
    ones."""
    bundle: RowBundle = state.bundle
    if (data.rows is None) == (data.candidates is None):
        raise ValidationException("both rows and candidates are given" if data.rows is not None else
                                  "neither rows nor candidates are given")
    alone = [name for name in ("context", "k", "head") if getattr(data, name) is not None]
    if data.rows is not None and alone:
        raise ValidationException(f"{' and '.join(alone)} without candidates")
    try:
        return _rank(bundle, data, state) if data.rows is None else _predict(bundle, data.rows, state)
    except DataError as error:
        raise ValidationException(str(error)) from None


def _predict(bundle: RowBundle, rows: list[dict[str, Any]], state: State) -> PredictResponse:
    encoded = bundle.encode(rows)
    answers = bundle.answers(encoded)
    _count(bundle, encoded, len(rows), state)
    predictions = [Prediction({}, {}, {}, {}) for _ in rows]
    for head in bundle.heads:
        values = answers[head.name]
        for prediction, value in zip(predictions, values.tolist(), strict=True):
            if head.kind == "binary":
                prediction.probabilities[head.name] = value
            elif head.kind == "number":
                prediction.values[head.name] = value
            else:
                prediction.classes[head.name] = dict(zip(head.classes, value, strict=True))
        if head.kind == "tags":
            for prediction, row in zip(predictions, values, strict=True):
                prediction.tags[head.name] = [tag for tag, _ in bundle.chosen_tags(head.name, row)]
    return PredictResponse(predictions)


def _rank(bundle: RowBundle, data: PredictRequest, state: State) -> PredictResponse:
    candidates, k = data.candidates or [], data.k or _K
    encoded = bundle.encode_request(data.context or {}, candidates, k)
    ranked = bundle.ranked(encoded, k, data.head)
    _count(bundle, encoded, len(candidates), state)
    return PredictResponse(None, [RankedCandidate(place, score) for place, score in ranked], ranked.head)


def _count(bundle: RowBundle, encoded: Mapping[str, np.ndarray], rows: int, state: State) -> None:
    state.metrics.rows += rows
    state.metrics.unknown_values += sum(
        int((encoded[feature.name] == 0).sum()) for feature in bundle.features if feature.kind in ("category", "list")
    )


def describe_rows(document: OpenAPI, bundle: RowBundle) -> None:
    """Add the structure Row, made from config.json, to an OpenAPI document, and let the request refer to it."""
    schemas = document.components.schemas
    properties: dict[str, Reference | Schema] = {}
    needed = []
    for field, names in bundle.fields.items():
        features = [feature for feature in bundle.features if feature.name in names]
        properties[field] = _field_schema(features)
        if any(feature.required for feature in features):
            needed.append(field)
    described = "A row of raw values. " + (f"Required, here or in the context: {', '.join(needed)}. " if needed else "")
    heads = ", ".join(f"{head.name} ({head.kind})" for head in bundle.heads)
    schemas[_ROW] = Schema(type=OpenAPIType.OBJECT, properties=properties, additional_properties=False,
                           description=f"{described}Heads of this bundle: {heads}.")
    request = next(schema for name, schema in schemas.items() if name.endswith("PredictRequest"))
    row = Reference(ref=f"#/components/schemas/{_ROW}")
    nothing = Schema(type=OpenAPIType.NULL)
    rows = Schema(type=OpenAPIType.ARRAY, items=row, min_items=1, max_items=MAX_ROWS)
    count = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=MAX_K)
    wanted: dict[str, Reference | Schema] = {"rows": rows, "candidates": rows, "context": row, "k": count}
    for field, part in (request.properties or {}).items():
        if isinstance(part, Schema) and field in wanted:
            part.one_of = [wanted[field], nothing]


def example_row(bundle: RowBundle) -> dict[str, Any]:
    """A row that this bundle answers, for the start page."""
    row: dict[str, Any] = {}
    for feature in bundle.features:
        known = feature.vocabulary[:1]
        for source in feature.sources:
            if len(feature.sources) > 1 or feature.bucketed or feature.kind == "number":
                row.setdefault(source, round(feature.mean, 3))
            elif feature.kind == "vector":
                row.setdefault(source, [0.0] * feature.dim)
            elif feature.kind == "text":
                row.setdefault(source, " ".join(feature.vocabulary[:3]))
            else:
                row.setdefault(source, list(known) if feature.kind in RAGGED_KINDS else (known or ("",))[0])
    return row


def _field_schema(features: list[Feature]) -> Schema:
    """What one raw field may hold; several features may be made of it."""
    feature = features[0]
    what = ", ".join(f"{one.name}: {_words(one)}" for one in features)
    if feature.kind == "number" or feature.bucketed:
        kinds = [OpenAPIType.NUMBER]
    elif feature.kind in _ANY_OF:
        kinds = _ANY_OF[feature.kind]
    else:
        value = OpenAPIType.NUMBER if feature.kind == "vector" else None
        items = Schema(type=value or [OpenAPIType.STRING, OpenAPIType.NUMBER])
        size = feature.dim if feature.kind == "vector" else None
        return Schema(type=[OpenAPIType.ARRAY, OpenAPIType.NULL], items=items, description=what, min_items=size,
                      max_items=size)
    return Schema(type=[*kinds, OpenAPIType.NULL], description=what)


def _words(feature: Feature) -> str:
    known = f"{feature.size - 1:,} buckets" if feature.bucketed or feature.hashed else f"{feature.size - 1:,} known"
    words = {
        "category": f"category, {known}", "number": "number", "vector": f"{feature.dim} numbers",
        "list": f"list, {known}, the first {feature.max_length} count", "text": f"text, {known} words",
        "sequence": f"list, oldest first, {known}, the last {feature.max_length} count",
    }[feature.kind]
    crossed = f" (crossed from {', '.join(feature.sources)})" if len(feature.sources) > 1 else ""
    return words + crossed + (", required" if feature.required else "")
