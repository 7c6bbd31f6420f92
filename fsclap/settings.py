"""What the settings of every stage share: marks on fields, and groups that a form shows folded.

A field says itself whether it shapes a result. `execution` marks one that changes only speed,
memory or patience; `engine_block` marks the group of an engine that may not run. `shaping` reads
the marks: what it returns goes into cache keys and recipes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, to_jsonable_python

_EXECUTION, _ENGINE = "execution", "engine"

T = TypeVar("T")


def execution(default: Any = ..., **options: Any) -> Any:
    """Make a pydantic field that no result depends on: a device, a batch size, a timeout."""
    return Field(default, json_schema_extra={_EXECUTION: True}, **options)


def engine_block(engine: str, model: type[BaseModel], description: str) -> Any:
    """Make a pydantic field for the settings of one engine, which count only where it runs."""
    return Field(default_factory=model, json_schema_extra={_ENGINE: engine}, description=description)


class _Nullable:
    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "null"}], "default": None}


def _defaults_for_none(value: Any) -> Any:
    return {} if value is None else value


def _none_for_defaults(group: BaseModel) -> Any:
    # Annotated as Any: pydantic would write a group that is annotated as BaseModel with BaseModel's
    # fields, none.
    return None if group == type(group)() else group


Folded = Annotated[
    T, BeforeValidator(_defaults_for_none), PlainSerializer(_none_for_defaults, when_used="json"), _Nullable()
]
"""A group of settings that a form shows as one line until it is opened.

None stands for the defaults, in JSON both ways; in Python the group is always there.
"""


OfPreset = Annotated[T, _Nullable()]
"""A value that a preset gives where none is named: null in a form, never in Python."""


def of_preset(**options: Any) -> Any:
    """Make a pydantic field of type `OfPreset`; a validator of its model fills it in."""
    return Field(default=None, **options)


def complete(settings: BaseModel) -> dict[str, Any]:
    """Return settings as JSON values, every default spelled out."""
    values: dict[str, Any] = to_jsonable_python(settings.model_dump())
    return values


def unknown_engine(stage: str, engine: str | None) -> ValueError:
    """Make the error for a stage whose settings name no engine, so were not resolved."""
    return ValueError(f"{stage}.engine is {engine}: name an engine, or take the profile's with settings.resolved()")


def known_threshold(thresholds: Mapping[str, float], engine: str, *, setting: str) -> float:
    """Return the threshold that was measured for a diarization engine.

    Args:
        thresholds: By the name of the engine.
        engine: `Diarizer.name`.
        setting: Where a user sets one instead, for the message: "linking.threshold".

    Raises:
        ValueError: None is known for the engine.
    """
    if engine not in thresholds:
        raise ValueError(
            f"no threshold is known for the diarization engine {engine!r} (known: {', '.join(thresholds)}): "
            f"set {setting}"
        )
    return thresholds[engine]


def is_execution(field: FieldInfo) -> bool:
    """Whether a field is marked with `execution`."""
    return _mark(field, _EXECUTION) is True


def shaping(settings: BaseModel) -> dict[str, Any]:
    """Return the settings that a stage's output depends on.

    Left out are fields marked `execution` and the blocks of engines that do not run.

    Args:
        settings: Of a stage, resolved: its `engine`, if it has one, is named.
    """
    chosen = getattr(settings, "engine", None)
    dumped = settings.model_dump(mode="json")
    shaped: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if is_execution(field) or _mark(field, _ENGINE) not in (None, chosen):
            continue
        value = getattr(settings, name)
        shaped[name] = shaping(value) if isinstance(value, BaseModel) else dumped[name]
    return shaped


def digest(value: Any) -> str:
    """Hash a JSON value: 16 hexadecimal digits of SHA-256; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _mark(field: FieldInfo, name: str) -> Any:
    return field.json_schema_extra.get(name) if isinstance(field.json_schema_extra, dict) else None
