"""The directive `flow`: what a flow does, and each of its parameters and settings, from the schema of its form."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Schema = dict[str, Any]

BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
    "minItems": "items at least", "minLength": "characters at least",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A line of the list: a value, or a group of values (`kind` is empty)."""

    name: str
    kind: str
    default: str
    description: str


class FlowParameters(SphinxDirective):
    """Write the docstring of a flow and list its parameters: ``{flow} flows.build_dataset.build_dataset``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        try:
            flow = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise self.error(f"there is no flow {self.arguments[0]}: {error}") from error
        schema = flow.parameters.model_dump_for_openapi()
        said = (flow.fn.__doc__ or "").partition("Args:")[0]
        shown = nodes.definition_list(classes=["parameters"])
        for parameter in _parameters(schema, schema.get("definitions", {})):
            shown += self._item(flow.name, parameter)
        return [*self.parse_text_to_nodes(_dedented(said)), shown]

    def _item(self, flow: str, parameter: Parameter) -> nodes.definition_list_item:
        term = nodes.term("", "", nodes.literal(text=parameter.name))
        term["ids"] = [nodes.make_id(f"{flow}-{parameter.name}")]
        if parameter.kind:
            term += nodes.inline(text=f"  {parameter.kind}; {parameter.default}")
        inline, messages = self.parse_inline(parameter.description)
        return nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", "", *inline)), *messages)


def _parameters(schema: Schema, definitions: dict[str, Schema], prefix: str = "") -> Iterator[Parameter]:
    """Yield the properties of an object depth first, groups before their members."""
    for name, field in schema.get("properties", {}).items():
        group = _group(field, definitions)
        description = field.get("description") or group.get("description", "")
        if group.get("properties"):
            yield Parameter(prefix + name, "", "", _one_line(description))
            yield from _parameters(group, definitions, f"{prefix}{name}.")
        else:
            required = name in schema.get("required", ())
            default = "required" if required else f"default {json.dumps(field.get('default'), ensure_ascii=False)}"
            yield Parameter(prefix + name, _kind(field, definitions), default, _one_line(description))


def _group(field: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the object that a field holds, through references and unions with null; {} for a plain value."""
    if "$ref" in field:
        return _group(definitions[field["$ref"].rpartition("/")[2]], definitions)
    for members in ("allOf", "anyOf"):
        parts = [part for part in field.get(members, ()) if part.get("type") != "null"]
        if len(parts) == 1:
            return _group(parts[0], definitions)
    return field if field.get("type") == "object" else {}


def _kind(field: Schema, definitions: dict[str, Schema]) -> str:
    """Say in words which values a field takes."""
    if "$ref" in field:
        return _kind(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "const" in field or "enum" in field:
        return " or ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    for members in ("anyOf", "oneOf", "allOf"):
        if members in field:
            return " or ".join(dict.fromkeys(_kind(part, definitions) for part in field[members]))
    if field.get("type") == "array":
        kind = f"list of {_kind(field['items'], definitions)}" if field.get("items") else "list"
    else:
        kind = {"object": "object", "null": "null"}.get(str(field.get("type")), str(field.get("type", "any value")))
    bounds = [f"{words} {field[key]}" for key, words in BOUNDS.items() if key in field]
    return ", ".join([kind, *bounds])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("flow", FlowParameters)
    return {"parallel_read_safe": True}
