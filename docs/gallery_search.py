#!/usr/bin/env python3
"""Draw what a search looks like, into `docs/img`: the plots of `plot_search`, and the report in a browser.

    python docs/gallery_search.py

It runs a small search on scikit-learn's digits. The report's pictures need Chromium; without it they are left as they
are, and a line says so.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

import autolr

IMAGES = Path(__file__).parent / "img"


def build_model(hp: Any) -> keras.Model:
    """A perceptron with a choice of optimizers."""
    hidden = keras.layers.Dense(hp.Choice("units", [16, 32, 64, 128]), activation="relu")
    model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10, activation="softmax")])
    optimizer = hp.Choice("optimizer", ["adam", "sgd", "rmsprop"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def search(folder: Path) -> Path:
    """A search of eight trials; the folder it leaves behind."""
    x, y = load_digits(return_X_y=True)
    tuner = autolr.RandomSearch(
        build_model, objective="val_loss", max_trials=8, seed=1, directory=folder, project_name="digits"
    )
    tuner.search(x / 16, y, validation_split=0.2, epochs=30, batch_size=32, verbose=0)
    return folder / "digits"


def draw_plots(project: Path) -> None:
    """`search.png`: the kinds of `plot_search`."""
    figure, grid = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    for kind, axes in zip(("trials", "steps", "bounds", "cycle_length"), grid.flat, strict=True):
        autolr.plot_search(project, kind=kind, ax=axes)
        axes.set_title(f'kind="{kind}"', fontsize=11)
    figure.savefig(IMAGES / "search.png", dpi=90)


def photograph(report: Path) -> None:
    """`report*.png`: the report on a desk, light and dark, and on a phone; and the part of the best trial."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("The report's pictures are left as they are: no Chromium is installed.", file=sys.stderr)
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width, scheme in (
            ("report", 1200, "light"),
            ("report_dark", 1200, "dark"),
            ("report_phone", 390, "light"),
        ):
            page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
            page.goto(report.as_uri())
            page.screenshot(path=IMAGES / f"{name}.png")
            if name == "report":
                page.locator("tr.is-best a").first.click()
                page.locator("details[open]").first.screenshot(path=IMAGES / "report_trial.png")
            page.close()
        browser.close()


def main() -> None:
    """Search, draw, photograph."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        project = search(Path(folder))
        draw_plots(project)
        report = Path(folder) / "report.html"
        autolr.write_report(project, report)
        photograph(report)
    print("The search's pictures are drawn.")


if __name__ == "__main__":
    main()
