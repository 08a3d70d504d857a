"""Made-up reports with every part of a report, and with nothing that may be left out."""

from __future__ import annotations

import copy

import numpy as np

SPACES = {"clip": 0.08, "resnet50": 0.031}


def est(value, half):
    return {"value": value, "ci95": [value - half, value + half]}


def shares(groups, last, half, n=2048, **labels):
    """Proportions in which the last group has `last` and the others share the rest, with 2:1 for three groups."""
    rest = {2: (1.0,), 3: (2 / 3, 1 / 3)}[len(groups)]
    values = [*[(1 - last) * part for part in rest], last]
    return {
        **labels,
        "n": n,
        "proportion": dict(zip(groups, values)),
        "ci95": {group: [max(x - half, 0.0), min(x + half, 1.0)] for group, x in zip(groups, values)},
    }


def judged(entry, verdict=None):
    """Only what a calibration or a second judge has of shares."""
    kept = {key: entry[key] for key in ("proportion", "ci95")}
    return kept if verdict is None else {**kept, "verdict": verdict}


def quality(n, kid, fd, recall=0.71):
    return {
        space: {
            "n": n,
            "kid": est(kid * scale, 0.12 * kid * scale + 0.0004),
            "fd": est(fd * (1 + scale), 1.4),
            "precision": est(0.78, 0.021),
            "recall": est(recall, 0.024),
            "density": est(0.91, 0.033),
            "coverage": est(0.86, 0.019),
        }
        for space, scale in SPACES.items()
    }


def by_group(groups, kid, fd, alike, n=400):
    entries = {
        group: {
            "n": n,
            "quality": quality(n, kid * (1 + 0.35 * k), fd * (1 + 0.2 * k), 0.72 - 0.05 * k),
            "diversity": {"n": n, "pairs": n // 2, "scales": 4, "ms_ssim": est(alike + 0.02 * k, 0.011)},
            "clip_score": {**est(27.1 - 0.3 * k, 0.4), "n": n},
        }
        for k, group in enumerate(groups)
    }
    return {
        "membership": "prompt",
        "n_each": n,
        "groups": entries,
        "difference": {space: {"kid": est(0.35 * kid * scale, 0.2 * kid * scale)} for space, scale in SPACES.items()},
        "worst": dict.fromkeys(SPACES, groups[-1]),
    }


def facts(level):
    return {
        "finding": {
            "n": 2048,
            "share": est(level, 0.021),
            "read": est(0.9 * level, 0.018),
            "judge_j": 0.86,
            "by_group": {},
            "by_value": {"lesion": est(level + 0.02, 0.03), "no lesion": est(level - 0.02, 0.03)},
        },
        "view": {
            "n": 2048,
            "share": est(min(level + 0.05, 0.99), 0.012),
            "read": est(0.95, 0.01),
            "judge_j": 0.97,
            "by_group": {},
            "by_value": {},
        },
    }


def histogram(last, n, seed):
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(n) < last, rng.beta(9, 1.6, n), rng.beta(1.6, 9, n))
    counts, edges = np.histogram(scores, bins=20, range=(0, 1))
    return {"edges": edges.round(2).tolist(), "counts": counts.tolist()}


def guidance(groups, start, slope):
    rows = []
    for scale in (1.0, 2.0, 3.0, 4.5, 6.0, 8.0):
        row = shares(groups, start + slope * (scale - 3), 0.042, n=512, scale=scale)
        wide = {group: [max(low - 0.016, 0), min(high + 0.016, 1)] for group, (low, high) in row["ci95"].items()}
        rows.append({**row, "gap": abs(slope) * scale, "ci_simultaneous": wide, "kid": est(0.05 + 0.004 * scale, 0.01)})
    return rows


def memorisation(groups):
    found = {
        "all": (2048, 0.0024, False),
        **{group: (1024, 0.001 + 0.012 * k, k == 1) for k, group in enumerate(groups)},
    }
    return {
        "space": "clip",
        "quantile": 0.01,
        "groups": {
            name: {
                "n": n,
                "training": 4000,
                "holdout": 600,
                "share": 0.01 + excess,
                "excess": est(excess, 0.009),
                "flagged": flagged,
                "threshold": 0.231,
            }
            for name, (n, excess, flagged) in found.items()
        },
        "pairs": [
            {"generated": 17 * k, "training_subject": f"sub-{k:03d}", "distance": 0.11 + 0.012 * k, "threshold": 0.231}
            for k in range(1, 5)
        ],
    }


