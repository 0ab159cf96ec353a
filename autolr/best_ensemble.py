"""The best trials of a search, and the ends of their cycles, as one model."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

from autolr import compat_tuner
from autolr.best_ends import best_ends, near_the_best
from autolr.ensemble import average, check_last, compiled_like, with_own_layers, without_compiled_parts
from autolr.errors import check_count
from autolr.trial import SNAPSHOTS


def best_ensemble(tuner: Any, num_trials: int, *, last: int | None) -> Any:
    """See `autolr.AutoLRMixin.get_best_ensemble`.

    Args:
        tuner: Of the search.
        num_trials: How many of the best trials to average.
        last: How many of each one's last snapshots; None for all.
    """
    check_last(last)
    wanted = check_count("num_trials", num_trials, hint="1 is the best alone.")
    best = near_the_best(compat_tuner.best_completed_trials(tuner.oracle, wanted), tuner.oracle.objective)
    if not best:
        raise ValueError("No trial of this search has ended with a score. Call `search` first.")
    ends: list[list[Path]] = []
    loaded: list[tuple[Any, Path]] = []
    for trial in best:
        folder = Path(tuner.get_trial_dir(trial.trial_id))
        ends.append(best_ends(folder, folder / SNAPSHOTS, last=last))
        best_epoch = Path(compat_tuner.checkpoint_of(tuner, trial.trial_id))
        loaded += [(_model_at(tuner, trial, end), end) for end in ends[-1]] or [(_model_at(tuner, trial), best_epoch)]
    models = iter(with_own_layers(loaded))
    members = []
    for own in ends:
        of_trial = list(itertools.islice(models, max(len(own), 1)))
        members.append(average(of_trial, name=f"{of_trial[0].name}_ensemble") if own else of_trial[0])
    return without_compiled_parts(compiled_like(loaded[0][0], average(members, name="best_trials_ensemble")))


def _model_at(tuner: Any, trial: Any, end: Path | None = None) -> Any:
    """A trial's model with the weights of an end of a cycle, or of its best epoch; nothing is trained with it.

    Built anew: a copy would not have what the build function adapts, as layers that look up texts.
    """
    with warnings.catch_warnings():
        # Of an optimizer's state that finds no place.
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        if end is None or compat_tuner.may_have_weights(tuner, trial.trial_id):
            model = tuner.load_model(trial)
        else:  # Keras Tuner's callback, which saves the best epoch, was not passed on
            model = compat_tuner.build_again(tuner, trial)
        if end is not None:
            model.load_weights(end)
    return model
