"""Backbone, frozen and then thawed, with Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
import time

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, Trainer, TrainingArguments

from benchmarks.peers.work import Work, asked_work, num_cores, report


def main() -> None:
    work: Work = asked_work()
    transforms = Compose([Resize((work.image_size, work.image_size)), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    train, val = (ImageFolder(str(work.folder / part), transforms) for part in ("train", "val"))
    model = MobileNetV2ForImageClassification(
        MobileNetV2Config(image_size=work.image_size, num_labels=len(train.classes), finegrained_output=True)
    )
    seconds = []
    for thawed in (False, True):
        model.mobilenet_v2.requires_grad_(thawed)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=folder,
                    num_train_epochs=work.epochs,
                    per_device_train_batch_size=work.batch_size,
                    per_device_eval_batch_size=work.batch_size,
                    learning_rate=1e-4,
                    eval_strategy="epoch",
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    dataloader_num_workers=num_cores(),
                    use_cpu=work.device == "cpu",
                ),
                train_dataset=train,
                eval_dataset=val,
                data_collator=collate,
            )
            start = time.perf_counter()
            trainer.train()
            seconds.append(time.perf_counter() - start)
    report(*seconds)


def collate(examples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """Batch in the form that the model expects."""
    images, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


if __name__ == "__main__":
    main()
