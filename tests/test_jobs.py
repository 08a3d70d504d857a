"""The jobs as command lines from the bundle's folder, shrunk by overrides and a small cohort."""

import json
import subprocess
import sys

import pytest

WEIGHTS = ["autoencoder.pt", "denoiser.pt", "guide.pt", "judge.pt"]


@pytest.fixture(scope="session")
def models(root, random_models):
    """The committed weights; before there are any, random ones."""
    committed = root / "models"
    return committed if all((committed / name).is_file() for name in WEIGHTS) else random_models


@pytest.fixture
def job(root, small_cohort, tmp_path):
    """Run one job of the bundle in a process; everything it writes goes to `tmp_path`."""

    def run(run_id, *configs, **options):
        configs = [*(f"configs/{name}" for name in configs), str(small_cohort)]
        shared = {"cache_dir": small_cohort.parent / "cache", "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
        words = [word for name, value in {**shared, **options}.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(configs), *words]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


ALIGN = {"iterations": 2, "num_snapshots": 2, "batch_size": 4, "anchor_batch_size": 4, "pool_size": 8}
EVALUATE = {"num_images": 16, "num_others": 8, "num_real": 60}


def test_align_and_evaluate(job, models, tmp_path):
    out = tmp_path / "align"
    job("training", "align.yaml", output_dir=out, models_dir=models, **ALIGN)
    assert {path.name for path in out.iterdir()} >= {"model.pt", "checkpoint.pt", "snapshots"}
    printed = job("evaluating", "evaluate.yaml", output_dir=out, models_dir=models, **EVALUATE)
    assert "guide and judge agree" in printed
    assert printed.rstrip().endswith("samples.png")
    report = json.loads((out / "report.json").read_text())
    assert report["before"]["n"] == report["after"]["n"] == 16
    assert [(row["iteration"], row["n"]) for row in report["trajectory"]] == [(1, 8), (2, 8)]
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_plain_fine_tuning_on_the_target(job, models, tmp_path):
    out = tmp_path / "plain"
    job("run", "align.yaml", "plain.yaml", output_dir=out, models_dir=models, **ALIGN)
    job("run", "evaluate.yaml", output_dir=out, models_dir=models, scales=[], **EVALUATE)
    report = json.loads((out / "report.json").read_text())
    assert report["weights"]["before"] != report["weights"]["after"]
    assert report["after"]["guidance"] == []


@pytest.mark.slow
def test_the_whole_chain_from_nothing_and_a_second_time(root, job, small_cohort, tmp_path):
    """Weights of two iterations each, an alignment and its evaluation on them.

    What is complete is not run again; made afresh, the weights are the same to the bit.
    """
    models = tmp_path / "models"
    command = [sys.executable, "-m", "scripts.make_weights", f"--models_dir={models}", f"--work_dir={tmp_path}/work"]
    command += [f"--overlay={small_cohort}", "--iterations=2", "--batch_size=4"]
    command += [f"--cache_dir={small_cohort.parent}/cache", f"--tracking_uri=sqlite:///{tmp_path}/mlflow.db"]
    first = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1800)
    assert first.returncode == 0, first.stderr[-3000:]
    made = {path.name for path in models.iterdir()}
    assert made == {*WEIGHTS, "clip", "clip_neutral", "manifest.json", "README.md"}
    manifest = (models / "manifest.json").read_text()
    second = subprocess.run([*command, "--check"], cwd=root, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.count("complete") == 6
    assert (models / "manifest.json").read_text() == manifest
    third = subprocess.run([*command, "--fresh"], cwd=root, capture_output=True, text=True, timeout=1800)
    assert third.stdout.count("bit-equal") == 6, third.stdout[-3000:] + third.stderr[-3000:]
    job("training", "align.yaml", output_dir=tmp_path / "align", models_dir=models, **ALIGN)
    job("evaluating", "evaluate.yaml", output_dir=tmp_path / "align", models_dir=models, **EVALUATE)
    assert (tmp_path / "align" / "report.json").is_file()
