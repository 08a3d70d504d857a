"""`configs/inference.yaml`: it says what common.yaml says, MONAI finds what it asks for, and it runs as documented."""

import json
import re
from pathlib import Path

import monai
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from bundle.networks.pretrained import load_denoiser
from bundle.weights import digest
from tests.pipelines import save_tiny_pipeline

OWN = {"bundle_root", "initialize"}  # the same in meaning, not in words


@pytest.fixture(autouse=True)
def in_root(root, monkeypatch):
    monkeypatch.chdir(root)
    yield
    monai.utils.set_determinism(None)


@pytest.fixture
def build(tmp_path):
    def workflow(*overlays, run_id="generating", **options):
        files = ["configs/inference.yaml", *overlays]
        made = ConfigWorkflow(
            files,
            "configs/metadata.json",
            logging_file=False,
            workflow_type="inference",
            run_id=run_id,
            output_dir=str(tmp_path / "made"),
            **options,
        )
        made.initialize()
        return made

    return workflow


def test_what_it_has_in_common_with_the_other_jobs_is_the_same():
    alone, phantom = (ConfigParser.load_config_file(f"configs/{name}.yaml") for name in ("inference", "cohort_phantom"))
    common = ConfigParser.load_config_file("configs/common.yaml")
    assert alone["network_def"] == common["judge_def"]
    shared = (common.keys() & alone.keys()) - OWN
    assert {"autoencoder_def", "denoiser_def", "scheduler", "slice_preprocessing", "attribute"} <= shared
    different = {name for name in shared if alone[name] != common[name]}
    assert different == {"judge", "prompts"}  # its network by MONAI's name, network_def; an option of this job
    assert all(alone[name] == phantom[name] for name in phantom.keys() & alone.keys())


def test_it_names_no_other_file():
    lines = Path("configs/inference.yaml").read_text().splitlines()
    assert "%configs" not in "\n".join(line.partition("#")[0] for line in lines)


def test_monai_finds_all_properties_of_an_inference(build):
    made = build(prompts=["a"])
    assert made.check_properties() == []
    assert made.evaluator is made.parser.get_parsed_content("evaluator")


def test_the_example_in_the_documents_runs(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", Path("docs/pipelines.md").read_text(), re.DOTALL)
    exec(code.replace("outputs/two", str(tmp_path / "two")), {})
    printed = capsys.readouterr().out.splitlines()[-1]
    share = json.loads((tmp_path / "two" / "manifest.json").read_text())["judge"]["share"]
    assert printed == str(share)
    images = [np.asarray(Image.open(tmp_path / "two" / "images" / f"00000{i}.png")) for i in (0, 1)]
    assert all(image.shape == (128, 128) and image.std() > 20 for image in images)
    assert not np.array_equal(*images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ["a"], "proportions": {"male": 0.3}}, "proportions"),
        ({"prompts": ["a"], "weights": "nowhere.pt"}, "no such weights"),
        ({"prompts": ["a"], "nifti": True, "pixel_size": None}, "nifti"),
        ({"prompts": ["a"], "batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(build, tmp_path, options, message):
    with pytest.raises(RuntimeError) as caught:
        build(**options).run()
    causes = []
    error = caught.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any(message in cause for cause in causes)
    assert not (tmp_path / "made" / "images").exists()


def test_images_of_a_pipeline(build, tmp_path):
    base = str(save_tiny_pipeline(tmp_path / "base"))
    options = {"pretrained": base, "weights": None, "image_size": 32, "num_steps": 3}
    build("configs/base_diffusers.yaml", prompts=["a brain mr"], num_images=3, **options).run()
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert Image.open(tmp_path / "made" / "images" / "000002.png").size == (32, 32)
    assert manifest["settings"]["pixel_size"] == 6.0  # 192 mm / 32
    assert manifest["networks"]["denoiser"] == digest(load_denoiser(base))
