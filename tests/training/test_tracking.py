"""One MLflow run per job: what is logged, that a restart continues it, and how a failure is marked."""

import mlflow
import pytest
import torch
from ignite.engine import Engine, Events

from bundle.training.tracking import MlflowTracking, Progress, numbers


def test_numbers_are_the_finite_single_ones():
    output = {
        "total": 1.5,
        "loss": torch.tensor(0.25),
        "agreement": float("nan"),
        "image": torch.zeros(2, 3),
        "note": "text",
    }
    assert numbers(output) == {"total": 1.5, "loss": 0.25}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


def run(folder, database, iterations, fail=None, **changes):
    """An engine that logs its iteration; ``fail``: an error after that many."""
    engine = Engine(lambda engine, _: {"total": float(engine.state.iteration)})
    tracking = MlflowTracking(output_dir=folder, job="align", seed=3, tracking_uri=database, **changes)
    tracking.attach(engine)
    if fail:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=fail), _fail)
    engine.run(range(iterations))


def _fail(engine):
    raise RuntimeError("the disk is full")


def runs(database):
    client = mlflow.MlflowClient(database)
    return client.search_runs([client.get_experiment_by_name("align").experiment_id])


def test_a_run_its_failure_and_its_continuation(tmp_path, database):
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(first, database, 4, fail=2)
    (failed,) = runs(database)
    assert failed.info.status == "FAILED"
    assert failed.info.run_name.startswith("align-3-")
    assert failed.data.metrics["total"] == 2

    run(second, database, 4, every=2)
    other = next(each for each in runs(database) if each.info.run_id != failed.info.run_id)
    assert other.info.status == "FINISHED"
    assert (second / "mlflow_run.txt").read_text() == other.info.run_id
    history = mlflow.MlflowClient(database).get_metric_history(other.info.run_id, "total")
    assert sorted((metric.step, metric.value) for metric in history) == [(2, 2.0), (4, 4.0)]

    run(first, database, 6)  # the same folder: the same run goes on
    assert len(runs(database)) == 2
    again = next(each for each in runs(database) if each.info.run_id == failed.info.run_id)
    assert again.info.status == "FINISHED"
    assert again.data.metrics["total"] == 6
    assert again.data.params["epoch_length"] == "4"


def test_the_first_process_alone_tracks(tmp_path, database, monkeypatch):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    run(tmp_path, database, 2)
    assert list(tmp_path.iterdir()) == []


def test_the_bar_shows_the_keys_asked_for(capsys):
    engine = Engine(lambda engine, _: {"total": float(engine.state.iteration), "anchor": 7.0})
    Progress(["total"]).attach(engine)
    engine.run(range(3))
    shown = capsys.readouterr().err
    assert "total=3.000" in shown
    assert "anchor" not in shown
