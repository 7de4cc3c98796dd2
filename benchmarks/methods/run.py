"""Every way to distill, on published splits: eight short trials on one seed, three seeds of the best, by validation.

    python benchmarks/methods/run.py citeulike --width 20 [--methods kl listnet] [--out runs/methods]

Data come from DISTILREC_DATA. Every trial leaves its result, so a killed run goes on with the next one. What is
finished is kept in benchmarks/results/methods/SET-TEACHER-WIDTH.json, of which table.py makes docs/methods.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import factorizations
import sequences

import distilrec as dr
from distilrec.evaluation.metrics import evaluate_groups, evaluate_lists
from distilrec.evaluation.rank import recommend
from distilrec.evaluation.significance import compare
from distilrec.files import digest_json, read_json, write_json
from distilrec.knowledge.blend import WEIGHTS
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from kept import commit, hardware
from methods import Method

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
LONGER = 4  # a trial is trained a quarter as long as what is tested, that of a control as long
BPR = {"dim": 200, "iterations": 3500, "learning_rate": 0.1, "regularization": 0.01, "seed": 1}
FALLING_BPR = {**BPR, "iterations": 4000, "schedule": "cosine"}
ALS = {"dim": 200, "alpha": 50.0, "regularization": 50.0}
DEEP_ALS = {"dim": 200, "alpha": 400.0, "regularization": 600.0}  # chosen for the first 500, not the first 50
SETS: dict[str, dict[str, Any]] = {
    "citeulike": {
        "data": "citeulike-tdkd", "split": "given", "metric": "recall@50", "k": 50, "methods": factorizations,
        "student": "mf", "teachers": {"bpr": BPR, "als": ALS}, "signals": ["query"],
    },
    # The same with a better teacher, found after all rows of the first one were measured.
    "citeulike-annealed": {
        "data": "citeulike-tdkd", "split": "given", "metric": "recall@50", "k": 50, "methods": factorizations,
        "student": "mf", "teachers": {"bpr": FALLING_BPR}, "signals": ["query"],
    },
    # One target a user, so the recall is the published hit rate. Ten of 500 uniformly drawn items are the first 2 % of
    # the catalog of 25,181, so that is the depth at which all choices are made and to which the teacher is asked.
    "citeulike-sampled": {
        "data": "citeulike-derrd", "split": "given", "metric": "recall@10", "k": 10, "sampled": 499,
        "chosen_by": "recall@500", "top_k": 500,
        "methods": factorizations, "student": "mf", "teachers": {"als": DEEP_ALS}, "signals": ["query"],
    },
    "scientific": {
        "data": "amazon-scientific", "split": "leave-last-out", "text": ["text"], "encoder": "all-MiniLM-L6-v2",
        "metric": "ndcg@10", "k": 10, "methods": sequences, "student": "sasrec", "shape": sequences.STUDENT,
        "teachers": {"text_sasrec": sequences.TEACHER}, "signals": ["query", "layers", "attention", "gradient"],
    },
}


class Bench:
    """One set, one teacher, one width, and the folder of its trials."""

    def __init__(self, name: str, teacher: str, width: int, out: Path) -> None:
        self.facts, self.width, self.root, self.name = SETS[name], width, out, name
        self.stores: dict[str, KnowledgeStore] = {}  # Method.teacher -> what it teaches from
        self.metric, self.k, self.top_k = self.facts["metric"], self.facts["k"], self.facts.get("top_k", 100)
        self.chosen_by = self.facts.get("chosen_by", self.metric)  # the metric of validation
        self.out, self.alone = out / f"{name}-{teacher}-{width}", out / f"{name}-{width}"
        data = Path(os.environ["DISTILREC_DATA"]) / self.facts["data"]
        self.split = dr.prepare(data, split={"method": self.facts["split"]}, text=self.facts.get("text", ()))
        self.methods, self.common = self.facts["methods"].METHODS, self.facts["methods"].COMMON
        self.teacher, self.store = self._taught(teacher)

    def _folder(self, what: str) -> Path:
        """Of what all methods share, whatever the width of the student."""
        return self.root / f"{self.name}-{what}"

    def _taught(self, teacher: str) -> tuple[Any, KnowledgeStore]:
        reader = {"encoder": self.facts["encoder"]} if "encoder" in self.facts else {}
        made = dr.teach(teacher, self.split, folder=self._folder(teacher), metric=self.chosen_by,
                        **self.facts["teachers"][teacher], **reader)
        return made, dr.extract(made, self.split, folder=self._folder(f"{teacher}-knowledge"), top_k=self.top_k,
                                signals=self.facts["signals"])

    def knowledge(self, method: Method) -> KnowledgeStore:
        if method.teacher not in self.stores:
            self.stores[method.teacher] = self._of(method.teacher)
        return self.stores[method.teacher]

    def _of(self, teacher: str) -> KnowledgeStore:
        if teacher in WEIGHTS:
            stores = [self._taught(name)[1] for name in self.facts["teachers"]]
            return dr.blend(stores, self.split, weights=teacher, top_k=self.top_k,
                            folder=self._folder(f"{teacher}-knowledge"))
        if teacher != "self":
            return self.store
        best = read_json(self.folder("alone") / "best.json")
        trained = self.train("alone", best["trial"], SEEDS[0], LONGER)
        return dr.extract(trained, self.split, folder=self.out / "self-knowledge", top_k=self.top_k,
                          content=self.store.vectors("content"))

    def folder(self, name: str) -> Path:
        """Where the trials of a method are; who learns from nobody is the same beside any teacher."""
        out = self.alone if self.methods[name].teacher == "none" else self.out
        return out / name.replace(" ", "-").replace(",", "")

    def train(self, name: str, trial: int, seed: int, longer: int = 1) -> Trained:
        return self.distill(name, trial, seed, self.folder(name) / f"trial-{trial}-seed-{seed}-{longer}",
                            epochs=self.common["epochs"] * longer)

    def distill(self, name: str, trial: int, seed: int, folder: Path, **more: Any) -> Trained:
        """One trial of a method; `more` goes before its settings."""
        method = self.methods[name]
        given = {**self.facts.get("shape", {}), **self.common, **method.of, **method.trials[trial], **more}
        if given.get("layers_from") == "teacher":
            given["layers_from"] = self.teacher
        made = dr.distill(self.facts["student"], self.split, self.knowledge(method), control=False, seed=seed,
                          dim=self.width, metric=self.chosen_by, **given, folder=folder)
        return made.model  # type: ignore[return-value]

    def choose(self, name: str) -> dict[str, Any]:
        """The best of eight trials on the first seed."""
        method, path = self.methods[name], self.folder(name) / "best.json"
        longer = LONGER if method.whole else 1
        wanted = digest_json([self.common, method.of, method.trials, longer, self.width, self.chosen_by,
                              self.facts.get("shape"), self.split.digest,
                              "" if method.teacher == "none" else self.knowledge(method).digest])
        if path.exists() and read_json(path)["identity"] == wanted:
            return read_json(path)
        tried = []
        for trial in range(len(method.trials)):
            trained = self.train(name, trial, SEEDS[0], longer)
            tried.append(trained.training["valid"][self.chosen_by])
            print(f"{name}: trial {trial + 1} of {len(method.trials)}: {tried[-1]:.4f}", flush=True)
        best = int(np.argmax(tried))
        write_json(path, {"identity": wanted, "trial": best, "valid": tried})
        return read_json(path)

    def measure(self, ranker: Any) -> dict[str, np.ndarray]:
        """One value per test user: of all targets, and of those in the tail."""
        sampled = self.facts.get("sampled")  # validation ranks the full catalog
        lists = recommend(ranker, self.split, "test", self.k, candidates={"sampled": sampled} if sampled else "full")
        whole = evaluate_lists(lists, self.split, "test", [self.k])[self.metric]
        return {"all": whole, "tail": evaluate_groups(lists, self.split, "test", [self.k])["tail"][self.metric]}

    def row(self, name: str, control: list[dict[str, np.ndarray]] | None) -> tuple[dict[str, Any], list[Any]]:
        method, chosen = self.methods[name], self.choose(name)
        models = [self.train(name, chosen["trial"], seed, LONGER) for seed in SEEDS]
        values = [self.measure(model) for model in models]
        given = {**method.of, **method.trials[chosen["trial"]]}
        entry: dict[str, Any] = {
            "method": name, "meaning": method.meaning, "settings": given, "trials": len(chosen["valid"]),
            "valid": [model.training["valid"][self.chosen_by] for model in models],
            "test": [float(np.nanmean(value["all"])) for value in values],
            "tail": [float(np.nanmean(value["tail"])) for value in values],
            "cpu_seconds_per_epoch": float(np.mean([m.training["cpu_seconds"] / m.training["epochs"] for m in models])),
        }
        if control is not None:
            for group in ("all", "tail"):
                found = compare(np.stack([v[group] for v in values]), np.stack([v[group] for v in control]))
                entry[f"beside_control_{group}"] = {
                    "difference": found.difference, "interval": list(found.interval), "p_value": found.p_value}
        return entry, values


def names_of(given: str) -> list[str]:
    """The methods of a set: with one teacher there is nobody to be weighed against."""
    several = len(SETS[given]["teachers"]) > 1
    return [name for name, method in SETS[given]["methods"].METHODS.items() if several or method.teacher not in WEIGHTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--teacher", default=None, help="a name of the set's teachers; its first by default")
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--methods", nargs="*", help="names of the set's methods; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "methods")
    options = parser.parse_args()
    names = names_of(options.set)
    if unknown := set(options.methods or ()) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: the methods of {options.set} are {', '.join(names)}")
    teacher = options.teacher or next(iter(SETS[options.set]["teachers"]))
    began, began_at = time.strftime("%Y-%m-%d", time.gmtime()), commit()
    bench = Bench(options.set, teacher, options.width, options.out)
    asked = [name for name in names if name in (options.methods or names) or name == "alone"]
    of_teacher = bench.measure(bench.teacher)
    rows: list[dict[str, Any]] = []
    control = None
    for name in asked:
        entry, values = bench.row(name, control)
        control = values if name == "alone" else control
        rows.append(entry)
        print(f"{name}: test {np.mean(entry['test']):.4f}", flush=True)
        command = f"python benchmarks/methods/run.py {options.set} --teacher {teacher} --width {options.width}"
        write_json(ROOT / "benchmarks" / "results" / "methods" / f"{options.set}-{teacher}-{options.width}.json", {
            "set": options.set, "width": options.width, "metric": bench.metric,
            "chosen_by": bench.chosen_by, "top_k": bench.top_k, "common": bench.common,
            "longer": LONGER, "student": SETS[options.set]["student"],
            "candidates": f"the target and {bench.facts['sampled']} sampled" if "sampled" in bench.facts else "full",
            "teacher": {"name": teacher, "settings": SETS[options.set]["teachers"][teacher],
                        "parameters": bench.teacher.parameters,
                        "valid": bench.teacher.training["valid"][bench.chosen_by],
                        "test": float(np.nanmean(of_teacher["all"])), "tail": float(np.nanmean(of_teacher["tail"]))},
            "store_bytes_per_user": _bytes(bench.store) / bench.split.n_users,
            "rows": rows, "command": command, "date": began, "commit": began_at, "hardware": hardware(),
            "seeds": list(SEEDS),
        })


def _bytes(store: KnowledgeStore) -> int:
    return sum(entry["bytes"] for entry in store.manifest["signals"].values())


if __name__ == "__main__":
    main()
