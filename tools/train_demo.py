"""Trains the demo network and writes the files of src/planish/demo.

To reproduce, from the root of the repository, in an environment that has planish:

    pip install torch scikit-learn onnx
    python tools/train_demo.py              # some minutes on 2 cores; overwrites the shipped files
    python tools/train_demo.py --validate   # scores on held-out training forms; writes nothing

planish needs neither this script nor its packages to build or to run. The seed is fixed; another
version of torch or another CPU still gives other last bits, and so a few other right answers.

Data: scikit-learn's `load_digits`, which is the test set of "Optical Recognition of Handwritten
Digits" (E. Alpaydin, C. Kaynak, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0). Its 1797
pictures lie in the order of the 14 forms they were cut from, so the split is by form and not by
picture: ten forms are trained on, the last four are the shipped test set. The digits of one hand
resemble each other, so a random split would flatter. Every choice below was made with `--validate`,
which never sees the test forms.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from planish.demo import INPUT_SIZE, model_path, preprocess

FOLDER = Path(__file__).resolve().parent.parent / "src" / "planish" / "demo"
SEED = 20240
EPOCHS = 24
BATCH = 64
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
OPSET = 17

# Pictures [0, VALIDATION_FROM) are 8 whole forms and [VALIDATION_FROM, TEST_FROM) are 2, to train
# on; [TEST_FROM, end) are the 4 test forms. A form starts where the labels run 0..9 three times.
VALIDATION_FROM = 1029
TEST_FROM = 1287
CALIBRATION = slice(0, 1280, 10)  # of the pictures trained on: all forms, whatever digit it is


class Widths(NamedTuple):
    """Channels of one Inception block."""

    name: str
    inputs: int
    one: int  # 1x1
    three_in: int  # 1x1 before the 3x3
    three: int
    five_in: int  # 1x1 before the 5x5
    five: int
    pool: int  # 1x1 after the max pool

    @property
    def outputs(self) -> int:
        """Channels after the concat."""
        return self.one + self.three + self.five + self.pool


STEM_CHANNELS = 64
STAGE_3 = (
    Widths("3a", STEM_CHANNELS, 32, 32, 48, 8, 16, 16),
    Widths("3b", 112, 48, 48, 72, 12, 24, 24),
)
STAGE_4 = (
    Widths("4a", 168, 64, 56, 96, 16, 32, 32),
    Widths("4b", 224, 64, 64, 112, 16, 32, 48),
    Widths("4c", 256, 96, 64, 128, 16, 48, 48),
)


class ConvNormRelu(nn.Module):
    """Convolution, batch norm, ReLU: three nodes in the exported graph."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.Module):
    """The block of GoogLeNet: four branches over one input, joined along the channels."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        w = widths
        self.one = ConvNormRelu(w.inputs, w.one, 1)
        self.three = nn.Sequential(
            ConvNormRelu(w.inputs, w.three_in, 1), ConvNormRelu(w.three_in, w.three, 3)
        )
        self.five = nn.Sequential(
            ConvNormRelu(w.inputs, w.five_in, 1), ConvNormRelu(w.five_in, w.five, 5)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), ConvNormRelu(w.inputs, w.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h, w]."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class DigitsInception(nn.Module):
    """Stem, two stages of Inception blocks with a pool between them, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormRelu(1, 32, 5, stride=2),
            ConvNormRelu(32, 32, 1),
            ConvNormRelu(32, STEM_CHANNELS, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.stage3 = nn.Sequential(*(Inception(w) for w in STAGE_3))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stage4 = nn.Sequential(*(Inception(w) for w in STAGE_4))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(STAGE_4[-1].outputs, 10)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, 64, 64] to [n, 10] logits."""
        x = self.stage4(self.pool(self.stage3(self.stem(image))))
        return self.classifier(self.dropout(torch.flatten(self.average(x), 1)))


def distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Turns, scales, shears, shifts and blots every picture by its own random amounts."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=random) * 2 - 1) * limit

    angle, shear = uniform(math.radians(14)), uniform(0.2)
    wide, high = torch.exp(uniform(0.16)), torch.exp(uniform(0.16))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [wide * cos, shear - sin, uniform(0.12), sin + shear, high * cos, uniform(0.12)]
    grid = functional.affine_grid(
        torch.stack(rows, dim=1).reshape(count, 2, 3), list(images.shape), align_corners=False
    )
    moved = functional.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is paper
    coarse = torch.randn(count, 1, 8, 8, generator=random) * 0.12
    noise = functional.interpolate(coarse, INPUT_SIZE, mode="bilinear", align_corners=False)
    return (moved + noise).clamp(-1, 1)


def train(images: Tensor, labels: Tensor) -> DigitsInception:
    """Trains a new network for a fixed number of epochs; no score decides when to stop."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    network = DigitsInception().to(memory_format=torch.channels_last).train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=EPOCHS * steps, pct_start=0.2
    )
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=random)
        total = 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            batch = distort(images[chosen], random).to(memory_format=torch.channels_last)
            loss = functional.cross_entropy(
                network(batch), labels[chosen], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {total / steps:.4f}", flush=True)
    return network.eval()


def count_right(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many pictures the network names correctly."""
    with torch.inference_mode():
        answers = torch.cat([network(part).argmax(1) for part in images.split(BATCH)])
    return int((answers == labels).sum())


def export(network: DigitsInception, path: Path) -> None:
    """Writes the network as an exporter would, with batch norms left as nodes of their own."""
    torch.onnx.export(
        network.to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 1, INPUT_SIZE, INPUT_SIZE),),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold the batch norms
        do_constant_folding=False,
    )
    model = onnx.load(path)
    model.doc_string = (
        "Inception-style classifier of handwritten digits, trained by tools/train_demo.py"
        " on pictures of E. Alpaydin, C. Kaynak (1998), https://doi.org/10.24432/C50P49, CC BY 4.0."
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    """Trains, scores, and writes the files unless only a validation was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--validate", action="store_true", help="score on training forms, write nothing"
    )
    validate = parser.parse_args().validate

    digits = load_digits()
    pixels: NDArray[np.uint8] = digits.images.astype(np.uint8)
    images = torch.from_numpy(preprocess(pixels))
    labels = torch.from_numpy(digits.target.astype(np.int64))

    split, end = (VALIDATION_FROM, TEST_FROM) if validate else (TEST_FROM, len(images))
    network = train(images[:split], labels[:split])
    right = count_right(network, images[split:end], labels[split:end])
    print(f"{right} of {end - split} right: {right / (end - split):.2%}")
    if validate:
        return
    export(network, FOLDER / model_path().name)
    np.savez_compressed(FOLDER / "digits_calibration.npz", pixels=pixels[CALIBRATION])
    np.savez_compressed(
        FOLDER / "digits_test.npz",
        pixels=pixels[split:],
        labels=digits.target[split:].astype(np.uint8),
    )


if __name__ == "__main__":
    main()
