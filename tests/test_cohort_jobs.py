"""From the published layout of every data set to an alignment: prepare, three iterations, weights."""

import json
import shutil
import sys

import monai
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from safetensors.torch import save_file

from bundle.conditioning import Clip
from bundle.weights import save_weights
from scripts.prepare_cohort import prepare_cohort
from tests.miniatures import COHORTS

SMALL = {"iterations": 3, "num_snapshots": 1, "batch_size": 4, "anchor_batch_size": 4, "pool_size": 8, "num_steps": 4}
EVEN = {"source": 0.2, "target": 0.2, "guide": 0.2, "judge": 0.2, "validation": 0.2}


@pytest.fixture
def models(root, tmp_path):
    """A function that fills a folder with the networks of a cohort's configs as they are before any training."""

    def fill(overlay):
        parser = ConfigParser()
        parser.read_config(["configs/align.yaml", overlay])
        folder = tmp_path / "models"
        for name in ("autoencoder", "denoiser", "guide", "judge"):
            save_weights(parser.get_parsed_content(f"{name}_def"), folder / f"{name}.pt")
        for fold in range(5):  # where the judge is cross-fitted
            shutil.copy(folder / "judge.pt", folder / f"judge_{fold}.pt")
        (folder / "clip").mkdir()
        (folder / "clip" / "open_clip_config.json").write_text(
            (root / "models" / "clip" / "open_clip_config.json").read_text()
        )
        clip = Clip(f"local-dir:{folder / 'clip'}", trainable=True)
        save_file(clip.model.state_dict(), folder / "clip" / "open_clip_model.safetensors")
        return folder

    return fill


QUICK = ("brats18", "ham10000")  # volumes, and pictures in colour


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in COHORTS]
)
def test_every_data_set_can_be_aligned(name, root, models, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # `initialize` sets it
    overlay, datalist = f"configs/cohort_{name}.yaml", tmp_path / f"{name}.json"
    options = COHORTS[name](tmp_path / "root")
    attribute = ConfigParser.load_config_files(["configs/common.yaml", overlay])["attribute"]["name"]
    prepare_cohort(name, str(tmp_path / "root"), str(datalist), attribute=attribute, roles=EVEN, **options)
    assert len(json.loads(datalist.read_text())) == 60
    folders = {f"{place}_dir": str(tmp_path / place) for place in ("output", "cache")}
    data = {"dataset_dir": str(tmp_path / "root")} if name == "tcga_lgg" else {"datalist": str(datalist)}
    job = ConfigWorkflow(
        ["configs/align.yaml", overlay],
        "configs/metadata.json",
        logging_file=False,
        workflow_type="train",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        models_dir=str(models(overlay)),
        **data,
        **folders,
        **SMALL,
    )
    job.initialize()
    job.run()
    monai.utils.set_determinism(None)
    assert (tmp_path / "output" / "model.pt").is_file()
