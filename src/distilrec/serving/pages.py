"""Two pages without a line of JavaScript: the start page, and the API documentation.

The render plugins that come with litestar load their scripts from a content network; a server on a closed network would
show a blank page. This one writes the OpenAPI document as plain HTML.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import Bundle
from distilrec.serving.predict import example_row

__all__ = ["DocsPage", "start_page"]

_STYLE = """<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2330;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f5f8}
pre{padding:.8rem;overflow:auto;border-radius:6px}code{padding:.1rem .3rem;border-radius:4px}a{color:#0b57b7}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d9dee6;vertical-align:top}
</style>"""


class DocsPage(OpenAPIRenderPlugin):
    """The OpenAPI document as one self-contained HTML page."""

    def __init__(self) -> None:
        super().__init__(path="/", favicon="")

    def render(self, request: Request, openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        schemas = openapi_schema.get("components", {}).get("schemas", {})
        info = openapi_schema["info"]
        parts = [f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description') or '')}</p>",
                 '<p>For tools: <a href="/docs/openapi.json">/docs/openapi.json</a></p>']
        for path, operations in openapi_schema["paths"].items():
            for method, operation in operations.items():
                if isinstance(operation, dict) and "responses" in operation:
                    parts.append(_operation(method, path, operation))
        parts.append("<h2>Structures</h2>")
        parts += [_structure(name, schema) for name, schema in sorted(schemas.items())]
        return _page(info["title"], "".join(parts)).encode()


def start_page(bundle: Bundle | RowBundle) -> str:
    """What is served here, and where."""
    if isinstance(bundle, Bundle):
        route, example = "/recommend", {"history": bundle.item_keys[:2], "k": 5}
        what = ("items", f"{bundle.n_items:,}")
    else:
        route, example = "/predict", {"rows": [example_row(bundle)]}
        what = ("predicts", ", ".join(f"{head.name} ({head.kind})" for head in bundle.heads))
    # for a shell, where a quote ends a quoted text
    body = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
    command = f"curl -X POST localhost:8000{route} -H 'Content-Type: application/json' -d '{body}'"
    rows = [
        ("student", bundle.name), ("task", bundle.task), what, ("parameters", f"{bundle.parameters:,}"),
        ("trained on", str(bundle.config.get("dataset", {}).get("name", ""))),
        ("exported", str(bundle.config.get("created", ""))), ("digest", bundle.digest),
    ]
    table = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    links = [("/docs", "what to send and what comes back"), ("/health", "is it up, and what does it serve"),
             ("/metrics", "counts and times for Prometheus")]
    listed = "".join(f'<li><a href="{path}">{path}</a>: {what}</li>' for path, what in links)
    return _page(f"distilrec: {bundle.name}", (
        f"<h1>{escape(bundle.name)} answers here</h1><table>{table}</table>"
        f"<h2>Ask it</h2><pre>{escape(command)}</pre><h2>More</h2><ul>{listed}</ul>"
    ))


def _page(title: str, body: str) -> str:
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<link rel="icon" href="data:,">{_STYLE}</head><body>{body}</body></html>')


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    out = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary') or '')}</p>"]
    if text := operation.get("description"):
        out.append(f"<p>{escape(text)}</p>")
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
            f"<td>{_kind(p.get('schema', {}))}</td><td>{escape(p.get('description') or '')}</td></tr>"
            for p in parameters
        )
        out.append(f"<table><tr><th>parameter</th><th>in</th><th>kind</th><th></th></tr>{rows}</table>")
    for media in (operation.get("requestBody") or {}).get("content", {}).values():
        out.append(f"<p>Body: {_kind(media.get('schema', {}))}</p>")
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(response.get('description') or '')}</td><td>"
        + ", ".join(_kind(media.get("schema", {})) for media in (response.get("content") or {}).values())
        + "</td></tr>" for status, response in operation["responses"].items()
    )
    out.append(f"<table><tr><th>status</th><th></th><th>answer</th></tr>{rows}</table>")
    return "".join(out)


def _structure(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' (required)' if field in required else ''}</td><td>{_kind(part)}</td>"
        f"<td>{escape(part.get('description') or '')}</td></tr>" for field, part in schema.get("properties", {}).items()
    )
    text = f"<p>{escape(schema['description'])}</p>" if schema.get("description") else ""
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{text}<table>{rows}</table>'


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(option) for option in options))
    kind = schema.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if text == "array":
        return f"list of {_kind(schema.get('items', {}))}" + _limits(schema)
    return escape(text) + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    words = {"minimum": "at least", "maximum": "at most", "maxItems": "at most", "maxLength": "length at most"}
    found = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    if "default" in schema and schema["default"] is not None:
        found.append(f"default {escape(json.dumps(schema['default']))}")
    return f" ({', '.join(found)})" if found else ""
