"""The interface as an OpenAPI document, from which clients can be made."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from dure.serving.asked import MOST_TEXTS, TEXTS, Inputs

STATUSES = {
    400: "The body is no JSON in UTF-8.",
    401: "The token is missing or wrong.",
    404: "There is no such path.",
    405: "The path does not take the method.",
    408: "The body did not come in time.",
    413: "The body is too large, or has too many texts.",
    415: "The body is not declared as application/json.",
    421: "The request names another host than this machine.",
    422: "A text is empty, invisible, of the wrong type, under an unknown name, or in a language that the tokenizer "
    "does not know.",
    500: "The model fails on these texts.",
    503: "No replica is ready, or too many requests wait; ask again.",
    504: "There was no answer within the time limit.",
}
"""What a request that gets no predictions is answered."""
_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["problem"],
            "properties": dict.fromkeys(("problem", "where", "expected", "hint"), _TEXT),
        }
    },
}


@dataclass(frozen=True)
class Serving:
    """How models are served."""

    port: int = 8000
    """Port of 127.0.0.1; 0 for any that is free."""
    num_replicas: int | None = None
    """Processes with the models; as many as the profile has workers when not given."""
    batch_size: int | None = None
    """Most texts of a batch; what validation took when not given."""
    max_bytes: int = 1 << 20
    """Largest body of a request."""
    time_limit: float = 30.0
    """Seconds from the first byte of a request until it must be answered."""
    token: str | None = None
    """What a request must show."""
    address: str | None = None
    """Ray cluster to join; one of its own when not given."""


@dataclass(frozen=True)
class Served:
    """What is served.

    ``words`` say for people which weights.
    """

    name: str
    family: str
    words: str
    address: str


def document(served: Served, inputs: Inputs, asked: Serving) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server."""
    has_token = asked.token is not None
    secured: dict[str, Any] = {"security": [{"token": []}]} if has_token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{served.name} ({served.family})",
            "description": served.words,
            "version": importlib.metadata.version("dure"),
        },
        "servers": [{"url": served.address}],
        "paths": {
            "/predict": {"post": {**_predict(inputs, asked), **secured}},
            "/health": {"get": _get("Whether predictions can be had", "application/json", unready=True)},
            "/metrics": {"get": {**_get("Figures for Prometheus", "text/plain"), **secured}},
            "/openapi.json": {"get": _get("This document", "application/json")},
        },
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}} if has_token else {},
        },
    }


def _predict(inputs: Inputs, asked: Serving) -> dict[str, Any]:
    answer = {
        "type": "object",
        "required": ["predictions", "truncated"],
        "properties": {
            "predictions": {
                "type": "array",
                "items": {"type": "object"},
                "description": "What is predicted of each text, in their order, as dure predict names it.",
            },
            "truncated": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "Places of the texts, from 0, whose end was cut off since the model reads no more.",
            },
        },
    }
    refusals = {
        str(status): {"description": words, **_content({"$ref": "#/components/schemas/Error"})}
        for status, words in STATUSES.items()
        if status not in (404, 405) and (status != 401 or asked.token is not None)
    }
    return {
        "summary": "Predict texts",
        "description": f"At most {MOST_TEXTS} texts and {asked.max_bytes:,} bytes in a request, answered within "
        f"{asked.time_limit:g} seconds.",
        "operationId": "predict",
        "requestBody": {"required": True, **_content(request_schema(inputs))},
        "responses": {"200": {"description": "The predictions", **_content(answer)}, **refusals},
    }


def request_schema(inputs: Inputs) -> dict[str, Any]:
    """Return the JSON schema of a request for predictions."""
    properties = {
        role.name: _TEXT if role.reader is None else {"type": ["string", "array", "object"]}
        for role in inputs.roles
    }
    row: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": inputs.needed,
        "additionalProperties": False,
    }
    item = row if len(inputs.needed) > 1 else {"anyOf": [properties[inputs.needed[0]], row]}
    texts = {"type": "array", "minItems": 1, "maxItems": MOST_TEXTS, "items": item}
    return {
        "type": "object",
        "required": [TEXTS],
        "properties": {TEXTS: texts},
        "additionalProperties": False,
    }


def _get(summary: str, kind: str, *, unready: bool = False) -> dict[str, Any]:
    ready = {"200": {"description": summary, "content": {kind: {}}}}
    late = {"503": {"description": STATUSES[503], **_content({"$ref": "#/components/schemas/Error"})}}
    return {"summary": summary, "responses": {**ready, **(late if unready else {})}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
