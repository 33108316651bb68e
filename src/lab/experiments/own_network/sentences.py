"""A small Transformer that says what kind of thing a definition defines, under the Trainer of Hugging Face."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets.definitions import KINDS, Sentences, encode, load_definitions, vocabulary
from lab.utils.vision import torchvision  # noqa: F401  # transformers imports it, and this is the door to it


class Rows(torch.utils.data.Dataset):
    """Sentences as the Trainer takes them: a dict of tensors each."""

    def __init__(self, sentences: Sentences, numbers: Mapping[str, int]) -> None:
        self.tokens = encode(sentences.texts, dict(numbers))
        self.labels = torch.tensor(sentences.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[i], "attention_mask": (self.tokens[i] != 0).long(), "labels": self.labels[i]}


def rows() -> tuple[Rows, Rows]:
    """3,200 sentences for training and 800 to test on, as the words of the first number them."""
    train = load_definitions("train")
    numbers = vocabulary(train)
    return Rows(train, numbers), Rows(load_definitions("test"), numbers)


def network(seed: int = 0) -> nn.Module:
    """An untrained ``BertForSequenceClassification``: two layers, 64 wide, four heads, for the words of the set."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    words = 2 + len(vocabulary(load_definitions("train")))
    config = BertConfig(vocab_size=words, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=32, num_labels=len(KINDS))  # fmt: skip
    return BertForSequenceClassification(config)


def trainer(net: nn.Module, train: Rows, epochs: int, seed: int = 0, callbacks: Sequence[Any] = (),
            optimizer: torch.optim.Optimizer | None = None, device: str = "cpu") -> Any:  # fmt: skip
    """A ``Trainer`` that says nothing and keeps nothing."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=2e-3,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=seed,
        use_cpu=device == "cpu", dataloader_num_workers=0, dataloader_pin_memory=False,
    )  # fmt: skip
    made = Trainer(model=net, args=arguments, train_dataset=train, callbacks=list(callbacks),
                   optimizers=(optimizer, None))  # fmt: skip
    made.remove_callback(PrinterCallback)
    return made


@torch.no_grad()
def right(net: nn.Module, test: Rows) -> Tensor:
    """``(N,)`` bool: which test sentences the network classifies rightly."""
    net.eval()
    tokens = test.tokens.to(next(net.parameters()).device)
    logits = net(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
    return logits.argmax(1).cpu() == test.labels
