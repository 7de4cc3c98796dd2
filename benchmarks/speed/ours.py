"""SASRec of distilrec under the speed benchmark's clock: the same data, size and evaluator, ids only, no text."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from common import DIM, HEADS, HISTORY, LAYERS, SEED, Clock, Data, Run, arguments

import distilrec
from distilrec.data.build import build_dataset
from distilrec.data.split import split as split_events
from distilrec.models.trained import create
from distilrec.training import loop
from distilrec.training.fit import RankWork
from distilrec.training.settings import TrainSettings

MODEL = {"dim": DIM, "layers": LAYERS, "heads": HEADS, "max_length": HISTORY, "dropout": 0.5}
SETTINGS = TrainSettings(batch_size=128, learning_rate=2e-3, weight_decay=0.1, negatives=512, seed=SEED)


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    run = Run(args, "distilrec", distilrec.__version__, {"model": MODEL, **SETTINGS.model_dump(mode="json")})
    data = Data.load(args.data)
    sizes = np.diff(data.offsets)
    frame = pl.DataFrame({
        "user_id": np.repeat(np.arange(data.users), sizes), "item_id": data.items,
        "seq_pos": np.arange(len(data.items)) - np.repeat(data.offsets[:-1], sizes),
    })
    split = split_events(build_dataset("shared", frame), "leave-last-out")
    model, _ = create("sasrec", split, MODEL, content=None, seed=SEED)
    optimizer = loop.make_optimizer(model, SETTINGS)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    work = RankWork(model, split, SETTINGS)

    def score(users: np.ndarray) -> np.ndarray:
        items, lengths = data.histories(users, left=False)
        padded = torch.from_numpy(np.where(items < 0, data.n_items, items))
        return (model.last(padded, torch.from_numpy(lengths)) @ model.item_vectors().T).numpy()

    trained = int((work.examples.target_stop - work.examples.target_start).sum())
    run.ready()
    clock, state, going = Clock(), loop.Fit("ndcg@10"), True
    while going:
        clock.start()
        loop.epoch(model, work, SETTINGS, optimizer, scheduler, state)
        seconds, cpu = clock.stop()
        state.epochs += 1
        model.eval()
        with torch.inference_mode():
            going = run.epoch(seconds, cpu, trained, data.quality(score))


if __name__ == "__main__":
    main()