def side(groups, last, verdict, gap, quality_of, seed, tipping, **more):
    count = shares(groups, last, 0.026)
    fraction = {"cc": 0.93, "pcc": 0.9, "acc": 1.0, "pacc": 1.004, "em": 0.995}
    methods = {name: shares(groups, 0.5 + (last - 0.5) * f, 0)["proportion"] for name, f in fraction.items()}
    trips = (("plain", None, 0.004), ("decoded", None, 0.0), ("noised and denoised", 0.2, -0.009))
    kid, fd, alike = quality_of
    return {
        **count,
        "gap": gap,
        "verdict": verdict,
        "tipping_point": tipping,
        "standard_error": 0.0133,
        "detectable_gap": 0.0373,
        "equivalence_p": 0.0007 if verdict == "aligned" else 1.0,
        "raw_proportion": methods["cc"],
        "true_proportion": shares(groups, last + 0.006, 0.02)["proportion"],
        "true_ci95": shares(groups, last + 0.006, 0.02)["ci95"],
        "true_gap": gap + 0.006,
        "ambiguity": 0.061,
        "agreement": 0.941,
        "methods": methods,
        "label_shift": {"statistic": 5.83, "degrees": 4, "p_value": 0.212, "rejected": False},
        "round_trip": [
            {"images": name, "strength": strength, **judged(shares(groups, last + move, 0.027), verdict)}
            for name, strength, move in trips
        ],
        "second_judge": {
            **judged(shares(groups, last + 0.011, 0.031)),
            "difference": est(0.011, 0.02),
            "differ": False,
        },
        "guide": {**judged(shares(groups, last - 0.014, 0.029)), "difference": est(-0.014, 0.018), "differ": False},
        "scores": histogram(last, 2048, seed),
        "kid": {space: entry["kid"] for space, entry in quality(2048, kid, fd).items()},
        "quality": quality(2048, kid, fd),
        "diversity": {"n": 2048, "pairs": 1024, "scales": 4, "ms_ssim": est(alike, 0.006)},
        "clip_score": {**est(27.0, 0.21), "n": 2048},
        "clip_similarity": 0.973,
        "by_group": by_group(groups, kid, fd, alike),
        "equity_scaled": {
            space: {"fd": {"value": 31.2, "fair": 29.8}, "coverage": {"value": 0.81, "fair": 0.83}} for space in SPACES
        },
        "prompt_rows": [
            shares(groups, last + move, 0.06, n=682, prompt=prompt)
            for prompt, move in zip(PROMPTS, (0.012, -0.02, 0.004))
        ],
        "faithfulness": {
            "lesion_prompted": 0.93,
            "lesion_prompted_ci95": [0.905, 0.951],
            "lesion_prompted_by_group": dict.fromkeys(groups, 0.93),
            "lesion_prompted_raw": 0.84,
            "lesion_prompted_n": 1110,
            "lesion_not_prompted": 0.021,
            "lesion_not_prompted_ci95": [0.009, 0.034],
            "lesion_not_prompted_by_group": dict.fromkeys(groups, 0.02),
            "lesion_not_prompted_raw": 0.03,
            "lesion_not_prompted_n": 938,
            "facts": {
                name: {**fact, "by_group": {group: est(fact["share"]["value"], 0.03) for group in groups}}
                for name, fact in facts(0.9).items()
            },
        },
        "obedience": {
            "groups": {
                group: {"n": 512, "proportion": 0.94 + 0.02 * k, "ci95": [0.91 + 0.02 * k, min(0.97 + 0.02 * k, 1)]}
                for k, group in enumerate(groups)
            },
            "difference": est(0.84, 0.03),
            "adjusted": est(0.98, 0.04),
            "judge_j": 0.86,
        },
        "memorisation": memorisation(groups),
        "guidance": guidance(groups, last, -0.004 if verdict == "aligned" else 0.02),
        "flags": [],
        "cautions": [],
        **more,
    }


PROMPTS = (
    "axial FLAIR MR of a head",
    "axial FLAIR MR of a head with a high-grade glioma in the left hemisphere",
    "axial contrast-enhanced T1 MR of a head, no tumour",
)


