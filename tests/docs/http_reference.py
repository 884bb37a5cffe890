"""The generated part of the HTTP API's reference: its operations and schemas, from what OpenAPI is told.

In docs/reference/http-api.md, what stands between `<!-- operations -->` or `<!-- schemas -->` and
`<!-- end -->` is made of `swapstore.serve.api.openapi`. The rest is written by hand.

    python -m tests.docs.http_reference    # write it anew, after the description has changed
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from swapstore.serve.api.openapi import document

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"
_BLOCK = re.compile(r"<!-- (operations|schemas) -->\n.*?<!-- end -->", re.DOTALL)


def generated(page: str) -> str:
    """Return the page with its generated parts as they should be."""
    described = json.loads(document())
    parts = {
        "operations": "\n".join(
            _operation(path, method, operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
        ),
        "schemas": "\n".join(
            _schema(name, schema) for name, schema in described["components"]["schemas"].items()
        ),
    }
    return _BLOCK.sub(lambda block: f"<!-- {block[1]} -->\n{parts[block[1]]}<!-- end -->", page)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`", "", operation["summary"], ""]
    if "description" in operation:
        lines += [operation["description"], ""]
    if body := operation.get("requestBody"):
        lines += [f"Body: {_content(body['content'])}.", ""]
    parameters = [each for each in operation.get("parameters", ()) if each["name"] != "name"]
    if parameters:
        lines += ["| parameter | in | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{each['name']}` | {each['in']} | {each.get('description', '')} |" for each in parameters
        ]
        lines += [""]
    responses = {
        status: each
        for status, each in operation["responses"].items()
        if "application/problem+json" not in each.get("content", {})
    }
    lines += ["| status | meaning | body |", "| --- | --- | --- |"]
    lines += [
        f"| {status} | {each['description']} | {_content(each.get('content', {}))} |"
        for status, each in responses.items()
    ]
    others = [status for status in sorted(operation["responses"]) if status not in responses]
    lines += ["", f"[Problems](#problems): {', '.join(others)}.", ""]
    return "\n".join(lines)


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"`{kind}`{_of(each['schema'])}" for kind, each in content.items())


def _of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f" {_type(schema)}"
    fields = ", ".join(f"`{name}`" for name in schema.get("properties", ()))
    return f" with {fields}" if fields else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}", ""]
    if "description" in schema:
        lines += [schema["description"], ""]
    lines += ["| field | type | meaning |", "| --- | --- | --- |"]
    for field, of in schema["properties"].items():
        optional = "" if field in schema["required"] else "optional. "
        lines += [f"| `{field}` | {_type(of)} | {optional}{of.get('description', '')} |"]
    return "\n".join([*lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object" and "properties" in schema:
        return "object with " + ", ".join(f"`{name}`" for name in schema["properties"])
    return str(schema.get("type", "any"))


def main() -> None:
    """Write the generated parts of the page anew."""
    PAGE.write_text(generated(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
