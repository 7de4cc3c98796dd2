"""RecBole 1.2.1's KD_DAGFM on MovieLens 100K: its three phases, and its rows. Run by kd_dagfm.py in RecBole's own
environment, with RecBole's own settings (`recbole/properties/quick_start_config/context-aware_ml-100k.yaml`)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.context_aware_recommender.kd_dagfm import KD_DAGFM
from recbole.trainer import Trainer
from recbole.utils import init_seed

from rivals import Clock

SPLIT_SEED = 2020  # RecBole's default: the split that its published numbers are of
PHASES = ("teacher_training", "distillation", "finetuning")
SOURCE = {  # what the quick start of context-aware models loads of ml-100k, beside the ids
    "inter": ["user_id", "item_id", "rating", "timestamp"], "user": ["user_id", "age", "gender", "occupation"],
    "item": ["item_id", "release_year", "class"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of weights and batches; the split is always 2020's")
    parser.add_argument("--out", type=Path, required=True, help="result; predictions go beside it, as .npy")
    parser.add_argument("--rows", type=Path, required=True, help="CSV of the rows, with their split")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warm, phases = "", {}
    for phase in PHASES:
        config = Config(model="KD_DAGFM", dataset="ml-100k", config_dict={
            "phase": phase, "warm_up": warm, "checkpoint_dir": str(args.work / f"saved-{args.seed}" / phase),
            "use_gpu": False, "show_progress": False, "state": "WARNING", "seed": SPLIT_SEED,
            "threshold": {"rating": 4}, "load_col": SOURCE, "train_neg_sample_args": None,
            "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC",
            "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
        })
        init_seed(SPLIT_SEED, True)
        dataset = create_dataset(config)
        parts = data_preparation(config, dataset)
        if not args.rows.exists():
            export(dataset, parts, args.rows)
        init_seed(args.seed, True)
        clock = Clock()
        clock.start()
        trainer = Trainer(config, KD_DAGFM(config, parts[0].dataset))
        best, _ = trainer.fit(parts[0], parts[1], saved=True, show_progress=False, verbose=False)
        seconds, cpu = clock.stop()
        warm = trainer.saved_model_file
        tested = trainer.evaluate(parts[2], load_best_model=True)
        np.save(args.out.with_name(f"{args.out.stem}-{phase}.npy"), predictions(trainer.model, parts[2]))
        phases[phase] = {"valid_auc": float(best), "test_auc": float(tested["auc"]),
                         "test_log_loss": float(tested["logloss"]), "cpu_seconds": round(cpu, 1),
                         "seconds": round(seconds, 1)}
        print(args.seed, phase, phases[phase], flush=True)
    model = trainer.model
    network = {name: sum(p.numel() for p in part.parameters())
               for name, part in (("teacher", model.teacher_network), ("student", model.student_network))}
    network["embeddings"] = sum(p.numel() for p in model.parameters()) - sum(network.values())
    args.out.write_text(json.dumps({
        "version": recbole.__version__, "seed": args.seed, "split_seed": SPLIT_SEED, "phases": phases,
        "parameters": network, "alpha": config["alpha"], "beta": config["beta"],
    }, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def predictions(model: Any, loader: Any) -> np.ndarray:
    """float32 [n]: probabilities of the rows in their order."""
    model.eval()
    return np.concatenate([model.predict(batch[0]).reshape(-1).numpy() for batch in loader]).astype(np.float32)


def export(dataset: Any, parts: tuple[Any, ...], path: Path) -> None:
    """The rows of the three parts as tokens (numbers as RecBole scaled them), with `split` and `label`."""
    frames = []
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        feat: Interaction = part.dataset.join(part.dataset.inter_feat) if name == "train" else dataset.join(
            part.dataset.inter_feat)
        columns = {}
        for field in feat.interaction:
            values = feat[field]
            kind = dataset.field2type[field].value
            if kind == "token":
                columns[field] = dataset.id2token(field, values.numpy())
            elif kind == "token_seq":
                columns[field] = ["|".join(dataset.id2token(field, row[row > 0].numpy())) for row in values]
            else:
                columns[field] = values.numpy()
        frames.append(pd.DataFrame(columns).assign(split=name))
    frame = pd.concat(frames)
    frame["label"] = frame["label"].astype(int)
    frame.to_csv(path, index=False)


if __name__ == "__main__":
    main()
