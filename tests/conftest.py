"""What all tests share: a quiet TensorFlow, no windows, Hypothesis without a clock, and tiny data."""

from __future__ import annotations

import gc
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # files of tests run side by side, a process for each core

import numpy as np
import pytest
from hypothesis import settings

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: a slow example is no failure. Every run tries the same examples, so that a change fails by its
# own fault; others are tried with `--hypothesis-profile search`.
settings.register_profile("autolr", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("autolr")


@pytest.fixture(scope="session")
def data():
    """Three separable classes in six dimensions: 64 samples, so that 16 is an even batch size and 24 is not."""
    rng = np.random.default_rng(0)
    y = np.arange(64) % 3
    x = np.eye(6)[y] + 0.5 * rng.normal(size=(64, 6))
    return x.astype("float32"), y.astype("int32")


def pytest_configure(config):
    # Keras 3.15 on NumPy 2.4, at every look at a variable.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


def pytest_collection_finish(session):
    # Keras Tuner collects garbage twice for each model it builds; TensorFlow's million objects need no looking at. And
    # tracing makes so many that Python looks for garbage among them all the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    # Optimizing the graphs of tiny models takes longer than running them as they are. Slow tests run as users' do.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow and "not slow" in session.config.option.markexpr:
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def _survivors_need_no_looking_at():
    """Nor does what a test has left behind, as functions traced: it made later searches three times slower."""
    yield
    gc.collect()
    gc.freeze()
