"""configs/metadata.json against the newest bundle schema (meta_schema_20240725), whose rules stand here.

The schema itself is fetched over the network by `monai.bundle verify_metadata`; a test must not need that.
"""

import json
import re

import jsonschema
import pytest

import bundle

TEXT = {"type": "string", "minLength": 1}
VERSIONS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d"}}
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "type": TEXT,
        "format": TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": TEXT,
        "value_range": {"type": "array", "items": {"type": ["number", "string"]}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
SIDE = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
NETWORK = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": SIDE, "outputs": SIDE}}
REQUIRED = (
    "schema version monai_version pytorch_version numpy_version required_packages_version task description authors "
    "copyright network_data_format"
).split()
# Not asked for by the schema, but by the Model Zoo and its reviewers.
EXPECTED = "changelog name data_source data_type image_classes eval_metrics intended_use references".split()
SCHEMA = {
    "type": "object",
    "required": [*REQUIRED, *EXPECTED],
    "properties": {
        **dict.fromkeys((*REQUIRED, "name", "data_source", "data_type", "image_classes", "intended_use"), TEXT),
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "required_packages_version": VERSIONS,
        "network_data_format": NETWORK,
        "changelog": {"type": "object", "additionalProperties": TEXT},
        "eval_metrics": {"type": "object"},
        "references": {"type": "array", "items": TEXT, "minItems": 1},
        "supported_apps": {"type": "object"},
    },
    "patternProperties": {r"^[_a-zA-Z0-9]+_data_format$": NETWORK},
    "not": {"required": ["optional_packages_version"]},
}


@pytest.fixture(scope="module")
def metadata(root):
    return json.loads((root / "configs" / "metadata.json").read_text())


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_follows_the_schema(metadata):
    jsonschema.Draft201909Validator(SCHEMA).validate(metadata)
    assert metadata["schema"].endswith("/meta_schema_20240725.json")


def test_the_rules_above_refuse_a_tensor_without_format(metadata):
    broken = json.loads(json.dumps(metadata))
    del broken["autoencoder_data_format"]["inputs"]["image"]["format"]
    with pytest.raises(jsonschema.ValidationError, match="'format' is a required property"):
        jsonschema.Draft201909Validator(SCHEMA).validate(broken)


def test_the_changelog_knows_this_version(metadata):
    assert metadata["version"] == bundle.__version__
    assert metadata["version"] in metadata["changelog"]


# The Model Zoo installs on Python 3.10: the last versions there of packages that have left it since.
FOR_PYTHON_3_10 = {
    "numpy": "2.2.6",
    "scipy": "1.15.3",
    "scikit-learn": "1.7.2",
    "pandas": "2.3.3",
    "matplotlib": "3.10.9",
    "pillow": "12.3.0",
    "botorch": "0.16.1",
    "fairlearn": "0.14.0",
    "diffusers": "0.41.0",
    "transformers": "5.20.2",
}


def test_versions_are_the_tested_ones_where_python_3_10_has_them(metadata, pins):
    named = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    named |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    assert named == {**pins, **FOR_PYTHON_3_10}


def test_the_described_network_is_one_tensor_in_one_tensor_out(metadata):
    """`verify_net_in_out` and the export commands call `network_def` with one image and read `pred`."""
    form = metadata["network_data_format"]
    assert list(form["inputs"]) == ["image"]
    assert list(form["outputs"]) == ["pred"]


def test_channel_names_number_the_channels(metadata):
    forms = [value for name, value in metadata.items() if re.fullmatch(r"\w+_data_format", name)]
    tensors = [tensor for form in forms for side in form.values() for tensor in side.values()]
    assert len(forms) == 3
    for tensor in tensors:
        names = tensor.get("channel_def")
        assert names is None or list(names) == [str(number) for number in range(tensor["num_channels"])]
