"""Settings of where the work runs."""

import pytest
from pydantic import ValidationError

from candist_core.compute_config import ClusterArgument, ComputeConfig
from candist_core.config import RunConfig, parse_config
from candist_core.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "parsed"),
    [
        ("4", 4),
        (4, 4),
        (True, True),
        ("16GB", "16GB"),
        (["--gres=gpu:1"], ["--gres=gpu:1"]),
        ('["--gres=gpu:1"]', ["--gres=gpu:1"]),
        (None, None),
        ({"cpu": 2}, {"cpu": 2}),
    ],
)
def test_a_value_means_the_same_with_quotes_in_a_form_and_without_in_a_file(written, parsed):
    assert ClusterArgument(name="x", value=written).parsed == parsed


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"address": "tcp://h:1", "cluster_class": "a.B"}, "found address beside cluster_class"),
        ({"address": "tcp://h:1", "max_workers": 3}, "found address beside max_workers"),
        ({"cluster_args": [{"name": "cores", "value": "4"}]}, "found cluster_args without cluster_class"),
        ({"min_workers": 2}, "found min_workers without max_workers"),
        ({"min_workers": 2, "max_workers": 1}, "found max_workers 1 below min_workers 2"),
        ({"cluster_class": "a.B", "cluster_args": [{"name": "x", "value": "["}]}, "wanted a value in YAML"),
        ({"cluster_class": "SLURMCluster"}, "should match pattern"),
        ({"distill": "cloud"}, "'local', 'dask' or 'deployment'"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_sentence(settings, sentence):
    data = {"name": "x", "task": {"labels": [{"name": "a"}, {"name": "b"}]}, "source": {"uri": "x.csv"}}
    with pytest.raises(ConfigError) as caught:
        parse_config(data | {"compute": settings})
    assert sentence in str(caught.value)
    assert "compute" in str(caught.value)


def test_the_form_shows_no_union_but_with_nothing_and_no_free_dict():
    schema = ComputeConfig.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    fields = [field for model in models for field in model.get("properties", {}).values()]
    assert len(fields) > 10
    for field in fields:
        others = [one for one in field.get("anyOf", []) if one != {"type": "null"}]
        assert len(others) <= 1, field
        assert "oneOf" not in field
        assert "additionalProperties" not in field
        assert field.get("type") != "object", field


def test_unknown_arguments_of_arguments_are_refused():
    with pytest.raises(ValidationError):
        ClusterArgument(name="1x", value="4")
    assert RunConfig.model_fields["compute"].annotation is ComputeConfig
