"""Run in each of two processes by the tests beside it, as torchrun does: FOLDER TRAINER.

Without torchrun's variables it trains in one process, with the whole batch.
"""

import os
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

# ruff: noqa: PLC0415 - each process loads the library of one trainer

COUNT = int(os.environ.get("WORLD_SIZE", "1"))
BATCH = 4 // COUNT


def by_lightning(folder, checkpoint=None, epochs=2):
    import lightning

    from gradflow.integrations.lightning import GradflowCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
            self.log("train_loss", loss, on_epoch=True, on_step=False, sync_dist=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    torch.manual_seed(1)
    examples = TensorDataset(torch.randn(24, 4), torch.randint(0, 3, (24,)))
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder.parent,
        strategy="ddp" if COUNT > 1 else "auto", devices=COUNT, accumulate_grad_batches=2,
        gradient_clip_val=0.3, callbacks=[GradflowCallback(folder)], use_distributed_sampler=False,
    )  # fmt: skip
    rank = int(os.environ.get("RANK", "0"))
    mine = DistributedSampler(examples, COUNT, rank, shuffle=False)
    trainer.fit(Module(), DataLoader(examples, BATCH, sampler=mine), ckpt_path=checkpoint)
    if checkpoint is None:
        trainer.save_checkpoint(folder.parent / f"{folder.name}.ckpt")
        by_lightning(folder, folder.parent / f"{folder.name}.ckpt", epochs=3)


def by_transformers(folder, checkpoint=None, epochs=2):
    sys.path.insert(0, str(Path(__file__).parent))
    from test_transformers import GradflowCallback, bert, make_trainer

    model = bert(dropout=0.0)
    # The Trainer would multiply its loss by the number of processes, for sums over tokens.
    model.accepts_loss_kwargs = False
    trainer = make_trainer(
        folder.parent / f"{folder.name}-trainer", [GradflowCallback(folder)], model,
        per_device_train_batch_size=BATCH, num_train_epochs=epochs, save_strategy="epoch",
        lr_scheduler_type="constant", max_grad_norm=0.1, optim="sgd", learning_rate=0.1,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint)
    if checkpoint is None:
        by_transformers(folder, f"{trainer.args.output_dir}/checkpoint-8", epochs=3)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"lightning": by_lightning, "transformers": by_transformers}[sys.argv[2]](Path(sys.argv[1]))
