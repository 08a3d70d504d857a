"""Train the weights of ``models/`` from scratch, one stage after the other.

    python -m scripts.make_weights             # resumable: a stage that is complete is not run again
    python -m scripts.make_weights --check     # exit code 1 when a figure is not reproduced
    python -m scripts.make_weights --fresh     # forget what earlier calls did
    python -m scripts.make_weights --page      # write models/README.md again, and nothing else

The figures are compared with the ``manifest.json`` that lay in ``models/`` when the first stage was begun. Any entry of
the training configs can be set for all stages (``--cache_dir /data/cache``), and ``--overlay configs/cohort_mine.yaml
--models_dir weights`` trains the chain on other data.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.files import file_digest, write_whole
from scripts.jobs import command, duration, markdown, read_json, run, shown, start, write_json

# How far a figure may lie from the committed one and still count as reproduced, by the beginning of its name.
TOLERANCES = {
    "accuracy": 0.02,
    "ambiguous": 0.03,
    "auc": 0.01,
    "captions": 0.0,
    "clean": 0.02,
    "final_loss": 0.1,
    "l1": 0.004,
    "psnr": 1.0,
    "temperature": 0.4,
    "top1": 0.1,
}


@dataclass(frozen=True)
class Stage:
    """One training job: the ``file`` of ``models/`` that it writes, and those that it reads."""

    name: str
    file: str
    what: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


SHARED_CONFIGS = ("configs/common.yaml", "configs/cohort_phantom.yaml")  # from which every stage takes entries
CLIP, NEUTRAL_CLIP = (f"{folder}/open_clip_model.safetensors" for folder in ("clip", "clip_neutral"))
STAGES = (
    Stage("autoencoder", "autoencoder.pt", "slice to latent and back", "train_autoencoder.yaml"),
    Stage(
        "clip", CLIP, "text tower that conditions the denoiser, image tower of the consistency term",
        "train_clip.yaml",
    ),
    Stage(
        "diffusion", "denoiser.pt", "the base: denoiser of the source cohort's slices, averaged weights",
        "train_diffusion.yaml", needs=("autoencoder.pt", CLIP),
    ),
    Stage(
        "guide", "guide.pt", "classifier that steers the alignment",
        "train_classifier.yaml", {"role": "guide"}, ("autoencoder.pt",),
    ),
    Stage(
        "judge", "judge.pt", "classifier that measures the result: other architecture, other subjects",
        "train_classifier.yaml", {"role": "judge"}, ("autoencoder.pt",),
    ),
    Stage(
        "second_judge", "second_judge.pt", "classifier of a third architecture, beside the judge",
        "train_classifier.yaml",
        {"role": "judge", "name": "second_judge", "network": "$@second_judge_def.to(@device)", "seed": 2},
        ("autoencoder.pt",),
    ),
    Stage(
        "clip_neutral", NEUTRAL_CLIP, "image features that no loss uses, trained on captions that name no sex",
        "train_clip.yaml", {"clip_folder": "clip_neutral", "role": "judge", "wordings": ["neutral"], "seed": 1},
    ),
)  # fmt: skip


def main(
    models_dir: str = "models",
    work_dir: str = "outputs/weights",
    check: bool = False,
    fresh: bool = False,
    page: bool = False,
    overlay: str | None = None,
    **options: Any,
) -> None:
    """Run the stages that are not complete, then compare their figures with the committed ones.

    Args:
        models_dir: where the weights go.
        work_dir: checkpoints and marks of finished stages.
        check: exit with 1 when a figure is not reproduced.
        fresh: run every stage again.
        page: only write the page of ``models_dir``.
        overlay: a config that is laid over those of the stages.
        options: entries of the configs, set for every stage.
    """
    models, work = Path(models_dir), Path(work_dir)
    if page:
        write_page(models, overlay)
        return
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    if models_dir != "models":
        options["models_dir"] = models_dir
    committed, manifest = run_chain(models, work, overlay, options)
    write_page(models, overlay)
    rows = compare(committed, manifest)
    print("\n" + markdown(("file", "figure", "committed", "now", "tolerance", ""), rows))
    if check and any(row[-1] == "FAIL" for row in rows):
        sys.exit(1)


def run_chain(
    models: Path, work: Path, overlay: str | None = None, options: Mapping[str, Any] | None = None
) -> tuple[dict, dict]:
    """Run every stage that is not complete; return the manifest from before the first of them, and the present one."""
    committed = work / "committed.json"
    if not committed.is_file():
        write_json(read_json(models / "manifest.json"), committed)
    commands = [stage_command(stage, overlay, options) for stage in STAGES]
    _announce(read_json(committed), models, work, commands)
    for stage, words in zip(STAGES, commands, strict=True):
        if not is_complete(stage, words, work, models):
            run_stage(stage, words, work, models)
    return read_json(committed), read_json(models / "manifest.json")


def stage_command(stage: Stage, overlay: str | None = None, options: Mapping[str, Any] | None = None) -> list[str]:
    """The stage's command without its ``--output_dir``."""
    configs = [f"configs/{stage.config}", *([overlay] if overlay else [])]
    return command("training", configs, **stage.options, **(options or {}))


