"""A teacher that is wrong: 30 % of its answers are shuffled or belong to other users, then all; with and without trust.

    python benchmarks/methods/noisy.py [--width 20] [--out runs/noisy]

CiteULike (split of Topology Distillation), ALS teacher. For a clean, a partly and a wholly shuffled teacher the same
student is trained believing everything, and with `trust: [agreement]` and `audit`; test differences to the control,
paired by user, three seeds. Kept in benchmarks/results/methods/noisy.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from factorizations import COMMON
from run import SEEDS, SETS

import distilrec as dr
from distilrec.evaluation.metrics import evaluate_lists
from distilrec.evaluation.rank import recommend
from distilrec.evaluation.significance import compare
from distilrec.files import write_json
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from kept import commit, hardware

ROOT = Path(__file__).resolve().parents[2]
NOISE: dict[str, tuple[str, float]] = {  # what is done to which share of the users
    "clean": ("", 0.0), "30 % in a random order": ("order", 0.3), "30 % of random items": ("items", 0.3),
    "30 % of another user": ("owner", 0.3), "all of another user": ("owner", 1.0),
}
# half of what is learned are labels, with the decay that they ask for, so that there is something to fall back on
STUDENT: dict[str, Any] = {**COMMON, "temperature": 0.3, "losses": {"cross_entropy": 0.5, "kl": 0.5},
                           "weight_decay": 0.2, "epochs": 40}
BELIEF: dict[str, dict[str, Any]] = {
    "everything": {}, "agreement and audit": {"trust": ["agreement"], "audit": True},
}


def shuffled(store: KnowledgeStore, what: str, share: float, folder: Path, split: Any) -> KnowledgeStore:
    """The same store in which the lists of some users have another order, hold items drawn at random, or are those of
    one another."""
    if share == 0:
        return store
    rng = np.random.default_rng(0)
    arrays = store.arrays("response")
    ids, logits = np.array(arrays["ids"]), np.array(arrays["logits"])
    some = np.sort(rng.choice(len(ids), round(share * len(ids)), replace=False))
    if what == "order":
        ids[some] = rng.permuted(ids[some], axis=1)
    elif what == "items":
        ids[some] = np.stack([rng.choice(split.n_items, ids.shape[1], replace=False) for _ in some])
    else:
        source = np.roll(rng.permutation(some), 1)
        ids[some], logits[some] = ids[source], logits[source]
    writer = StoreWriter(folder, {**store.manifest["identity"], "shuffled": [what, share]})
    writer.write("response", 0, {"keys": np.asarray(arrays["keys"]), "ids": ids, "logits": logits})
    writer.finish({"response": store.signals["response"]}, {**store.manifest["teacher"], "shuffled": [what, share]})
    return KnowledgeStore(folder, split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "noisy")
    options = parser.parse_args()
    facts = SETS["citeulike"]
    split = dr.prepare(Path(os.environ["DISTILREC_DATA"]) / facts["data"], split={"method": "given"})
    teacher = dr.teach("als", split, folder=options.out / "als", metric=facts["metric"], **facts["teachers"]["als"])
    clean = dr.extract(teacher, split, folder=options.out / "clean", top_k=100)

    def test(model: Any) -> np.ndarray:
        lists = recommend(model, split, "test", facts["k"])
        return evaluate_lists(lists, split, "test", [facts["k"]])[facts["metric"]]

    def pair(seed: int, store: KnowledgeStore, folder: Path, **how: Any) -> Any:
        first = options.out / "control" / f"seed-{seed}"
        if (first / "control").is_dir() and not (folder / "control").is_dir():  # the control knows nothing of the store
            shutil.copytree(first / "control", folder / "control")
        made = dr.distill("mf", split, store, seed=seed, dim=options.width, metric=facts["metric"], folder=folder,
                          **STUDENT, **how)
        if not first.is_dir():
            shutil.copytree(folder / "control", first / "control")
        return made

    rows = []
    for noise, (what, share) in NOISE.items():
        store = shuffled(clean, what, share, options.out / f"store-{what}-{share}", split)
        for belief, how in BELIEF.items():
            folder = options.out / f"{what}-{share}-{belief}".replace(" ", "-")
            made = [pair(seed, store, folder / f"seed-{seed}", **how) for seed in SEEDS]
            ours, theirs = (np.stack([test(m) for m in models]) for models in
                            ([m.model for m in made], [m.control for m in made]))
            found = compare(ours, theirs)
            control = float(np.nanmean(theirs))
            rows.append({
                "teacher": noise, "believed": belief, "student": float(np.nanmean(ours)), "control": control,
                "difference": found.difference, "interval": list(found.interval), "p_value": found.p_value,
                "lower_end_relative": found.interval[0] / control,
                "trust": [m.model.training.get("trust") for m in made],
                "audit": [(m.model.training.get("audit") or {}).get("believed") for m in made],
            })
            print(noise, belief, {k: v for k, v in rows[-1].items() if k != "trust"}, flush=True)
    write_json(ROOT / "benchmarks" / "results" / "methods" / "noisy.json", {
        "noise": NOISE, "rows": rows, "student": STUDENT, "command": "python benchmarks/methods/noisy.py",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(), "hardware": hardware(),
        "seeds": list(SEEDS)})


if __name__ == "__main__":
    main()
