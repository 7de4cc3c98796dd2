"""DeepFM of RecBole 1.2.1 under the clock of deepfm_speed.py. Run by it in an environment of RecBole's own."""

from __future__ import annotations

import pandas as pd
import recbole
import torch
from deepfm import DIM, DROPOUT, LABEL, RATE, SPLIT, arguments, measure
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender import DeepFM
from recbole.trainer import Trainer
from recbole.utils import init_seed

NAME, PARTS = "table", ("train", "valid", "test")


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    frame = pd.read_csv(args.table, dtype=str, keep_default_na=False)
    columns = [name for name in frame.columns if name not in (LABEL, SPLIT)]
    folder = args.work / NAME
    folder.mkdir(parents=True, exist_ok=True)
    header = [f"{name}:token" for name in columns] + [f"{LABEL}:float"]
    for part in PARTS:
        frame.loc[frame[SPLIT] == part, [*columns, LABEL]].to_csv(
            folder / f"{NAME}.{part}.inter", sep="\t", index=False, header=header
        )
    config = Config(model="DeepFM", dataset=NAME, config_dict={
        "data_path": str(args.work), "checkpoint_dir": str(args.work / "saved"), "benchmark_filename": list(PARTS),
        "USER_ID_FIELD": columns[0], "ITEM_ID_FIELD": columns[1], "LABEL_FIELD": LABEL, "threshold": None,
        "load_col": {"inter": [*columns, LABEL]}, "train_neg_sample_args": None,
        "embedding_size": DIM, "mlp_hidden_size": args.hidden, "dropout_prob": DROPOUT, "learning_rate": RATE,
        "learner": "adam", "train_batch_size": args.batch, "eval_args": {"mode": "labeled"}, "metrics": ["AUC"],
        "valid_metric": "AUC", "use_gpu": False, "show_progress": False, "seed": args.seed, "state": "WARNING",
    })
    init_seed(args.seed, True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = DeepFM(config, train.dataset).to("cpu")
    trainer = Trainer(config, model)
    rows = len(train.dataset)
    measure(args, recbole.__version__, rows, sum(p.numel() for p in model.parameters()),
            lambda number: trainer._train_epoch(train, number, show_progress=False),
            lambda: float(trainer._valid_epoch(valid)[0]))


if __name__ == "__main__":
    main()
