"""The form that the Prefect UI makes of the flows' parameters, read as JSON schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema

from flows.collect_garbage import collect_garbage
from flows.label_corpus import label_corpus
from flows.look_for_data import look_for_data


def schema_of(flow: Any) -> dict[str, Any]:
    return parameter_schema(flow).model_dump()


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, below in value.items():
            yield from nodes(below, f"{path}/{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from nodes(below, f"{path}/{i}")


@pytest.mark.parametrize("flow", [label_corpus, look_for_data, collect_garbage], ids=lambda flow: flow.name)
def test_no_part_of_the_form_is_a_box_of_raw_json(flow):
    for path, node in nodes(schema_of(flow)):
        assert "oneOf" not in node, path
        assert node.get("additionalProperties", False) is False, path
        is_object = node.get("type") == "object"
        assert not is_object or node.get("properties"), f"{path} is an object of no known fields"
        assert node.get("format") != "password", f"{path} would be kept in clear text"


@pytest.mark.parametrize("flow", [label_corpus, look_for_data, collect_garbage], ids=lambda flow: flow.name)
def test_every_field_has_a_title_and_a_description(flow):
    schema = schema_of(flow)
    n_fields = 0
    for path, node in nodes(schema):
        for name, field in node.get("properties", {}).items() if isinstance(node.get("properties"), dict) else ():
            shown = schema["definitions"].get(field.get("$ref", "").removeprefix("#/definitions/"), {}) | field
            assert shown.get("title"), f"{path} {name}"
            assert len(shown.get("description", "")) > 3, f"{path} {name}"
            n_fields += 1
    assert n_fields >= 3


def test_choices_are_lists_to_choose_from_and_secrets_are_names():
    definitions = schema_of(label_corpus)["definitions"]
    assert definitions["TeacherKind"]["enum"] == ["openai", "replay", "zeroshot"]
    teacher = definitions["TeacherConfig"]["properties"]
    assert teacher["api_key_block"]["title"] == "API key block"
    assert "Secret block" in teacher["api_key_block"]["description"]
    assert not [name for name in teacher if name.endswith(("key", "secret", "password", "token"))]


def test_every_bound_of_money_and_time_is_named_with_its_unit():
    definitions = schema_of(label_corpus)["definitions"]
    assert definitions["BudgetConfig"]["properties"]["max_usd"]["title"] == "Max US dollars"
    assert definitions["TeacherConfig"]["properties"]["timeout_s"]["title"] == "Timeout (seconds)"
