#!/usr/bin/env python3
"""Make `mnist_sample.npz` beside this file from the whole MNIST: 10,000 training and 2,000 test images, stratified.

    python examples/data/make_mnist_sample.py PATH/TO/mnist.npz

The classes keep their shares; images are drawn with a fixed seed and shuffled, so the file is the same every time.
"""

import argparse
from pathlib import Path

import numpy as np

SEED = 0
SIZES = {"train": 10_000, "test": 2_000}


def stratified(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of a random sample whose class shares are those of `labels`, by largest remainders."""
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    quota = np.floor(exact).astype(int)
    short = np.argsort(exact - quota)[::-1][: size - quota.sum()]
    quota[short] += 1
    drawn = [rng.choice(np.flatnonzero(labels == c), q, replace=False) for c, q in zip(classes, quota, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def main() -> None:
    """Read the whole, write the sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="npz with x_train, y_train, x_test, y_test")
    source = parser.parse_args().source
    rng = np.random.default_rng(SEED)
    sample = {}
    with np.load(source) as whole:
        for part, size in SIZES.items():
            chosen = stratified(whole[f"y_{part}"], size, rng)
            sample[f"x_{part}"] = whole[f"x_{part}"][chosen]
            sample[f"y_{part}"] = whole[f"y_{part}"][chosen]
    target = Path(__file__).with_name("mnist_sample.npz")
    np.savez_compressed(target, **sample)
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
