"""Marks on fields, folded groups, and the values that cache keys and recipes are made of."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsclap.settings import Folded, complete, digest, engine_block, execution, is_execution, shaping


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = 1.0
    patience: float = execution(10.0, gt=0)


class Stage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["first", "second"] | None = None
    batch: int = execution(4, ge=1)
    rounds: int = 3
    group: Folded[Group] = Field(default_factory=Group, description="Rarely set.")
    first: Folded[Group] = engine_block("first", Group, "Only the engine first uses it.")


def test_a_folded_group_takes_none_for_its_defaults() -> None:
    assert Stage.model_validate({"group": None}) == Stage.model_validate_json('{"group": null}') == Stage()
    assert Stage().group == Group()
    assert Stage.model_validate({"group": {"low": 2}}).group == Group(low=2)
    with pytest.raises(ValidationError, match=r"group\.high"):
        Stage.model_validate({"group": {"high": 2}})


def test_a_folded_group_is_null_in_json_only_while_it_holds_the_defaults() -> None:
    assert Stage().model_dump(mode="json")["group"] is None
    assert Stage().model_dump()["group"] == {"low": 1.0, "patience": 10.0}
    changed = Stage(group=Group(low=2.0))
    assert changed.model_dump(mode="json")["group"] == {"low": 2.0, "patience": 10.0}
    assert Stage.model_validate_json(changed.model_dump_json()) == changed


def test_a_form_shows_a_folded_group_as_one_optional_line() -> None:
    schema = Stage.model_json_schema()["properties"]["group"]
    assert schema == {
        "anyOf": [{"$ref": "#/$defs/Group"}, {"type": "null"}],
        "default": None,
        "description": "Rarely set.",
    }


def test_complete_spells_out_every_default_and_round_trips() -> None:
    stage = Stage(engine="first", group=Group(low=2.0))
    assert complete(stage) == {
        "engine": "first",
        "batch": 4,
        "rounds": 3,
        "group": {"low": 2.0, "patience": 10.0},
        "first": {"low": 1.0, "patience": 10.0},
    }
    assert Stage.model_validate(complete(stage)) == stage


def test_shaping_leaves_out_execution_and_engines_that_do_not_run() -> None:
    assert shaping(Stage(engine="first")) == {
        "engine": "first",
        "rounds": 3,
        "group": {"low": 1.0},
        "first": {"low": 1.0},
    }
    assert "first" not in shaping(Stage(engine="second"))


def test_the_mark_of_a_field_is_read_from_the_field() -> None:
    assert is_execution(Stage.model_fields["batch"])
    assert not is_execution(Stage.model_fields["rounds"])
    assert not is_execution(Stage.model_fields["first"])


def test_a_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 16