def full(groups=("female", "male")):
    """A report with every part: far from the target before, aligned after; the last group is 58 % in the target."""
    target = shares(groups, 0.58, 0)["proportion"]
    recall = {group: 0.94 - 0.02 * k for k, group in enumerate(groups)}
    matrix = {a: {b: recall[a] if a == b else (1 - recall[a]) / (len(groups) - 1) for b in groups} for a in groups}
    before = side(groups, 0.85, "not aligned", 0.27, (0.9, 24.0, 0.31), 1, 0.17)
    after = side(groups, 0.576, "aligned", 0.004, (0.95, 25.0, 0.33), 2, 0.023)
    return {
        "schema_version": "2",
        "attribute": "sex" if len(groups) == 2 else "age",
        "groups": list(groups),
        "target": target,
        "margin": 0.05,
        "prompts": list(PROMPTS),
        "seed": 7,
        "weights": {"before": "9f2c41d07a5be316", "after": "41b8e07c92aa5d03", "judge": "c07d19f2ab64e581"},
        "versions": {"torch": "2.13.0", "monai": "1.6.1", "numpy": "2.4.6"},
        "seconds": {"generate": 1520.4, "judge": 61.2, "quality": 240.0},
        "detectable_gap": 0.0373,
        "kid_change": {space: est(0.05 * scale, 0.1 * scale) for space, scale in SPACES.items()},
        "change": {
            "value": {group: after["proportion"][group] - before["proportion"][group] for group in groups},
            "ci95": {
                group: [x - 0.02, x + 0.02]
                for group in groups
                for x in [after["proportion"][group] - before["proportion"][group]]
            },
        },
        "trajectory": [
            {
                **shares(groups, 0.58 + 0.27 * 0.8**k, 0.045, n=512, iteration=20 * k, seconds=60.0 * k),
                "gap": 0.27 * 0.8**k,
            }
            for k in range(11)
        ],
        "strata": {
            "high-grade glioma": {
                "target": target,
                "before": shares(groups, 0.84, 0.04, n=900),
                "after": shares(groups, 0.57, 0.04, n=900),
            }
        },
        "judge": {
            "name": "ResNet-18, seed 11",
            "auc": 0.981,
            "subjects": 400,
            "images": 3200,
            "sensitivity": recall[groups[-1]] if len(groups) == 2 else None,
            "specificity": recall[groups[0]] if len(groups) == 2 else None,
            "recall": recall,
            "matrix": matrix,
            "youden": sum(recall.values()) - 1,
            "design_effect": 3.1,
            "ambiguity": 0.052,
            "calibration_error": 0.018,
            "round_trip": [
                {"images": "plain", "strength": None, "n": 3200, "recall": recall, "shift": 0.004},
                {"images": "decoded", "strength": None, "n": 3200, "recall": recall, "shift": 0.0},
                {
                    "images": "noised and denoised",
                    "strength": 0.2,
                    "n": 3200,
                    "recall": {group: value - 0.011 for group, value in recall.items()},
                    "shift": 0.011,
                },
            ],
            "largest_shift": 0.011,
        },
        "second_judge": {"name": "linear probe on CLIP", "auc": 0.957, "subjects": 400, "recall": recall},
        "guide": {"auc": 0.975, "subjects": 300, "recall": recall},
        "real": {
            "n": 1200,
            "ambiguity": 0.052,
            "agreement": 0.955,
            "kid": {space: est(0.0002, 0.0011) for space in SPACES},
            "scores": histogram(0.58, 1200, 3),
            "quality": quality(600, 0.012, 9.0),
            "by_group": by_group(groups, 0.012, 9.0, 0.29),
            "diversity": {"n": 1200, "pairs": 600, "scales": 4, "ms_ssim": est(0.29, 0.008)},
            "clip_score": {**est(27.4, 0.3), "n": 1200},
            "faithfulness": {"facts": facts(0.93)},
        },
        "before": before,
        "after": after,
        "seeds": {
            "values": [
                {"seed": k, "proportion": shares(groups, x, 0)["proportion"], "gap": abs(x - 0.58), "verdict": verdict}
                for k, (x, verdict) in enumerate(((0.576, "aligned"), (0.591, "aligned"), (0.563, "cannot tell")))
            ],
            "mean": est(0.5767, 0.0348),
            "between_sd": 0.0081,
            "n": 3,
        },
        "how": {
            "notes": [
                "Quality per group: 400 images of each group, drawn with seed 7.",
                "MS-SSIM: disjoint pairs, four scales at 128 pixels.",
            ]
        },
        "cautions": ["The target is a stated number; its own sampling error is not counted."],
    }


def bare(groups=("female", "male"), absent=True):
    """One set of images with only what every report has; the rest is absent, or None."""
    report = full(groups)
    kept = {"n", "proportion", "ci95", "gap", "verdict", "tipping_point", "standard_error", "raw_proportion"}
    none = {"true_proportion", "true_ci95", "true_gap", "clip_similarity", "agreement"}
    lesion = {"lesion_prompted": None, "lesion_not_prompted": None}
    empty = {"kid": {}, "guidance": [], "cautions": [], "faithfulness": lesion, "ambiguity": 0.061}
    after = {key: value if key in kept else None for key, value in report["after"].items() if key in kept or not absent}
    top = {"attribute", "groups", "target", "margin", "prompts", "schema_version", "detectable_gap", "after"}
    judge = {
        "auc": None,
        "subjects": 400,
        "sensitivity": None,
        "specificity": None,
        "recall": report["judge"]["recall"],
    }
    others = {} if absent else dict.fromkeys(key for key in report if key not in top)
    return {
        **others,
        **{key: copy.deepcopy(report[key]) for key in top},
        "judge": judge if absent else {**dict.fromkeys(report["judge"]), **judge},
        "real": {"n": 1200, "ambiguity": None, "agreement": None, "kid": {}},
        "before": None,
        "after": {**after, **dict.fromkeys(none), **empty},
        "kid_change": {},
        "trajectory": [],
        "seconds": {},
        "versions": {},
    }


def pictures(pairs=4, closest=3, side_length=64):
    """Grey images in [0, 1]: discs whose size differs, with noise."""
    rng = np.random.default_rng(0)
    grid = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, side_length)] * 2))

    def disc(radius):
        return np.clip((grid < radius) * 0.6 + 0.15 * rng.random(grid.shape), 0, 1)[None]

    return {
        "pairs": [
            (disc(0.8), disc(0.6 + 0.05 * k), PROMPTS[k % 3], 0.91 - 0.02 * k, 0.12 + 0.2 * k) for k in range(pairs)
        ],
        "closest": [(disc(0.7), disc(0.7), 0.11 + 0.01 * k, "male") for k in range(closest)],
    }
