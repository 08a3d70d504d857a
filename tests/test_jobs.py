"""The jobs as command lines from the bundle's folder, shrunk by overrides and a small cohort."""

import json
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

WEIGHTS = ["autoencoder.pt", "denoiser.pt", "guide.pt", "judge.pt", "second_judge.pt"]


@pytest.fixture(scope="session")
def models(root):
    """The committed weights."""
    return root / "models"


@pytest.fixture
def command(small_cohort, tmp_path):
    """The words that run one job of the bundle; everything it writes goes to `tmp_path`."""

    def words(run_id, *configs, **options):
        configs = [*(f"configs/{name}" for name in configs), str(small_cohort)]
        shared = {"cache_dir": small_cohort.parent / "cache", "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
        words = [word for name, value in {**shared, **options}.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(configs), *words]

    return words


@pytest.fixture
def job(root, command):
    """Run one job of the bundle in a process and return what it printed."""

    def run(*job, **options):
        done = subprocess.run(command(*job, **options), cwd=root, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


ALIGN = {"iterations": 2, "num_snapshots": 2, "batch_size": 4, "anchor_batch_size": 4, "pool_size": 8}
EVALUATE = {"num_images": 16, "num_others": 8, "num_real": 60, "num_stated": 8, "num_round_trip": 8, "scales": [4.0]}


def test_align_and_evaluate(job, models, tmp_path):
    out = tmp_path / "align"
    job("training", "align.yaml", output_dir=out, models_dir=models, **ALIGN)
    assert {path.name for path in out.iterdir()} >= {"model.pt", "checkpoint.pt", "snapshots"}
    printed = job("evaluating", "evaluate.yaml", output_dir=out, models_dir=models, **EVALUATE)
    assert "guide and judge agree" in printed
    assert printed.rstrip().endswith("report.html")
    report = json.loads((out / "report.json").read_text())
    assert report["before"]["n"] == report["after"]["n"] == 16
    assert [(row["iteration"], row["n"]) for row in report["trajectory"]] == [(1, 8), (2, 8)]
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert {"report.html", "report.csv", "report.txt", "checklist.md"} <= {path.name for path in out.iterdir()}
    assert report["after"]["quality"] == {}  # of so few people nothing is said


@pytest.mark.slow
def test_plain_fine_tuning_on_the_target(job, models, tmp_path):
    out = tmp_path / "plain"
    job("run", "align.yaml", "plain.yaml", output_dir=out, models_dir=models, **ALIGN)
    job("run", "evaluate.yaml", output_dir=out, models_dir=models, **{**EVALUATE, "scales": []})
    report = json.loads((out / "report.json").read_text())
    assert report["weights"]["before"] != report["weights"]["after"]
    assert report["after"]["guidance"] == []


def losses(folder):
    """(name, iteration) -> value of all that the run of this folder has logged."""
    client, number = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db"), (folder / "mlflow_run.txt").read_text()
    names = client.get_run(number).data.metrics
    return {(name, point.step): point.value for name in names for point in client.get_metric_history(number, name)}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.5])
def test_an_alignment_that_is_killed_goes_on_as_if_it_had_not_been(root, command, job, models, tmp_path, seconds):
    options = {**ALIGN, "models_dir": models, "iterations": 8}
    job("training", "align.yaml", output_dir=tmp_path / "whole", **options)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command("training", "align.yaml", output_dir=killed, **options), cwd=root)
    while not (killed / "checkpoint.pt").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(seconds)
    process.kill()
    assert process.wait() == -9
    assert not (killed / "model.pt").is_file()
    job("training", "align.yaml", output_dir=killed, **options)
    whole, resumed = losses(tmp_path / "whole"), losses(killed)
    assert max(step for _, step in whole) == 8
    assert resumed == pytest.approx(whole, abs=1e-6)


@pytest.mark.slow
def test_the_whole_chain_from_nothing_and_a_second_time(root, job, small_cohort, tmp_path):
    """Weights of two iterations each, an alignment and its evaluation on them.

    What is complete is not run again; made afresh, the weights are the same to the bit.
    """
    models = tmp_path / "models"
    made_by = [sys.executable, "-m", "scripts.make_weights", f"--models_dir={models}", f"--work_dir={tmp_path}/work"]
    made_by += [f"--overlay={small_cohort}", "--iterations=2", "--batch_size=4"]
    made_by += [f"--cache_dir={small_cohort.parent}/cache", f"--tracking_uri=sqlite:///{tmp_path}/mlflow.db"]
    first = subprocess.run(made_by, cwd=root, capture_output=True, text=True, timeout=1800)
    assert first.returncode == 0, first.stderr[-3000:]
    made = {path.name for path in models.iterdir()}
    assert made == {*WEIGHTS, "clip", "clip_neutral", "manifest.json", "subjects.json", "README.md"}
    manifest = (models / "manifest.json").read_text()
    second = subprocess.run([*made_by, "--check"], cwd=root, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.count("complete") == 7
    assert (models / "manifest.json").read_text() == manifest
    third = subprocess.run([*made_by, "--fresh"], cwd=root, capture_output=True, text=True, timeout=1800)
    assert third.stdout.count("bit-equal") == 7, third.stdout[-3000:] + third.stderr[-3000:]
    job("training", "align.yaml", output_dir=tmp_path / "align", models_dir=models, **ALIGN)
    job("evaluating", "evaluate.yaml", output_dir=tmp_path / "align", models_dir=models, **EVALUATE)
    assert (tmp_path / "align" / "report.json").is_file()
