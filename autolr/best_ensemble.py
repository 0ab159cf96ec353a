"""The best trials of a search, and the ends of their cycles, as one model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autolr import compat, compat_tuner
from autolr.best_ends import best_ends, near_the_best, one_of_each_chain
from autolr.compiled import compiled_like
from autolr.cycle_ends import has_non_finite_weights
from autolr.ensemble import average, check_last, without_compiled_parts
from autolr.errors import check_count, warn
from autolr.model_copy import with_own_layers
from autolr.trial import SNAPSHOTS
from autolr.trial_bounds import parent_of


def best_ensemble(tuner: Any, num_trials: int, *, last: int | None) -> Any:
    """See `autolr.AutoLRMixin.get_best_ensemble`.

    Args:
        tuner: Of the search.
        num_trials: How many of the best trials to average.
        last: How many of each one's last snapshots; None for all.
    """
    check_last(last)
    wanted = check_count("num_trials", num_trials, hint="1 is the best alone.")
    trials = {trial.trial_id: trial for trial in compat_tuner.best_completed_trials(tuner.oracle)}
    distinct = one_of_each_chain(trials, {name: parent_of(trial) for name, trial in trials.items()})
    best = near_the_best([trials[name] for name in distinct[:wanted]], tuner.oracle.objective)
    if not best:
        raise ValueError("No trial of this search has ended with a score. Call `search` first.")
    counts: list[int] = []  # of each trial's models
    loaded: list[tuple[Any, Path]] = []
    for trial in best:
        folder = Path(tuner.get_trial_dir(trial.trial_id))
        own = _sound((_model_at(tuner, trial, end), end) for end in best_ends(folder, folder / SNAPSHOTS, last=last))
        best_epoch = Path(compat_tuner.checkpoint_of(tuner, trial.trial_id))
        own = own or _sound([(_model_at(tuner, trial), best_epoch)])
        if not own:
            warn(f"Trial {trial.trial_id} is left out of the ensemble: its weights are not finite.")
        counts.append(len(own))
        loaded += own
    if not loaded:
        raise ValueError("The weights of none of these trials are finite. Look at their training, in the report say.")
    models = iter(with_own_layers(loaded))
    members = []
    for count in filter(None, counts):
        of_trial = list(itertools.islice(models, count))
        members.append(average(of_trial, name=f"{of_trial[0].name}_ensemble"))
    return without_compiled_parts(compiled_like(loaded[0][0], average(members, name="best_trials_ensemble")))


def _sound(loaded: Iterable[tuple[Any, Path]]) -> list[tuple[Any, Path]]:
    """Those of the models that can predict: one that diverged has a score all the same where NaN is the first class."""
    return [(model, path) for model, path in loaded if not has_non_finite_weights(model)]


def _model_at(tuner: Any, trial: Any, end: Path | None = None) -> Any:
    """A trial's model with the weights of an end of a cycle, or of its best epoch; nothing is trained with it.

    Built anew: a copy would not have what the build function adapts, as layers that look up texts.
    """
    with compat.optimizer_may_be_left_out():
        if end is None or compat_tuner.may_have_weights(tuner, trial.trial_id):
            model = tuner.load_model(trial)
        else:  # Keras Tuner's callback, which saves the best epoch, was not passed on
            model = compat_tuner.build_again(tuner, trial)
        if end is not None:
            model.load_weights(end)
    return model
