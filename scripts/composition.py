"""Both aims one after the other on the phantom: first equal quality, then the right proportion, measured after each.

python -m scripts.benchmark compose     # resumable; a step that has its file is passed over
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.fairness import ATTRIBUTE, SPACE
from scripts.jobs import command, markdown, read_json, run, write_json

METHOD = "importance"
BASE = "models/denoiser.pt"
TARGET = {"male": 0.3}  # far from where the importance weights alone lead
UNEVEN = "configs/cohort_phantom_uneven.yaml"
SHORT = {"scales": [], "num_stated": 0, "num_round_trip": 0, "num_snapshot_images": 16}  # of the main images alone

Report = Mapping[str, Any]


def steps(work: Path, seed: int) -> dict[str, tuple[list[str], Path]]:
    """Name of each step -> its command, and the file that it leaves."""
    fair, align = work / "fair", work / "align"
    shared = {"seed": seed, "target": TARGET}
    aligned = {**shared, "output_dir": align, "base": fair / "model.pt"}
    train = command(
        "training", ["configs/train_fairdiffusion.yaml"], seed=seed, output_dir=fair, method=METHOD, stated=0.5
    )
    became = {**shared, "output_dir": work / "shares", "tuned": fair / "model.pt", "snapshots": "$None"}
    made = {
        "equal quality": (train, fair / "model.pt"),
        "evaluation of proportions, base and fair": (
            command("evaluating", ["configs/evaluate.yaml", UNEVEN], **became, **SHORT),
            work / "shares" / "report.json",
        ),
        "alignment": (command("training", ["configs/align.yaml", UNEVEN], **aligned), align / "model.pt"),
        "evaluation of proportions, aligned": (
            command("evaluating", ["configs/evaluate.yaml", UNEVEN], **aligned, **SHORT),
            align / "report.json",
        ),
    }
    for name, weights in (("base", BASE), ("fair", fair / "model.pt"), ("aligned", align / "model.pt")):
        folder = work / f"quality_{name}"
        options = {"seed": seed, "output_dir": folder, "weights": weights, "images_dir": work / "images"}
        words = command("evaluating", ["configs/evaluate_fairness.yaml"], **options)
        made[f"evaluation of quality, {name}"] = (words, folder / "fairness.json")
    return made


def compose(work: Path, seed: int, path: Path) -> None:
    """Carry out every step that has not left its file yet, and write what the page shows to ``path``."""
    for name, (words, left) in steps(work, seed).items():
        print(f"{name}: {'done' if left.is_file() else f'log {work}/log.txt'}", flush=True)
        if not left.is_file():
            run(words, work / "log.txt")
    write_json(_kept(work, seed), path)


def _kept(work: Path, seed: int) -> dict:
    """Of each model the share of each group that neutral prompts give, and by group the quality that stated ones do."""
    first, report = (read_json(work / name / "report.json") for name in ("shares", "align"))
    shares = {
        name: {key: side[key] for key in ("n", "proportion", "ci95", "true_proportion", "verdict")}
        for name, side in (("base", first["before"]), ("fair", report["before"]), ("aligned", report["after"]))
    }
    entries = {
        name: read_json(work / f"quality_{name}" / "fairness.json")["attributes"][ATTRIBUTE]
        for name in ("base", "fair", "aligned")
    }
    quality = {name: _quality(entry, "generated", "generated_to_real") for name, entry in entries.items()}
    quality["ceiling"] = _quality(entries["base"], "ceiling", "real_to_real")
    return {"seed": seed, "method": METHOD, "target": report["target"], "shares": shares, "quality": quality}


def _quality(entry: Report, side: str, direction: str) -> dict:
    by_group = entry[side]["by_group"]
    return {
        "n_each": by_group["n_each"],
        "kid": {group: found["quality"][SPACE]["kid"] for group, found in by_group["groups"].items()},
        "difference": by_group["difference"][SPACE]["kid"],
        "auc": entry["semantic"][direction]["auc"],
    }


def composition_table(result: Report) -> str:
    """Model by model what each aim has reached."""
    if not result:
        return ""
    group = list(result["target"])[-1]
    titles = {"base": "the base", "fair": f"after equal quality ({result['method']})", "aligned": "after the alignment"}
    titles["ceiling"] = "ceiling: real people"
    rows = []
    for name, title in titles.items():
        quality, share = result["quality"][name], result["shares"].get(name)
        shown = f"{_percent(share['proportion'][group])} {_ends(share['ci95'][group], 100)}" if share else "-"
        kids = [f"{kid['value']:z.3f} {_ends(kid['ci95'])}" for kid in quality["kid"].values()]
        auc = f"{quality['auc']['value']:.3f} {_ends(quality['auc']['ci95'])}"
        rows.append((title, shown, share["verdict"] if share else "-", *kids, auc))
    names = [f"KID, {name}" for name in result["quality"]["base"]["kid"]]
    head = ("model", f"share of {group}s", f"verdict, target {_percent(result['target'][group])}", *names, "AUC")
    return markdown(head, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _ends(interval: list[float], factor: int = 1) -> str:
    digits = 1 if factor == 100 else 3
    return f"[{', '.join(f'{factor * end:z.{digits}f}' for end in interval)}]"
