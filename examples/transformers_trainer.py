"""Trace what a Trainer of transformers trains."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from gradflow.integrations.transformers import GradflowCallback

config = BertConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_attention_heads=2)
model = BertForSequenceClassification(config)
data = [{"input_ids": torch.randint(50, (8,)), "labels": torch.tensor(n % 2)} for n in range(32)]
arguments = TrainingArguments("runs/trainer", num_train_epochs=2, report_to=[])
with GradflowCallback("runs/transformers", schedule=2) as callback:
    Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