def is_complete(stage: Stage, words: Sequence[str], work: Path, models: Path) -> bool:
    """Whether this command ended, from the same inputs, with the weights that lie in ``models``."""
    mark = read_json(work / stage.name / "stage.json")
    entry = read_json(models / "manifest.json").get(stage.file, {})
    return (
        _is_of(mark, _begun(stage, words, models))
        and mark.get("sha256") is not None
        and mark["sha256"] == entry.get("sha256") == _sha(models / stage.file)
    )


def run_stage(stage: Stage, words: Sequence[str], work: Path, models: Path) -> None:
    """Run or continue a stage; enter its command and, when it ran in one go, its seconds in the manifest."""
    folder, begun = work / stage.name, _begun(stage, words, models)
    mark = read_json(folder / "stage.json")
    continued = _is_of(mark, begun) and mark.get("sha256") is None
    if not continued:
        shutil.rmtree(folder, ignore_errors=True)  # a checkpoint of other inputs
        write_json(begun, folder / "stage.json")
    print(f"\n{stage.name}: {shown(words)}", flush=True)
    started = time.monotonic()
    run([*words, "--output_dir", str(folder)])
    manifest = read_json(models / "manifest.json")
    manifest[stage.file]["command"] = shown(words)
    if not continued:
        manifest[stage.file] |= {"seconds": round(time.monotonic() - started), "cores": os.cpu_count()}
    write_json(manifest, models / "manifest.json")
    write_json({**begun, "sha256": manifest[stage.file]["sha256"]}, folder / "stage.json")


def compare(committed: Mapping[str, dict], made: Mapping[str, dict]) -> list[tuple[str, ...]]:
    """Rows (file, figure, committed, now, tolerance, pass or FAIL); what has no counterpart is "new"."""
    rows = []
    for file, entry in made.items():
        before = committed.get(file, {})
        same = "bit-equal" if before.get("sha256") == entry["sha256"] else "new bits"
        rows.append((file, "sha256", before.get("sha256", "")[:12], entry["sha256"][:12], "", same))
        for figure, value in entry["figures"].items():
            old, allowed = before.get("figures", {}).get(figure), tolerance(figure)
            passed = "new" if old is None else "pass" if abs(value - old) <= allowed + 1e-9 else "FAIL"
            rows.append((file, figure, "" if old is None else f"{old:g}", f"{value:g}", f"{allowed:g}", passed))
    return rows


def tolerance(figure: str) -> float:
    """Raises KeyError for a figure without one."""
    for beginning, value in TOLERANCES.items():
        if figure.startswith(beginning):
            return value
    raise KeyError(f"figure '{figure}' has no tolerance; enter it in TOLERANCES")


def write_page(models: Path, overlay: str | None) -> None:
    write_whole(models / "README.md", readme(read_json(models / "manifest.json"), overlay).encode())


def readme(manifest: Mapping[str, dict], overlay: str | None = None) -> str:
    """``README.md`` of a folder of weights: what each file is, and how it came about."""
    origin = "Trained on the phantom alone, and only of use with it. `make weights` trains them from scratch."
    if overlay:
        origin = f"Trained with `{overlay}`: the terms of those data hold for the weights too."
    rows = []
    for stage in STAGES:
        if entry := manifest.get(stage.file):
            figures = ", ".join(f"{name} {value:g}" for name, value in entry["figures"].items())
            size, sha = f"{entry['bytes'] / 1e6:.2f} MB", f"`{entry['sha256'][:12]}`"
            rows.append((f"`{stage.file}`", stage.what, size, sha, figures, f"`{entry['command']}`"))
    total = sum(entry["bytes"] for entry in manifest.values()) / 1e6
    return f"""# Weights

{origin} State dicts hold half-precision tensors and are read without pickle; the full
checksums stand in `manifest.json`, from which `python -m scripts.make_weights` writes this page. In all {total:.1f} MB.

{markdown(("file", "what it is", "size", "sha256", "figures", "command"), rows)}
"""


def _announce(committed: Mapping[str, dict], models: Path, work: Path, commands: Sequence[Sequence[str]]) -> None:
    total, unknown = 0.0, False
    print(f"{len(STAGES)} stages into {models}/, one after the other:")
    for stage, words in zip(STAGES, commands, strict=True):
        if is_complete(stage, words, work, models):
            print(f"  {stage.name}: complete")
            continue
        entry = committed.get(stage.file, {})
        total, unknown = total + entry.get("seconds", 0), unknown or "seconds" not in entry
        where = f" on {entry['cores']} cores" if "cores" in entry else ""
        print(f"  {stage.name}: {duration(entry.get('seconds'))}{where}")
    print(f"in all {'at least ' * unknown}{duration(total)}, and the time to make the cohorts", flush=True)


def _begun(stage: Stage, words: Sequence[str], models: Path) -> dict:
    """What a stage's result follows from: its command, the text of the configs, and the weights that it reads."""
    named = re.findall(r"[\w./-]+\.yaml", " ".join(words))
    configs = {name: _sha(Path(name)) for name in (*named, *SHARED_CONFIGS)}
    return {"command": shown(words), "configs": configs, "needs": {file: _sha(models / file) for file in stage.needs}}


def _is_of(mark: Mapping, begun: Mapping) -> bool:
    return {key: mark.get(key) for key in begun} == begun


def _sha(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


if __name__ == "__main__":
    start(main)
