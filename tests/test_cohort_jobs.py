"""From the published layout of every data set to a tuned model: prepare, three iterations, weights."""

import csv
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


FAIRGENMED = ["race/asian", "race/black", "race/white", "sex/female", "sex/male"]
FAIRGENMED += ["ethnicity/non-hispanic", "ethnicity/hispanic"]
QUICK = ("brats18", "ham10000")  # volumes, and pictures in colour


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in COHORTS]
)
def test_every_data_set_can_be_aligned(name, root, models, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # `initialize` sets it
    _run("align", name, tmp_path, models, EVEN, **SMALL)
    assert (tmp_path / "output" / "model.pt").is_file()


MORE = {"source": 0.4, "guide": 0.3, "target": 0.1, "judge": 0.1, "validation": 0.1}  # some of each group
FAIR = {"iterations": 3, "batch_size": 4, "window": 2, "probe_size": 14, "probe_least": 2}


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("ham10000", ["sex/female", "sex/male", "age_band/under 60", "age_band/60 and over"]),
        pytest.param(
            "chexpert",
            ["sex/female", "sex/male", "race/asian", "race/black", "race/white"],
            marks=pytest.mark.slow,
        ),
        pytest.param("fairgenmed", FAIRGENMED, marks=pytest.mark.slow),
    ],
)
def test_the_papers_data_sets_can_be_made_fair(name, groups, root, models, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # `initialize` sets it
    _run("train_fairdiffusion", name, tmp_path, models, MORE, **FAIR)
    assert (tmp_path / "output" / "model.pt").is_file()
    (window,) = csv.DictReader((tmp_path / "output" / "perturbation" / "perturbation.csv").open())
    assert [column for column in window if column.startswith("scale/")] == [f"scale/{group}" for group in groups]
    assert float(window["gap"]) > 0


def _run(job, name, folder, models, roles, **options):
    """From the published layout of a data set to a finished job."""
    overlay, datalist = f"configs/cohort_{name}.yaml", folder / f"{name}.json"
    described = COHORTS[name](folder / "root")
    attribute = ConfigParser.load_config_files(["configs/common.yaml", overlay])["attribute"]["name"]
    prepare_cohort(name, str(folder / "root"), str(datalist), attribute=attribute, roles=roles, **described)
    assert len(json.loads(datalist.read_text())) == 60
    folders = {f"{place}_dir": str(folder / place) for place in ("output", "cache")}
    data = {"dataset_dir": str(folder / "root")} if name == "tcga_lgg" else {"datalist": str(datalist)}
    made = ConfigWorkflow(
        [f"configs/{job}.yaml", overlay],
        "configs/metadata.json",
        logging_file=False,
        workflow_type="train",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        models_dir=str(models(overlay)),
        **data,
        **folders,
        **options,
    )
    made.initialize()
    made.run()
    monai.utils.set_determinism(None)
