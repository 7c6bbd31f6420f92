"""The forms that Prefect's UI makes of the flows' parameters: short, in a user's order, details folded."""

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow

from flows.build_dataset import build_dataset
from flows.train_fsclap import train_fsclap


def shown(properties: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The fields of a form before any group is opened, a folded group as one, by dotted name."""
    for name, field in sorted(properties.items(), key=lambda item: item[1].get("position", 0)):
        if "$ref" in field:
            group = definitions[field["$ref"].rpartition("/")[2]]
            yield from shown(group["properties"], definitions, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize(
    ("flow", "first", "folded", "most"),
    [
        (
            build_dataset,
            ["sources", "corpus", "work", "settings.profile", "settings.device"],
            {"disk", "decode", "download.limits", "separation.demucs", "diarization.funasr", "selection", "linking"},
            40,
        ),
        (
            train_fsclap,
            ["corpus", "version", "models", "work", "settings.epochs", "settings.batch"],
            {"split", "optimizer", "compute", "loss.research", "texts"},
            36,
        ),
    ],
)
def test_a_form_shows_few_fields_and_folds_the_rest(
    flow: Flow[..., Any], first: list[str], folded: set[str], most: int
) -> None:
    schema = flow.parameters.model_dump()
    fields = list(shown(schema["properties"], schema["definitions"]))
    assert fields[: len(first)] == first
    assert {f"settings.{group}" for group in folded} <= set(fields)
    assert len(fields) <= most


@pytest.mark.parametrize("flow", [build_dataset, train_fsclap])
def test_a_folded_group_starts_closed(flow: Flow[..., Any]) -> None:
    definitions = flow.parameters.model_dump()["definitions"]
    groups = [
        (model, name, field)
        for model, definition in definitions.items()
        for name, field in definition.get("properties", {}).items()
        if any("$ref" in option for option in field.get("anyOf", []))
    ]
    assert groups
    assert [(model, name) for model, name, field in groups if field["default"] is not None] == []
