"""A wrong configuration gets one sentence that names the next step."""

import pytest
import yaml

from candist_core.config import RunConfig, load_config, parse_config
from candist_core.errors import ConfigError

MINIMAL = {"name": "x", "task": {"labels": [{"name": "a"}, {"name": "b"}]}, "source": {"uri": "x.csv"}}


def sentence(data, **changes):
    with pytest.raises(ConfigError) as caught:
        parse_config(data | changes)
    return str(caught.value)


def test_the_least_configuration_is_enough():
    assert parse_config(MINIMAL).task.label_names == ("a", "b")


def test_an_unknown_key_names_the_nearest_valid_one():
    assert "unknown key 'teacher.modell'" in sentence(MINIMAL, teacher={"modell": "m"})
    assert "did you mean 'model'?" in sentence(MINIMAL, teacher={"modell": "m"})
    assert "valid keys here: name, description, examples" in sentence(
        MINIMAL, task={"labels": [{"name": "a", "zzzz": 1}, {"name": "b"}]}
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "found 0 label(s), wanted at least 2"),
        ([{"name": "a"}], "found 1 label(s), wanted at least 2"),
        ([{"name": "a"}, {"name": "A"}], "found the label 'A' twice (as 'a')"),
        ([{"name": "a"}, {"name": " "}], "found a blank label name"),
    ],
)
def test_no_single_duplicate_or_blank_label_is_taken(labels, words):
    assert words in sentence(MINIMAL, task={"labels": labels})


def test_a_missing_setting_and_one_out_of_bounds_are_named():
    assert "found no 'source'" in sentence({"name": "x", "task": MINIMAL["task"]})
    assert "seed = -1" in sentence(MINIMAL, seed=-1)
    assert "set teacher.replies_uri" in sentence(MINIMAL, teacher={"kind": "replay"})


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a", "found list"), ("a: [", "no YAML"), ("", "found NoneType")],
)
def test_a_file_that_is_no_mapping_is_told(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")


def test_overrides_reach_any_depth_and_are_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    config = load_config(path, ("teacher.kind=zeroshot", "budget.max_usd=2.5", "task.labels=[{name: q}, {name: r}]"))
    assert (config.teacher.kind, config.budget.max_usd, config.task.label_names) == ("zeroshot", 2.5, ("q", "r"))


@pytest.mark.parametrize("override", ["seed", "=1", "seed.a=1", "a..b=1"])
def test_a_malformed_override_is_told(tmp_path, override):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | {"seed": 1}))
    with pytest.raises(ConfigError, match="--set"):
        load_config(path, (override,))


def test_every_field_of_the_form_has_a_description():
    def fields(schema):
        for name, model in {"RunConfig": schema, **schema["$defs"]}.items():
            for field, entry in model.get("properties", {}).items():
                yield f"{name}.{field}", entry

    assert [path for path, entry in fields(RunConfig.model_json_schema()) if not entry.get("description")] == []


def test_the_form_has_no_unions_of_models():
    text = str(RunConfig.model_json_schema())
    assert "oneOf" not in text
    assert "discriminator" not in text


def test_a_configuration_survives_yaml():
    config = parse_config(MINIMAL)
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_a_password_in_the_base_url_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="a user or password in base_url") as caught:
        parse_config(MINIMAL | {"teacher": {"base_url": "http://me:hidden@127.0.0.1:8000/v1"}})
    assert "hidden" not in str(caught.value)
    assert caught.value.__context__ is None
