"""SASRec of RecBole 1.2.1 under the speed benchmark's clock. Run by run.py in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import recbole
import torch
from common import DIM, HEADS, HISTORY, LAYERS, SEED, Clock, Data, Run, arguments
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

# The defaults of its SASRec (dropout .5, inner width 256, Adam 1e-3) with the loss it documents as the default, CE.
SETTINGS = {
    "n_layers": LAYERS, "n_heads": HEADS, "hidden_size": DIM, "inner_size": 256, "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5, "loss_type": "CE", "train_neg_sample_args": None, "train_batch_size": 2048,
    "learning_rate": 0.001, "MAX_ITEM_LIST_LENGTH": HISTORY,
}


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    run = Run(args, "RecBole", recbole.__version__, SETTINGS)
    data, work = Data.load(args.data), Path(args.work)
    write_interactions(data, work / "data" / "shared")
    config = Config(model="SASRec", dataset="shared", config_dict={
        **SETTINGS, "data_path": str(work / "data"), "checkpoint_dir": str(work / "saved"), "seed": SEED,
        "use_gpu": False, "show_progress": False, "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    })
    init_seed(SEED, True)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train.dataset).to("cpu")
    trainer = Trainer(config, model)
    ids = np.concatenate([[0], dataset.token2id("item_id", [str(i) for i in range(data.n_items)])])

    def score(users: np.ndarray) -> np.ndarray:
        items, lengths = data.histories(users, left=False)
        batch = Interaction({
            "item_id_list": torch.from_numpy(ids[items + 1]), "item_length": torch.from_numpy(lengths)
        })
        with torch.no_grad():
            return model.full_sort_predict(batch)[:, ids[1:]].numpy()

    trained = len(train.dataset)
    run.ready()
    clock, epoch, going = Clock(), 0, True
    while going:
        clock.start()
        trainer._train_epoch(train, epoch)
        seconds, cpu = clock.stop()
        model.eval()
        going = run.epoch(seconds, cpu, trained, data.quality(score))
        epoch += 1


def write_interactions(data: Data, folder: Path) -> None:
    """RecBole's atomic file; the place within the user is the time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "shared.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user in range(data.users):
            for place, item in enumerate(data.items[data.offsets[user] : data.offsets[user + 1]]):
                file.write(f"{user}\t{item}\t{place}\n")


if __name__ == "__main__":
    main()
