"""Fixtures that all tests share."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

import bundle  # noqa: F401  (makes torchvision importable, whatever a test imports first)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The bundle's folder."""
    return ROOT


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data sets: ``FAIR_TEST_DATA``, by default ``../shared/data`` from the bundle's folder."""
    return _require(ROOT / os.environ.get("FAIR_TEST_DATA", "../shared/data"))


def _require(folder: Path) -> Path:
    """The folder; without it the test is skipped, or fails where ``FAIR_TEST_DATA`` promises the data."""
    if not folder.is_dir():
        missing = pytest.fail if "FAIR_TEST_DATA" in os.environ else pytest.skip
        missing(f"no data at {folder}; set FAIR_TEST_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def tcga_lgg(test_data: Path) -> Path:
    """The real TCGA-LGG slices in the Buda layout."""
    return _require(test_data / "tcga_lgg" / "kaggle_3m")


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory) -> Path:
    """A config overlay: cohorts of 24 phantom subjects by datalist; its folder holds them, and may hold caches."""
    from bundle.cohorts import phantom

    folder = tmp_path_factory.mktemp("small")
    cohort = yaml.safe_load((ROOT / "configs" / "cohort_datalist.yaml").read_text())
    cohort["dataset_dir"] = str(folder / "phantom")
    cohort["datalists"] = {
        role: str(phantom.generate(folder / "phantom", role, subjects=24)) for role in cohort["datalists"]
    }
    overlay = folder / "small.yaml"
    overlay.write_text(yaml.safe_dump(cohort))
    return overlay


@pytest.fixture(scope="session")
def random_models(tmp_path_factory) -> Path:
    """A folder like ``models/`` with the configs' networks as they are before any training."""
    import torch
    from monai.bundle import ConfigParser
    from safetensors.torch import save_file

    from bundle.conditioning import Clip
    from bundle.weights import save_weights

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "configs" / "common.yaml"))
    for name in ("autoencoder", "denoiser", "guide", "judge", "second_judge"):
        save_weights(parser.get_parsed_content(f"{name}_def"), folder / f"{name}.pt")
    for name in ("clip", "clip_neutral"):
        (folder / name).mkdir()
        shutil.copy(ROOT / "models" / name / "open_clip_config.json", folder / name)
        clip = Clip(f"local-dir:{folder / name}", trainable=True)
        save_file(clip.model.state_dict(), folder / name / "open_clip_model.safetensors")
    (folder / "subjects.json").write_text('{"guide.pt": ["g"], "judge.pt": ["j"], "second_judge.pt": ["j"]}')
    return folder
