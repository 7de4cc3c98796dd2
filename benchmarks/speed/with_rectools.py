"""SASRec of RecTools 0.19 under the speed benchmark's clock. Run by run.py in an environment of its own."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from common import DIM, HEADS, HISTORY, LAYERS, SEED, Clock, Data, Run, arguments
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

# The defaults of its SASRecModel (softmax over the catalog, dropout .2, batch 128, Adam 1e-3) at the common size.
SETTINGS = {
    "n_blocks": LAYERS, "n_heads": HEADS, "n_factors": DIM, "session_max_len": HISTORY, "loss": "softmax",
    "dropout_rate": 0.2, "batch_size": 128, "lr": 0.001,
}


class Judge(Callback):
    """Stops the clock at the end of each epoch and hands the model to the common evaluator."""

    def __init__(self, run: Run, data: Data, trained: int) -> None:
        self.run, self.data, self.trained, self.clock = run, data, trained, Clock()

    def __deepcopy__(self, memo: dict) -> Judge:
        return self  # the library copies its trainer; the log must stay one

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.clock.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds, cpu = self.clock.stop()
        model = pl_module.torch_model
        model.eval()
        known = pl_module.data_preparator.item_id_map.external_ids  # items of the train part, after the padding token
        place = {str(item): at for at, item in enumerate(known)}
        ids = np.array([0] + [place.get(str(item), 0) for item in range(self.data.n_items)])
        with torch.no_grad():
            items = model.item_model.get_all_embeddings()

            def score(users: np.ndarray) -> np.ndarray:
                history, _ = self.data.histories(users, left=True)
                with torch.no_grad():
                    last = model.encode_sessions({"x": torch.from_numpy(ids[history + 1])}, items)[:, -1]
                    scores = (last @ items.T).numpy()
                scores[:, 0] = -np.inf  # the padding token: also the place of items that the train part lacks
                return scores[:, ids[1:]]

            ndcg = self.data.quality(score)
        model.train()
        if not self.run.epoch(seconds, cpu, self.trained, ndcg):
            trainer.should_stop = True


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    run = Run(args, "RecTools", version("rectools"), SETTINGS)
    data = Data.load(args.data)
    sequences = [data.train(user) for user in range(data.users)]
    sizes = np.array([len(sequence) for sequence in sequences])
    frame = pd.DataFrame({
        Columns.User: np.repeat(np.arange(data.users), sizes), Columns.Item: np.concatenate(sequences),
        Columns.Weight: 1.0,
        Columns.Datetime: pd.Timestamp("2020-01-01")
        + pd.to_timedelta(np.concatenate([np.arange(size) for size in sizes]), unit="D"),
    })
    seed_everything(SEED)
    judge = Judge(run, data, int(np.minimum(sizes - 1, HISTORY).clip(min=0).sum()))

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1000, min_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[judge],
        )

    model = SASRecModel(**SETTINGS, get_trainer_func=trainer)
    run.ready()
    model.fit(Dataset.construct(frame))


if __name__ == "__main__":
    main()
