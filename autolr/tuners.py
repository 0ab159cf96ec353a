"""Keras Tuner's tuners with the learning rate taken care of.

Each trial builds its model as ever; what is new happens inside the model's `fit`: see `autolr/trial.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import keras_tuner as kt

from autolr import compat
from autolr.errors import RecordError, invalid
from autolr.records import TrialRecord
from autolr.trial import DEFAULTS, MAX_LR, MIN_LR, RANGE_TEST_SHARE, RANGE_TEST_STEPS, AssistedTrial, describe

# In epochs, half a decade apart. Cycles are stretched to fit the trial, and a cycle longer than the trial is one
# cosine over all of it: whatever the budget, that plain schedule is in the space, and is what the default gives.
CYCLE_LENGTHS = [1, 3, 10, 30, 100]
MULT_FACTORS = [1.0, 1.5, 2.0]
LR_DECAYS = [0.8, 0.9, 1.0]


if TYPE_CHECKING:
    # The mixin goes in front of any tuner class; to a type checker it looks like the most general one.
    from keras_tuner import Tuner as _Tuner
else:
    _Tuner = object


class AutoLRMixin(_Tuner):
    """Adds AutoLR to a Keras Tuner tuner class; put it first among the base classes.

    Before each trial trains, a learning-rate range test runs on its freshly built model, which is then put back
    exactly as it was; the trial trains on cosine annealing with warm restarts between the bounds that the test found.
    Whatever rate the model was compiled with is not used. Three hyperparameters join the search space unless they are
    there already: `cycle_length` (epochs, 1 to 100), `mult_factor` (1 to 2) and `lr_decay` (0.8 to 1). Declare one of
    the same name in the build function or in `hyperparameters=` to choose another range, or hold it with `hp.Fixed`.

    Args:
        *args: Arguments of the tuner class.
        range_test_share: Largest share of a trial's own optimizer steps that its range test may add. Defaults to 0.1.
        range_test_steps: Optimizer steps a range test may have where the share allows it. Defaults to 220: a sweep of
            100, and up to five bursts of 24 where it leaves doubts. A test has at least 40 steps, or what is asked
            for here if that is less: with fewer it could not see anything.
        **kwargs: Arguments of the tuner class.

    Raises:
        ValueError: If `range_test_share` is not in (0, 1] or `range_test_steps` is less than 2.

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
        **kwargs: Any,
    ) -> None:
        if not 0 < range_test_share <= 1:
            raise invalid("range_test_share", "be in (0, 1]", range_test_share)
        if not range_test_steps >= 2:
            raise invalid("range_test_steps", "be 2 or more", range_test_steps)
        self.range_test_share, self.range_test_steps = range_test_share, range_test_steps
        self._assisted: AssistedTrial | None = None
        self._warned: set[str] = set()
        self._quiet = False
        super().__init__(*args, **kwargs)
        if not self._is_worker():  # a worker's oracle is only a line to the chief's
            compat.ignore_found_values(self.oracle)

    def _populate_initial_space(self) -> None:
        super()._populate_initial_space()
        space = self.oracle.get_space()
        known = {parameter.name for parameter in space.space}
        if known >= set(DEFAULTS) or not self.oracle.allow_new_entries:
            return
        if "cycle_length" not in known:
            space.Choice("cycle_length", CYCLE_LENGTHS, default=DEFAULTS["cycle_length"])
        if "mult_factor" not in known:
            space.Choice("mult_factor", MULT_FACTORS, default=DEFAULTS["mult_factor"])
        if "lr_decay" not in known:
            space.Choice("lr_decay", LR_DECAYS, default=DEFAULTS["lr_decay"])
        self.oracle.update_space(space)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Search as Keras Tuner does; takes the arguments of `model.fit`. See `keras_tuner.Tuner.search`."""
        self._quiet = fit_kwargs.get("verbose", "auto") == 0
        super().search(*fit_args, **fit_kwargs)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a trial; its executions share the bounds that the first of them found."""
        self._assisted = self._assist(trial)
        try:
            return super().run_trial(trial, *args, **kwargs)
        finally:
            self._assisted = None

    def _assist(self, trial: Any) -> AssistedTrial:
        return AssistedTrial(
            trial=trial,
            folder=self.get_trial_dir(trial.trial_id),
            range_test_share=self.range_test_share,
            range_test_steps=self.range_test_steps,
            quiet=self._quiet,
            warned=self._warned,
        )

    def _build_and_fit_model(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        # A user's own `run_trial` may call this without ours.
        if self._assisted is None or self._assisted.trial is not trial:
            self._assisted = self._assist(trial)
        return super()._build_and_fit_model(trial, *args, **kwargs)

    def _try_build(self, hp: Any) -> Any:
        model = super()._try_build(hp)
        # Keras Tuner also builds models to explore the space or to load weights: those are not trained.
        if self._assisted is not None and hp is self._assisted.trial.hyperparameters:
            self._assisted.attach(model)
        return model

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials as Keras Tuner does, then the bounds and the schedule of each.

        Args:
            num_trials: How many trials to show. Defaults to 10.
        """
        super().results_summary(num_trials)
        print("\nLearning rates")
        for trial in self.oracle.get_best_trials(num_trials):
            print(f"Trial {trial.trial_id}: {self._summarise(trial)}")

    def _summarise(self, trial: Any) -> str:
        values = trial.hyperparameters.values
        if MIN_LR not in values:
            return "no bounds recorded"
        found = f"{values[MIN_LR]:.2e} to {values[MAX_LR]:.2e}"
        try:
            record = TrialRecord.read(self.get_trial_dir(trial.trial_id))
        except RecordError as error:
            return f"{found}; {error}"
        return f"{found} ({record.bounds['status']}, from {record.source}); {describe(record.schedule)}"


TunerClass = TypeVar("TunerClass", bound=type)


def with_auto_lr(tuner_class: TunerClass) -> TunerClass:
    """A tuner class like this one, with AutoLR.

    Args:
        tuner_class: A Keras Tuner tuner class, or any subclass of one.

    Returns:
        A subclass of the same name, with `AutoLRMixin` in front.

    Raises:
        TypeError: If it is no tuner class.

    Example:
    ```python
    tuner = autolr.with_auto_lr(kt.Tuner)(oracle=my_oracle, hypermodel=build_model)
    ```
    """
    if not (isinstance(tuner_class, type) and issubclass(tuner_class, kt.Tuner)):
        raise TypeError(
            "Argument `tuner_class` must be a subclass of `keras_tuner.Tuner`. "
            f"Received: tuner_class={tuner_class!r}. Pass the class, not an instance of it."
        )
    if issubclass(tuner_class, AutoLRMixin):
        return tuner_class
    return type(tuner_class.__name__, (AutoLRMixin, tuner_class), {"__module__": tuner_class.__module__})  # type: ignore[return-value]


class RandomSearch(AutoLRMixin, kt.RandomSearch):
    """`keras_tuner.RandomSearch` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    Example:
    ```python
    tuner = autolr.RandomSearch(build_model, objective="val_accuracy", max_trials=10)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class BayesianOptimization(AutoLRMixin, kt.BayesianOptimization):
    """`keras_tuner.BayesianOptimization` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    Example:
    ```python
    tuner = autolr.BayesianOptimization(build_model, objective="val_accuracy", max_trials=20)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class GridSearch(AutoLRMixin, kt.GridSearch):
    """`keras_tuner.GridSearch` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    The three schedule hyperparameters multiply the grid by 45. Hold those you do not want to search:

    Example:
    ```python
    hp = kt.HyperParameters()
    hp.Fixed("mult_factor", 1.5)
    hp.Fixed("lr_decay", 0.9)
    tuner = autolr.GridSearch(build_model, objective="val_accuracy", hyperparameters=hp)
    tuner.search(x, y, validation_split=0.1, epochs=12, batch_size=128)
    ```
    """


class Hyperband(AutoLRMixin, kt.Hyperband):
    """`keras_tuner.Hyperband` with AutoLR: the same arguments, and those of `AutoLRMixin`.

    A trial of a later rung goes on with its parent's weights, so it takes its parent's bounds and goes on with the
    schedule, stretched over all its epochs, where the parent ended.

    Example:
    ```python
    tuner = autolr.Hyperband(build_model, objective="val_accuracy", max_epochs=12)
    tuner.search(x, y, validation_split=0.1, batch_size=128)
    ```
    """


__all__ = [
    "AutoLRMixin",
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "with_auto_lr",
]
