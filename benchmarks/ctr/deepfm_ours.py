"""DeepFM of distilrec under the clock of deepfm_speed.py."""

from __future__ import annotations

import polars as pl
import torch
from deepfm import DIM, DROPOUT, LABEL, RATE, SPLIT, arguments, measure

import distilrec
from distilrec.data import prepare_rows
from distilrec.models.predictor import create_rows
from distilrec.training import loop
from distilrec.training.row_fit import RowWork, default_losses
from distilrec.training.row_objective import Learner, variances_of
from distilrec.training.settings import TrainSettings


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    columns = [name for name in pl.scan_csv(args.table).collect_schema().names() if name not in (LABEL, SPLIT)]
    split = prepare_rows(args.table, features=dict.fromkeys(columns, "category"), labels={"click": LABEL},
                         split="given")
    settings = TrainSettings(
        batch_size=args.batch, learning_rate=RATE, seed=args.seed,
        optimizer="lazy_adam" if args.lazy else "adam", precision="bf16" if args.bf16 else "float32",
    )
    model, _ = create_rows("deepfm", split, {"dim": DIM, "hidden": args.hidden, "dropout": DROPOUT,
                                             "embedding_dropout": DROPOUT}, seed=args.seed)
    work = RowWork(split, tuple(split.features.values()), settings, losses=default_losses(split.heads),
                   knowledge=None, metric="auc")
    learner = Learner(model, split.outputs, variances_of(split))
    optimizer = loop.make_optimizer(learner, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, loop.schedule(settings, work.steps_per_epoch))
    state = loop.Fit("auc")

    def epoch(number: int) -> None:
        state.epochs = number
        loop.epoch(learner, work, settings, optimizer, scheduler, state)

    measure(args, distilrec.__version__, len(work.rows), sum(p.numel() for p in model.parameters()), epoch,
            lambda: work.validate(learner))


if __name__ == "__main__":
    main()
