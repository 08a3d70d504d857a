"""MLflow tracking through MONAI's handler, with one run per job that survives a restart and is marked when it fails."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import mlflow
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from mlflow.entities import Metric
from monai.handlers import MLFlowHandler
from torch import Tensor

from bundle.files import write_whole

MOST_METRICS = 1000  # that MLflow takes at once


def numbers(output: dict) -> dict[str, float]:
    """The finite numbers of an engine's output, which is what MLflow can store."""
    found = {}
    for name, value in output.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            value = float(value.detach())
        if isinstance(value, float) and math.isfinite(value):
            found[name] = value
    return found


class MlflowTracking(MLFlowHandler):
    """One MLflow run per job: unique name, parameters, the numbers of every iteration, artifacts, final status.

    MONAI's handler would go on with any unfinished run of the same name; here the run's id stands in ``output_dir``,
    so that exactly this job's run is continued. The first process alone tracks. See ``MLFlowHandler`` for the other
    arguments.
    """

    def __init__(self, output_dir: str, job: str, seed: int, every: int = 1, **kwargs):
        with idist.one_rank_first():  # which makes the data base
            super().__init__(
                run_name=f"{job}-{seed}-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}",
                experiment_name=job,
                output_transform=numbers,
                iteration_log=lambda _, iteration: iteration % every == 0,
                epoch_log=False,
                close_on_complete=True,
                **kwargs,
            )
        self.id_file = Path(output_dir) / "mlflow_run.txt"

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        super().attach(engine)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def start(self, engine: Engine) -> None:
        self.cur_run = _known_run(self.client, self.id_file)
        if self.cur_run is not None:
            self.client.update_run(self.cur_run.info.run_id, status="RUNNING")
            self.experiment_param = None
        super().start(engine)
        write_whole(self.id_file, self.cur_run.info.run_id.encode())

    def failed(self, engine: Engine, error: BaseException) -> None:
        if self.cur_run is not None:
            status = mlflow.entities.RunStatus.to_string(mlflow.entities.RunStatus.FAILED)
            self.client.set_terminated(self.cur_run.info.run_id, status=status)
        raise error


def _known_run(client: mlflow.MlflowClient, id_file: Path) -> mlflow.entities.Run | None:
    """The run whose id a job has left, where there is one and the tracking server still has it."""
    try:
        return client.get_run(id_file.read_text().strip())
    except (FileNotFoundError, mlflow.MlflowException):
        return None


def log_results(output_dir: str, tracking_uri: str, files: Sequence[str], report: str = "report.json") -> None:
    """Add ``files`` of ``output_dir`` to the MLflow run of the job that began there, and the numbers of ``report``.

    Without such a run, as when weights from elsewhere are evaluated, there is a new one.
    """
    folder, client = Path(output_dir), mlflow.MlflowClient(tracking_uri=tracking_uri)
    run = _known_run(client, folder / "mlflow_run.txt")
    if run is None:
        name = f"evaluate-{time.strftime('%Y%m%dT%H%M%S')}"
        experiment = client.get_experiment_by_name("evaluate")
        number = experiment.experiment_id if experiment else client.create_experiment("evaluate")
        run = client.create_run(number, run_name=name)
        write_whole(folder / "mlflow_run.txt", run.info.run_id.encode())
    for name in files:
        client.log_artifact(run.info.run_id, str(folder / name))
    now = int(1000 * time.time())
    found = [Metric(*pair, now, 0) for pair in _flat(json.loads((folder / report).read_text()))]
    for start in range(0, len(found), MOST_METRICS):
        client.log_batch(run.info.run_id, metrics=found[start : start + MOST_METRICS])
    client.set_terminated(run.info.run_id)


def _flat(entry: Mapping, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a nested dictionary with their keys joined by slashes; lists are left out."""
    for key, value in entry.items():
        name = f"{path}{key}".replace(" ", "_")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}/")
        elif isinstance(value, int | float):
            yield name, float(value)


class Progress(ProgressBar):
    """A bar over all iterations of a run with the latest numbers; starts where a resumed run starts.

    ``every``: iterations between updates, so that the log of a long run stays readable.
    """

    def __init__(self, keys: Sequence[str], every: int = 1):
        super().__init__(persist=True, desc="training")
        self.keys = tuple(keys)
        self.every = every

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            event = Events.ITERATION_COMPLETED(every=self.every)
            super().attach(engine, output_transform=self._chosen, event_name=event)

    def _chosen(self, output: dict) -> dict:
        return {key: f"{value:.3f}" for key, value in numbers(output).items() if key in self.keys}
