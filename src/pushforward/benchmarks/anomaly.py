"""Anomalies in labelled tables: `fit_to_data` beside the methods of scikit-learn."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pushforward as pf
from pushforward.files import write_atomically
from pushforward.tabular import TableError

TRAIN = 0.7
Array = NDArray[Any]
Scores = Callable[[Array, Array, int], Array]  # rows to fit, rows to score, seed: the larger, the less usual


def run(out: Path, *, data: Path | None, only: str = "", seeds: int = 1, max_seconds: float = 60.0) -> str:
    """The area under the ROC curve of each method on each table; writes `anomaly.json` and returns a table.

    Methods see 70 % of the rows without their labels, and score the others; the share of anomalies is the same in both.

    Args:
        out: folder for the JSON file.
        data: folder with an `anomaly` folder of .npz files that hold rows `X` and labels `y`, 1 for anomalies.
        only: only the tables whose name holds this text.
        seeds: number of splits.
        max_seconds: budget of each fit.
    """
    paths = sorted((data / "anomaly").glob("*.npz")) if data is not None else []
    if not paths:
        return "left out: anomalies, for want of .npz files in the folder anomaly of --data"
    out.mkdir(parents=True, exist_ok=True)
    methods = _methods(max_seconds)
    lines = [f"{'table':16s} {'rows':>6s} {'columns':>7s} {'share':>6s} " + " ".join(f"{m:>15s}" for m in methods)]
    found: dict[str, dict[str, list[float]]] = {}
    for path in paths:
        name = path.stem.partition("_")[2]
        if only not in name:
            continue
        with np.load(path) as file:
            x, y = file["X"].astype(np.float64), file["y"].astype(int)
        found[name] = {
            m: [_area(scores, x, y, seed, f"{name}, {m}") for seed in range(seeds)] for m, scores in methods.items()
        }
        means = " ".join(f"{statistics.mean(found[name][m]):15.4f}" for m in methods)
        lines.append(f"{name:16s} {len(x):6d} {x.shape[1]:7d} {y.mean():6.3f} {means}")
        with write_atomically(out / "anomaly.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
    means = " ".join(f"{statistics.mean(statistics.mean(t[m]) for t in found.values()):15.4f}" for m in methods)
    lines.append(f"{'mean':16s} {'':6s} {'':7s} {'':6s} {means}")
    return "\n".join(lines)


def _methods(max_seconds: float) -> Mapping[str, Scores]:
    from sklearn.ensemble import IsolationForest
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity
    from sklearn.preprocessing import StandardScaler

    def flow(fitted: Array, scored: Array, seed: int) -> Array:
        varying = (fitted != fitted[0]).any(0)
        fit = pf.fit_to_data(fitted[:, varying], max_seconds=max_seconds, seed=seed, progress=False)
        score: Array = fit.anomaly_score(scored[:, varying]).numpy()
        return score

    def standardised(score: Scores) -> Scores:
        def scores(fitted: Array, scored: Array, seed: int) -> Array:
            scale = StandardScaler().fit(fitted)
            return score(scale.transform(fitted), scale.transform(scored), seed)

        return scores

    def mixture(fitted: Array, scored: Array, seed: int) -> Array:
        models = [GaussianMixture(k, reg_covar=1e-4, random_state=seed).fit(fitted) for k in (1, 2, 4, 8)]
        score: Array = -min(models, key=lambda m: m.bic(fitted)).score_samples(scored)
        return score

    return {
        "pushforward": flow,
        "IsolationForest": lambda a, b, seed: -IsolationForest(random_state=seed).fit(a).score_samples(b),
        "GaussianMixture": standardised(mixture),
        "KernelDensity": standardised(lambda a, b, _: -KernelDensity(bandwidth="scott").fit(a).score_samples(b)),
    }


def _area(scores: Scores, x: Array, y: Array, seed: int, label: str) -> float:
    """The area under the ROC curve on rows that were not fitted; rows of density zero are the least usual."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    fitted, scored, _, truth = train_test_split(x, y, train_size=TRAIN, stratify=y, random_state=seed)
    start = time.monotonic()
    try:
        value = np.nan_to_num(scores(fitted, scored, seed), posinf=1e12, neginf=-1e12)
    except TableError as error:
        raise TableError(f"{label}: {error}") from error
    area = float(roc_auc_score(truth, value))
    print(f"{label}, seed {seed}: {area:.4f}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return area
