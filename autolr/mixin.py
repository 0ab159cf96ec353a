"""What makes a Keras Tuner tuner class one with AutoLR.

Each trial builds its model as ever; what is new happens inside the model's `fit`: see `autolr/trial.py`.
"""

from __future__ import annotations

import contextlib
import glob
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras_tuner as kt

from autolr import compat_tuner
from autolr.averaging import check_tail_average
from autolr.best_ensemble import best_ensemble
from autolr.budget import MIN_RANGE_TEST_STEPS, RANGE_TEST_SHARE, RANGE_TEST_STEPS
from autolr.chief import WorkerWatch, is_chief, signs_of_life
from autolr.errors import check_count, in_brief, invalid, is_finite, warn
from autolr.objective_check import ObjectiveCheck
from autolr.progress import progress_for
from autolr.records import in_words, note_start, note_stop, objective_of, record_in
from autolr.search_memory import Options, SearchMemory
from autolr.search_space import add_schedule, describe_grid, fading, missing_in, sum_up_repeated
from autolr.trial import AssistedTrial
from autolr.trial_summary import summarise
from autolr.trial_values import MIN_LR, TAIL_AVERAGE


class AutoLRMixin(compat_tuner.TunerSeams):
    """Adds AutoLR to a Keras Tuner tuner class; put it first among the base classes.

    Before each trial trains, a learning-rate range test runs on its freshly built model, which is then put back
    exactly as it was; the trial trains on cosine annealing with warm restarts between the bounds that the test found
    (in later rungs of `Hyperband`, between those of the trial that it goes on from).
    Whatever rate the model was compiled with is not used. Three hyperparameters join the search space unless they are
    there already: `cycle_length` (epochs, 1 to 100), `mult_factor` (1 to 2) and `lr_decay` (0.8 to 1). Declare one of
    the same name in the build function or in `hyperparameters=` to choose another range, or hold it with `hp.Fixed`.

    Args:
        *args: Arguments of the tuner class.
        range_test_share: Largest share of a trial's own optimizer steps that its range test may add. Defaults to 0.1.
            Trials of fewer than 2,320 steps exceed it: see `range_test_min_steps`.
        range_test_steps: Optimizer steps a range test may have where the share allows it. Defaults to 1228: a sweep of
            100, then bursts of 24 and of 48 steps at single rates, and of 96 and 192 where a model begins to learn
            late. A smaller budget first drops the longest bursts, then points of the sweep, then another round of
            bursts. With data of unknown size it alone decides in the first trial, up to 364; the others know the
            size.
        range_test_min_steps: Optimizer steps a range test may have even if they exceed that share, up to 45 % of the
            trial: one lost to bad bounds costs more. Defaults to 232, a sweep of 40, five bursts of 24 and three that
            go on to 48. Trials of fewer than 516 steps give 160, without those three; of fewer than 356, 112, with
            three bursts; of fewer than 112, or 249 in first rungs of `Hyperband` of which the best go on, 40, without
            any, even if they have fewer themselves. A smaller value caps all of these.
        rate_callbacks: What becomes of callbacks that set the learning rate themselves (`ReduceLROnPlateau`,
            `LearningRateScheduler`, an `SGDRScheduler` or `LRFinder`). `"replace"`, the default: they are left out of
            the trials, which train on AutoLR's schedule, and a warning says so. `"keep"`: they stay, and a trial that
            has one trains without AutoLR, at the rate its model is compiled with.
        reuse_bounds: Whether trials that differ in their schedule alone share the bounds that the first of them
            found in this call of `search`, if their status is `"ok"`. Defaults to False: it saves the tests' steps,
            but makes one measurement, good or bad, that of all trials.
        num_snapshots: How many snapshots each trial keeps in its folder for `get_best_ensemble`: its weights at the
            ends of its last cycles. Defaults to 3; 0 keeps none.
        tail_average: Share of a trial's steps over which the model's weights are averaged when a cycle ends: what is
            judged, saved and gone on with is that average. Defaults to 0.1; 0 for none. See `SGDRScheduler`.
        **kwargs: Arguments of the tuner class.

    Raises:
        ValueError: If `range_test_share` is not in (0, 1], `range_test_steps` or `range_test_min_steps` is no whole
            number of 2 or more, `rate_callbacks` is neither `"replace"` nor `"keep"`, `reuse_bounds` is no bool,
            `num_snapshots` is negative, `tail_average` is not in [0, 1), or a `cycle_length`, `mult_factor` or
            `lr_decay` of the search space has a value that makes no schedule.

    Example:
    ```python
    class MyTuner(autolr.AutoLRMixin, kt.RandomSearch):
        ...
    ```
    """

    def __init__(
        self,
        *args: Any,
        range_test_share: float = RANGE_TEST_SHARE,
        range_test_steps: int = RANGE_TEST_STEPS,
        range_test_min_steps: int = MIN_RANGE_TEST_STEPS,
        rate_callbacks: str = "replace",
        reuse_bounds: bool = False,
        num_snapshots: int = 3,
        tail_average: float = TAIL_AVERAGE,
        **kwargs: Any,
    ) -> None:
        if not (is_finite(range_test_share) and 0 < range_test_share <= 1):
            raise invalid("range_test_share", "be in (0, 1]", range_test_share, f"The default is {RANGE_TEST_SHARE:g}.")
        if rate_callbacks not in ("replace", "keep"):
            hint = '"replace" leaves callbacks that set the rate out of the trials.'
            raise invalid("rate_callbacks", 'be "replace" or "keep"', rate_callbacks, hint)
        if not isinstance(reuse_bounds, bool):
            raise invalid("reuse_bounds", "be True or False", reuse_bounds, "The default is False.")
        check_tail_average(tail_average)
        # Names that no tuner class of a user's has.
        self._autolr_options = Options(
            range_test_share=range_test_share,
            range_test_steps=check_count(
                "range_test_steps", range_test_steps, least=2, hint=f"The default is {RANGE_TEST_STEPS}."
            ),
            range_test_min_steps=check_count(
                "range_test_min_steps", range_test_min_steps, least=2, hint=f"The default is {MIN_RANGE_TEST_STEPS}."
            ),
            rate_callbacks=rate_callbacks,
            reuse_bounds=reuse_bounds,
            num_snapshots=check_count("num_snapshots", num_snapshots, least=0, hint="0 keeps none."),
            tail_average=float(tail_average),
        )
        self._autolr_memory = SearchMemory()
        self._autolr_trial: AssistedTrial | None = None
        self._autolr_helped: Any = None  # the latest trial whose model was fitted with AutoLR watching
        self._autolr_overwrites = bool(kwargs.get("overwrite"))
        if compat_tuner.has_chief() and not is_chief():
            kwargs["overwrite"] = False  # the chief has emptied the folder; a worker would empty it of the search
        super().__init__(*args, **kwargs)
        if self.hypermodel is None and not compat_tuner.overrides(self, "run_trial"):
            raise invalid(
                "hypermodel",
                "be a `HyperModel` or a function that builds a model",
                None,
                "It can only be left out by a tuner class with a `run_trial` of its own.",
            )
        if not compat_tuner.is_worker(self):  # a worker's oracle is only a line to the chief's
            self._autolr_mend_oracle()
        self._autolr_watch = WorkerWatch(self.oracle) if is_chief() else None

    def _autolr_mend_oracle(self) -> None:
        """Teach the oracle what AutoLR needs of it, and mend a search that was taken up again."""
        compat_tuner.ignore_found_values(self.oracle)
        compat_tuner.save_whole(self.oracle)
        folder = str(self.project_dir)
        if glob.escape(folder) != folder and not self.oracle.trials:
            if self.oracle.start_order:
                raise invalid(
                    "directory",
                    "hold none of `[`, `*` and `?`, by which Keras Tuner finds no trial of a search that it takes up",
                    folder,
                    "Give the folder another name: the search there is whole.",
                )
            warn(
                "A search in a folder with `[`, `*` or `?` in its name cannot be taken up again, as Keras Tuner finds "
                f"no trial there. Received: directory={folder!r}. Choose another name before it begins."
            )
        if missing := compat_tuner.mend_after_reload(self.oracle):
            warn(
                f"Of the search in {self.project_dir}, the folders of trials {', '.join(missing)} are gone. They "
                "count among `max_trials` as if they had failed."
            )
        compat_tuner.forget_earlier_scores(self.oracle)
        compat_tuner.give_up_afterwards(self.oracle)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class whose tuner comes before the mixin: it would run without AutoLR, and say nothing."""
        super().__init_subclass__(**kwargs)
        mro = cls.__mro__
        if kt.Tuner in mro[: mro.index(AutoLRMixin)]:
            raise TypeError(
                f"`AutoLRMixin` must come before the tuner among the base classes of `{cls.__name__}`. Received: "
                f"{', '.join(base.__name__ for base in cls.__bases__)}. Put `AutoLRMixin` first."
            )

    def _autolr_complete_space(self) -> None:
        """Add the schedule's hyperparameters to the space, but for those that are there.

        Raises:
            ValueError: If one that is there can have values that make no schedule.
        """
        space = self.oracle.get_space()
        may_add = self.oracle.allow_new_entries and self.oracle.tune_new_entries
        if added := add_schedule(space, may_add=may_add):
            self.oracle.update_space(space)
        if added and isinstance(self.oracle, kt.oracles.GridSearchOracle):
            self._autolr_memory.warn_once("grid", describe_grid(added))
        for parameter in fading(space):
            self._autolr_memory.warn_once(
                "fading",
                "Hyperparameter `lr_decay` is taken for the schedule's: what each restart multiplies the peak by. "
                f"Received: {parameter}, whose later cycles hardly train. One of your own needs another name.",
            )

    def reload(self) -> None:
        """Take up a search; say so if that was begun without AutoLR, whose hyperparameters can't join its space."""
        super().reload()
        if compat_tuner.is_worker(self):  # the chief knows the space
            return
        self._autolr_compare_objective()
        # Grid search, for one, fails where an earlier trial has no value of a hyperparameter.
        missing = missing_in(self.oracle.get_space())
        if missing and self.oracle.allow_new_entries and self.oracle.tune_new_entries:
            self._autolr_memory.warn_once(
                "begun without",
                f"The search in {self.project_dir} was begun without AutoLR. Trials that have ended are not trained "
                f"again; those to come are helped, and hold {', '.join(f'`{name}`' for name in missing)} at the "
                "default. For a search by AutoLR alone, begin a new one in another directory, or with "
                "`overwrite=True`.",
            )

    def _autolr_compare_objective(self) -> None:
        """Say so if trials were scored by another objective: their scores cannot be compared with those to come."""
        scored = [trial_id for trial_id, trial in self.oracle.trials.items() if trial.status == "COMPLETED"]
        records = map(record_in, map(self.get_trial_dir, scored))
        before = next((record.objective for record in records if record and record.objective), None)
        now = objective_of(self.oracle)
        if before is not None and before != now:
            self._autolr_memory.warn_once(
                "objective",
                f"The search in {self.project_dir} was begun with the objective {in_words(before)}, and goes on with "
                f"{in_words(now) if now else 'none'}: scores of two kinds are ranked together. Begin a new search in "
                "another directory.",
            )

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Search as Keras Tuner does; takes the arguments of `model.fit`. See `keras_tuner.Tuner.search`."""
        # What was found on one call's data says nothing about another's.
        progress = progress_for(fit_kwargs.get("verbose", "auto"), self.project_name)
        self._autolr_memory = replace(self._autolr_memory, progress=progress, shared={}, verdicts={}, unassisted=[])
        # Keras Tuner saves this after the first trial, and forgets that one if it is killed before.
        if not compat_tuner.is_saved(self):
            self.save()
        if not compat_tuner.is_worker(self):
            note_start(self.project_dir)
        before = len(getattr(self.oracle, "end_order", ()))  # a worker's oracle has none
        try:
            with progress.shown(self.oracle):
                super().search(*fit_args, **fit_kwargs)
            if self._autolr_watch is None and before and before == len(self.oracle.end_order):
                progress.sum_up(
                    f"nothing was trained: all {before} trials of this search had ended before ({self.project_dir}). "
                    "For another search make the tuner again, with another `project_name` or `overwrite=True`; for "
                    "more trials of this one, with a larger `max_trials`, where it has that argument."
                )
            is_random = type(self.oracle) is kt.oracles.RandomSearchOracle
            repeated = sum_up_repeated(self.oracle.trials.values()) if is_random else []
            for summary in [*self._autolr_memory.summaries(), *repeated]:
                progress.sum_up(summary)
            if self._autolr_watch is not None and self._autolr_watch.given_up is not None:
                raise self._autolr_watch.given_up
        except BaseException as error:
            by_hand = isinstance(error, KeyboardInterrupt)
            if not compat_tuner.is_worker(self):  # the others go on
                what = in_brief(error).partition("\n")[0]
                note_stop(self.project_dir, "" if by_hand else what)
            if by_hand:
                progress.interrupted(str(self.project_dir), overwrites=self._autolr_overwrites)
            raise

    def on_trial_begin(self, trial: Any) -> None:
        """Show which trial it is."""
        self._autolr_memory.progress.begin(trial, self.oracle)
        super().on_trial_begin(trial)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a trial; its executions share the bounds that the first of them found."""
        shows_life = compat_tuner.is_worker(self)
        with (
            self._autolr_assisting(trial),
            signs_of_life(self.get_trial_dir(trial.trial_id)) if shows_life else contextlib.nullcontext(),
        ):
            return super().run_trial(trial, *args, **kwargs)

    @contextlib.contextmanager
    def _autolr_assisting(self, trial: Any) -> Iterator[None]:
        """Watch the `fit` of the models that are built for a trial meanwhile.

        Around a trial, and around each of its executions, for a `run_trial` of the user's own that does not call ours.
        """
        outer = self._autolr_trial
        assisted = outer if outer is not None and outer.trial is trial else self._autolr_assist(trial)
        self._autolr_trial = assisted
        try:
            yield
        finally:
            assisted.detach()
            self._autolr_trial = outer
            if assisted.fitted:
                self._autolr_helped = trial

    def _autolr_assist(self, trial: Any) -> AssistedTrial:
        return AssistedTrial(
            trial=trial,
            folder_of=self.get_trial_dir,
            checkpoint_of=lambda trial_id: compat_tuner.checkpoint_of(self, trial_id),
            options=self._autolr_options,
            search=self._autolr_memory,
            objective=objective_of(self.oracle),
            objective_check=self._autolr_objective_check(trial),
        )

    def _autolr_objective_check(self, trial: Any) -> ObjectiveCheck | None:
        if not compat_tuner.scores_by_fit(self):
            return None
        return ObjectiveCheck(
            self.oracle.objective,
            noted=lambda: self.oracle.get_trial(trial.trial_id).metrics.metrics,
            fails_trial=compat_tuner.is_worker(self),
        )

    def _autolr_on_model_built(self, hp: Any, model: Any) -> None:
        """Watch the `fit` of a model that is built for a trial."""
        # Keras Tuner also builds models to explore the space or to load weights: those are not trained.
        if self._autolr_trial is not None and hp is self._autolr_trial.trial.hyperparameters:
            self._autolr_trial.attach(model)

    def on_trial_end(self, trial: Any) -> None:
        """Say so if the trial was trained where AutoLR could not see it, or has kept no weights."""
        if trial.status != "COMPLETED":
            self._autolr_memory.forget(str(trial.trial_id))
        elif self._autolr_helped is not trial:
            self._autolr_memory.note_unassisted(str(trial.trial_id))
            self._autolr_memory.warn_once(
                "unseen",
                f"Trial {trial.trial_id} trained without AutoLR: `fit` was not called on the model that was built for "
                "it. AutoLR helps trials whose `HyperModel.fit` calls `fit` on the model it is given, and whose "
                "`run_trial` is Keras Tuner's or calls it. Without it the rate is what your code says, and "
                "`cycle_length`, `mult_factor` and `lr_decay` change nothing.",
            )
        super().on_trial_end(trial)
        if self._autolr_lost_weights(self.oracle.get_trial(trial.trial_id)):
            self._autolr_memory.warn_once(
                "no checkpoint",
                f"Trial {trial.trial_id} has kept no weights for `get_best_models`. Keras Tuner saves them by a "
                "callback: a `HyperModel.fit` of your own must pass the `callbacks` it is given on to the model's "
                "`fit`, as it must when it is to train the winner again on `SGDRScheduler.from_hyperparameters`; a "
                "`run_trial` must call Keras Tuner's, or save the weights itself.",
            )
        self._autolr_memory.progress.end(trial, self.oracle)

    def _autolr_lost_weights(self, trial: Any) -> bool:
        """Whether a trial has a score and no weights, because a method of the user's own kept them from being saved."""
        scored = trial.score is not None and math.isfinite(trial.score)  # else Keras Tuner keeps none
        passes_on = compat_tuner.scores_by_fit(self) or compat_tuner.overrides(self, "load_model")
        return scored and not passes_on and not compat_tuner.may_have_weights(self, trial.trial_id)

    def get_best_ensemble(self, num_trials: int = 1, *, last: int | None = None) -> Any:
        """The snapshot ensemble of the best trials: a model that averages what their last ends of cycles predict.

        Which trials are best is decided as `get_best_models` does. Of a trial's ends, those more than a tenth worse
        than the best of them are left out, by the objective (of an accuracy, by what it lacks to 1) or else by the
        loss, since a short early cycle may end before the model has learned much; and so are trials whose score is more
        than twice the best, where one objective is minimized. A trial that trained in a single cycle has a single
        snapshot, its last epoch. One without any, because it was stopped within its first cycle say, counts with its
        best epoch, as in `get_best_models`. One whose weights are not finite is left out, with a warning: it has a
        score where NaN is taken for the first class. With several executions in a trial, it is the last one's
        snapshots.

        Args:
            num_trials: Average the ensembles of so many of the best trials; each counts the same. Different
                architectures err differently, so a few trials give more than the cycles of one, for as many times the
                cost of predicting. Defaults to 1. If fewer have ended, all are used. Of `Hyperband`'s trials that went
                on from each other, only the best counts.
            last: Use the last so many snapshots of a trial only. Defaults to all it has kept, `num_snapshots`.

        Returns:
            A Keras model, compiled for `evaluate`. See `autolr.snapshot_ensemble`.

        Raises:
            ValueError: If no trial has ended, none has finite weights, an argument is less than 1, or the build
                function gives models of a class of its own that are not built, into which Keras Tuner cannot load
                weights.

        Example:
        ```python
        tuner.search(x, y, validation_split=0.1, epochs=12)
        tuner.get_best_ensemble(num_trials=3).save("best.keras")
        ```

        Reference:
            Huang et al., 2017, [Snapshot Ensembles: Train 1, get M for free](https://arxiv.org/abs/1704.00109);
            Caruana et al., 2004, [Ensemble Selection from Libraries of
            Models](https://doi.org/10.1145/1015330.1015432), for the trials of a search.
        """
        return best_ensemble(self, num_trials, last=last)

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials as Keras Tuner does, then the bounds and the schedule of each.

        Args:
            num_trials: How many trials to show. Defaults to 10.
        """
        super().results_summary(num_trials)
        best = self.oracle.get_best_trials(num_trials)
        if best:
            print("\nLearning rates")
        for trial in best:
            print(f"Trial {trial.trial_id}: {summarise(trial, self.get_trial_dir(trial.trial_id))}")
        if any(MIN_LR in trial.hyperparameters.values for trial in best):
            print(
                "To train one again, pass `callbacks=[autolr.SGDRScheduler.from_hyperparameters(hp)]` to `fit`: the "
                "build function does not set the rate."
            )
