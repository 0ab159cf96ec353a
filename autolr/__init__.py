"""autolr: Keras Tuner's tuners with the learning rate taken care of.

Names are imported when they are first used: `import autolr` costs milliseconds and loads neither TensorFlow nor
Keras, so that finding bounds on a recorded curve or reading a finished search needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Type checkers and editors read these; at run time the table below does the same, later.
if TYPE_CHECKING:
    from autolr.bounds import find_bounds as find_bounds
    from autolr.curve import RangeTest as RangeTest
    from autolr.early_stopping import CycleEarlyStopping as CycleEarlyStopping
    from autolr.ensemble import averaged_weights as averaged_weights
    from autolr.ensemble import snapshot_ensemble as snapshot_ensemble
    from autolr.errors import AutoLRWarning as AutoLRWarning
    from autolr.lr_finder import LRFinder as LRFinder
    from autolr.mixin import AutoLRMixin as AutoLRMixin
    from autolr.plots import plot_range_test as plot_range_test
    from autolr.plots import plot_schedule as plot_schedule
    from autolr.plots import plot_search as plot_search
    from autolr.report import write_report as write_report
    from autolr.scheduler import SGDRScheduler as SGDRScheduler
    from autolr.schedules import SGDRSchedule as SGDRSchedule
    from autolr.sgdr import sgdr_lr as sgdr_lr
    from autolr.sweep import range_test as range_test
    from autolr.tuners import BayesianOptimization as BayesianOptimization
    from autolr.tuners import GridSearch as GridSearch
    from autolr.tuners import Hyperband as Hyperband
    from autolr.tuners import RandomSearch as RandomSearch
    from autolr.tuners import with_auto_lr as with_auto_lr
    from autolr.verdicts import LRBounds as LRBounds

_WHERE = {
    "AutoLRMixin": "mixin",
    "AutoLRWarning": "errors",
    "BayesianOptimization": "tuners",
    "CycleEarlyStopping": "early_stopping",
    "GridSearch": "tuners",
    "Hyperband": "tuners",
    "LRBounds": "verdicts",
    "LRFinder": "lr_finder",
    "RandomSearch": "tuners",
    "RangeTest": "curve",
    "SGDRSchedule": "schedules",
    "SGDRScheduler": "scheduler",
    "averaged_weights": "ensemble",
    "find_bounds": "bounds",
    "plot_range_test": "plots",
    "plot_schedule": "plots",
    "plot_search": "plots",
    "range_test": "sweep",
    "sgdr_lr": "sgdr",
    "snapshot_ensemble": "ensemble",
    "with_auto_lr": "tuners",
    "write_report": "report",
}

# What who changes every `kt.` to `autolr.` would look for here.
_KERAS_TUNERS = {"HyperModel", "HyperParameters", "Objective", "Oracle", "SklearnTuner", "applications", "oracles"}

__all__ = [*_WHERE]  # noqa: PLE0604 - names, held equal to the imports above by a test


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        hint = f" It has Keras Tuner's tuners alone: keep `keras_tuner.{name}`." if name in _KERAS_TUNERS else ""
        hint = " With AutoLR it is `autolr.with_auto_lr(keras_tuner.Tuner)`." if name == "Tuner" else hint
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{hint}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
