"""What every library is given and judged by in the speed benchmark: split, clock, evaluator (numpy only)."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from rivals import Clock, processor

__all__ = ["DIM", "HEADS", "HISTORY", "LAYERS", "SEED", "Clock", "Data", "Run", "arguments"]

DIM, LAYERS, HEADS, HISTORY, SEED = 64, 2, 2, 20, 0


@dataclass(frozen=True)
class Data:
    """Leave-last-out: of each user's N >= 3 events the last is test (never read here), the one before validation."""

    items: np.ndarray  # int64 [N], dense ids, ordered by user and time
    offsets: np.ndarray  # int64 [U + 1]
    n_items: int

    @classmethod
    def load(cls, path: str | Path) -> Data:
        with np.load(path, allow_pickle=False) as file:
            return cls(file["items"], file["offsets"], int(file["n_items"]))

    @property
    def users(self) -> int:
        return len(self.offsets) - 1

    def train(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1] - 2]

    def histories(self, users: np.ndarray, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [B, HISTORY] of the latest train items, -1 where there is none; int64 [B] lengths)."""
        table = np.full((len(users), HISTORY), -1)
        lengths = np.zeros(len(users), dtype=np.int64)
        for row, user in enumerate(users):
            latest = self.train(user)[-HISTORY:]
            lengths[row] = len(latest)
            table[row, HISTORY - len(latest) if left else 0 :][: len(latest)] = latest
        return table, lengths

    def quality(self, score: Callable[[np.ndarray], np.ndarray], batch: int = 1024) -> float:
        """Validation NDCG@10 over the whole catalog, train items masked, ties to the smaller item id.

        `score` maps users [B] to float scores [B, I].
        """
        gains = []
        for begin in range(0, self.users, batch):
            users = np.arange(begin, min(begin + batch, self.users))
            scores = np.array(score(users), dtype=np.float32)
            for row, user in enumerate(users):
                scores[row, self.train(user)] = -np.inf
            target = self.items[self.offsets[users + 1] - 2]
            own = scores[np.arange(len(users)), target][:, None]
            before = np.arange(self.n_items) < target[:, None]
            rank = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
            # An item that the user had before cannot be recommended again: it counts as missed.
            rank[np.isneginf(own[:, 0])] = self.n_items
            gains.append(np.where(rank < 10, 1 / np.log2(rank + 2), 0.0))
        return float(np.concatenate(gains).mean())


class Run:
    """Writes down each epoch and says when to stop: one epoch past the goal, or at the cap."""

    def __init__(self, args: argparse.Namespace, library: str, version: str, settings: dict) -> None:
        self.out, self.goal, self.cap = Path(args.out), args.goal, args.cap
        self.began = time.perf_counter()
        self.document = {
            "library": library, "version": version, "settings": settings, "goal": args.goal, "status": "running",
            "date": date.today().isoformat(), "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": processor(), "cores": os.cpu_count(), "threads": 1, "seconds_to_goal": None, "epochs": [],
        }
        self.past = 0

    def ready(self) -> None:
        """Call when the library has read its data and is about to train."""
        self.document["prepare_seconds"] = round(time.perf_counter() - self.began, 2)

    def epoch(self, seconds: float, cpu_seconds: float, trained: int, ndcg: float) -> bool:
        """Note one epoch (seconds without evaluation, `trained` decisions learnt from); True: go on."""
        epochs = self.document["epochs"]
        total = sum(each["seconds"] for each in epochs) + seconds
        epochs.append({
            "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), "trained": trained,
            "trained_per_second": round(trained / seconds, 1), "ndcg@10": round(ndcg, 5),
            "load": round(os.getloadavg()[0], 2),  # of the whole machine: above its cores, trust the CPU seconds
        })
        print(f"{self.document['library']} epoch {len(epochs)}: {seconds:.1f} s, NDCG@10 {ndcg:.4f}", flush=True)
        if ndcg >= self.goal and self.document["seconds_to_goal"] is None:
            self.document["seconds_to_goal"] = round(total, 2)
            self.document["cpu_seconds_to_goal"] = round(sum(each["cpu_seconds"] for each in epochs), 2)
        reached = self.document["seconds_to_goal"] is not None
        stop = (reached and self.past >= 1) or time.perf_counter() - self.began > self.cap
        self.past += reached
        if stop:
            self.document["status"] = "reached" if reached else "capped"
        temporary = self.out.with_suffix(".part")
        temporary.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.out)
        return not stop


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help=".npz written by run.py")
    parser.add_argument("--out", required=True, help="result file")
    parser.add_argument("--work", required=True, help="folder for what the library writes")
    parser.add_argument("--goal", type=float, default=0.03)
    parser.add_argument("--cap", type=float, default=3600.0, help="seconds")
    return parser.parse_args()
