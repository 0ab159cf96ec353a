"""The range test and the schedule as callbacks in a real `fit`."""

from __future__ import annotations

import gc
import math
import pickle
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from helpers import RateSpy, assert_same_arrays, compiled, one_weight, sequential, state_of

from autolr import AutoLRWarning, CycleEarlyStopping, LRFinder, RangeTest, SGDRScheduler, sgdr_lr
from autolr.cycles import fitted_edges
from autolr.model_state import ModelState

ON_JAX = keras.backend.backend() == "jax"

# Five steps an epoch; cycles of 1, 2 and 3 epochs.
SCHEDULE = {"min_lr": 0.01, "max_lr": 0.4, "cycle_length": 1, "mult_factor": 1.5, "lr_decay": 0.9}
X, Y = np.ones((20, 1), "float32"), np.zeros((20, 1), "float32")


def expected(steps, **changes):
    return sgdr_lr(np.asarray(steps), **{**SCHEDULE, "steps_per_epoch": 5, **changes})


def fit(model, *callbacks, epochs=6, x=X, y=Y, batch_size=4, **arguments):
    return model.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=list(callbacks), verbose=0, **arguments)


def plain_model():
    """Without noise, so that its losses can be computed by hand."""
    keras.utils.set_random_seed(3)
    return compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]), "sgd")


class BatchEndWeights(keras.callbacks.Callback):
    """The weights after each batch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights())


class InBatches(keras.utils.PyDataset):
    """The data in five batches of four."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[:4], Y[:4]


class SetsTheRate(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.01


class TestLRFinder:
    def test_it_records_the_loss_of_each_batch_alone(self, data):
        x, y = data
        finder = LRFinder(start_lr=1e-3, end_lr=1.0, num_steps=11)
        # Batches of 24, 24 and 16: a running mean, or one weighted by size, would differ from the second step on.
        fit(plain_model(), finder, x=x, y=y, batch_size=24, epochs=9, shuffle=False)

        by_hand = plain_model()
        (kernel, bias), losses = by_hand.get_weights(), []
        for step, rate in enumerate(np.geomspace(1e-3, 1.0, 11)):
            part = slice(step % 3 * 24, step % 3 * 24 + 24)
            scores = np.exp(x[part] @ kernel + bias)
            predicted = scores / scores.sum(axis=1, keepdims=True)
            losses.append(-np.log(predicted[np.arange(len(predicted)), y[part]]).mean())
            gradient = (predicted - np.eye(3)[y[part]]) / len(predicted)
            kernel, bias = kernel - rate * x[part].T @ gradient, bias - rate * gradient.sum(axis=0)
        np.testing.assert_allclose(finder.result.losses, losses, rtol=1e-5)
        assert np.std(losses) > 0.01

    def test_the_rates_rise_exponentially_and_are_trained_with(self):
        weights, finder = BatchEndWeights(), LRFinder(start_lr=1e-3, end_lr=1.0, num_steps=31)
        fit(one_weight(), weights, finder, epochs=31)
        result = finder.result
        assert isinstance(result, RangeTest)
        np.testing.assert_allclose(result.lrs, 10 ** np.linspace(-3, 0, 31), rtol=1e-12)
        trained_with = -np.diff([0.0, *(float(w[0][0, 0]) for w in weights.weights)])
        np.testing.assert_allclose(trained_with, result.lrs, rtol=1e-3, atol=1e-6)
        # The loss of this model is its weight before the step.
        np.testing.assert_allclose(result.losses, -np.cumsum([0, *result.lrs[:-1]]), rtol=1e-4)

    def test_it_ends_after_its_steps_in_mid_epoch(self):
        finder, spy = LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=12), RateSpy()
        fit(one_weight(), finder, spy, epochs=100)
        assert len(finder.result) == finder.result.steps_spent == len(spy.fits[0]) == 12
        assert finder.plot().get_lines()
        assert not finder.result.diverged

    def test_it_ends_when_the_loss_diverges(self, data):
        x, y = data
        finder = LRFinder(start_lr=1e-4, end_lr=1e8, num_steps=200)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        fit(model, finder, x=x, y=y, epochs=200, batch_size=16)
        assert finder.result.diverged
        assert 10 <= len(finder.result) < 150
        assert finder.result.lrs[-1] < 1e4

    def test_it_puts_everything_back(self, data):
        x, y = data
        keras.utils.set_random_seed(5)
        model = compiled(sequential())
        fit(model, x=x, y=y, epochs=1)
        before = state_of(model)
        fit(model, LRFinder(num_steps=12), RateSpy(), x=x, y=y, epochs=12)
        assert_same_arrays(state_of(model), before)
        assert model.stop_training is False

    def test_without_restoring_the_model_stays_trained(self, data):
        x, y = data
        model = plain_model()
        before = state_of(model)
        fit(model, LRFinder(start_lr=0.01, end_lr=0.1, num_steps=12, restore=False), x=x, y=y, epochs=12)
        assert not np.array_equal(model.get_weights()[0], before[0])

    def test_one_point_for_each_execution_of_several_steps(self):
        finder = LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=12)
        fit(one_weight(steps_per_execution=5), finder, epochs=100)
        assert len(finder.result) == 2
        assert finder.result.steps_spent == 10
        np.testing.assert_allclose(finder.result.lrs, [1e-4, 1e-2])

    @pytest.mark.parametrize(("several", "points", "steps"), [(50, 4, 20), (3, 6, 15)])
    def test_an_execution_ends_with_its_epoch(self, several, points, steps):
        """Five batches an epoch: executions of 5, or of 3 and 2."""
        finder, model = LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=20), one_weight(steps_per_execution=several)
        fit(model, finder, epochs=100)
        assert len(finder.result) == points
        assert finder.result.steps_spent == steps

    def test_a_second_run_starts_afresh(self):
        finder, model = LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=7), one_weight()
        fit(model, finder)
        first = finder.result
        fit(model, finder)
        assert finder.result == first
        assert finder.result is not first

    def test_it_can_be_pickled_and_its_rates_changed(self):
        finder = pickle.loads(pickle.dumps(LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=7)))
        finder.start_lr = 1e-3
        fit(one_weight(), finder)
        np.testing.assert_allclose(finder.result.lrs, np.geomspace(1e-3, 1e-2, 7))

    def test_there_is_no_result_before_a_run(self):
        with pytest.raises(RuntimeError, match=r"model\.fit"):
            _ = LRFinder().result

    def test_an_unbuilt_model_is_refused_untouched(self, data):
        x, y = data

        class Late(keras.Model):
            def __init__(self):
                super().__init__()
                self.top = keras.layers.Dense(3, activation="softmax")

            def call(self, inputs):
                return self.top(inputs)

        # On JAX Keras builds a model before callbacks run: then there is nothing to refuse, and all is put back.
        model = compiled(Late())
        with nullcontext() if ON_JAX else pytest.raises(ValueError, match=r"must be built(.|\n)*autolr\.range_test"):
            fit(model, LRFinder(num_steps=5), x=x, y=y, epochs=1)
        assert model.optimizer.iterations == 0

    def test_a_model_compiled_with_a_schedule_is_refused(self):
        model = one_weight(keras.optimizers.schedules.CosineDecay(0.1, 100))
        with pytest.raises(ValueError, match=r"compiled with a number.*Received: learning_rate=.*CosineDecay"):
            fit(model, LRFinder())

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("start_lr", 0.0),
            ("start_lr", -1.0),
            ("start_lr", None),
            ("start_lr", np.nan),
            ("end_lr", 1e-7),
            ("end_lr", np.inf),
            ("num_steps", 1),
            ("num_steps", 0),
            ("num_steps", 50.5),
            ("num_steps", "100"),
        ],
    )
    def test_bad_arguments_are_refused_at_once(self, argument, value):
        with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: .*{argument}="):
            LRFinder(**{argument: value})

    def test_a_training_too_short_for_it_is_warned_of(self):
        finder = LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=12)
        with pytest.warns(
            AutoLRWarning, match=r"^Training ended after 5 of the 12 points .*Pass more `epochs`"
        ) as told:
            one_weight().fit(X[:5], X[:5], batch_size=1, epochs=1, callbacks=[finder], verbose=0)
        assert len(finder.result) == 5
        # Not a line of Keras's.
        assert {each.filename for each in told if each.category is AutoLRWarning} == {__file__}

    @pytest.mark.parametrize("other", [SetsTheRate(), SGDRScheduler(1e-3, 1e-2)])
    def test_a_rate_that_another_callback_sets_is_refused(self, other):
        model = one_weight()
        before = model.get_weights()
        with pytest.raises(RuntimeError, match=r"^Something else sets the learning rate, too"):
            fit(model, LRFinder(), other)
        assert_same_arrays(model.get_weights(), before)
        fit(model, other, LRFinder(start_lr=1e-4, end_lr=1e-2, num_steps=12))  # in front of it, it has no effect


class TestSGDRScheduler:
    def test_every_step_trains_at_the_schedules_rate(self):
        schedule, spy, weights = SGDRScheduler(**SCHEDULE, restore_weights=False), RateSpy(), BatchEndWeights()
        fit(one_weight(), schedule, spy, weights)
        rates = expected(range(30))
        assert schedule.history == {"step": list(range(30)), "lr": rates.tolist()}
        assert spy.fits[0] == rates.astype("float32").tolist()
        trained_with = -np.diff([0.0, *(float(w[0][0, 0]) for w in weights.weights)])
        np.testing.assert_allclose(trained_with, rates, atol=1e-5)

    def test_the_first_step_of_a_restart_trains_at_the_peak(self):
        spy = RateSpy()
        fit(one_weight(), SGDRScheduler(**{**SCHEDULE, "lr_decay": 1.0}), spy)
        assert [step for step, rate in enumerate(spy.fits[0]) if rate == np.float32(0.4)] == [0, 5, 15]

    def test_a_partial_last_batch_is_a_step(self):
        spy = RateSpy()
        fit(one_weight(), SGDRScheduler(**SCHEDULE), spy, batch_size=6, epochs=3)  # 6, 6, 6 and 2
        assert spy.fits[0] == expected(range(12), steps_per_epoch=4).astype("float32").tolist()

    def test_training_resumed_goes_on_where_the_schedule_is(self):
        whole, tail = RateSpy(), RateSpy()
        fit(one_weight(), SGDRScheduler(**SCHEDULE), whole)
        resumed = SGDRScheduler(**SCHEDULE)
        fit(one_weight(), resumed, tail, initial_epoch=2)
        assert tail.fits[0] == whole.fits[0][10:]
        assert resumed.history["step"] == list(range(10, 30))

    def test_one_instance_serves_two_fits_and_its_arguments_stay(self):
        schedule, spy = SGDRScheduler(**SCHEDULE), RateSpy()
        names = ["schedule", "steps_per_epoch", "restore_weights", "tail_average"]
        arguments = {name: getattr(schedule, name) for name in names}
        model = one_weight()
        fit(model, schedule, spy)
        first = schedule.history
        fit(model, schedule, spy)
        fit(model, schedule, spy, batch_size=10, epochs=3)
        assert spy.fits[0] == spy.fits[1]
        assert schedule.history is not first
        assert spy.fits[2] == expected(range(6), steps_per_epoch=2).astype("float32").tolist()
        assert {name: getattr(schedule, name) for name in names} == arguments
        assert {name: getattr(schedule.schedule, name) for name in SCHEDULE} == SCHEDULE

    def test_it_keeps_the_weights_of_the_latest_cycles_end(self):
        schedule, weights = SGDRScheduler(**SCHEDULE, restore_weights=False), BatchEndWeights()
        model = one_weight()
        fit(model, schedule, weights, epochs=2)
        assert_same_arrays(schedule.cycle_end_weights, weights.weights[4])  # cycles end with epochs 1, 3 and 6
        fit(model, schedule, weights, epochs=5)
        assert_same_arrays(schedule.cycle_end_weights, weights.weights[14])
        fit(model, schedule, weights, epochs=6)
        assert_same_arrays(schedule.cycle_end_weights, weights.weights[29])

    def test_there_are_none_before_a_cycle_has_ended(self):
        schedule, model = SGDRScheduler(**{**SCHEDULE, "cycle_length": 3}), one_weight()
        fit(model, schedule, epochs=2)
        assert schedule.cycle_end_weights is None
        assert model.get_weights()[0] < 0  # and what was trained is kept

    def test_a_last_cycle_cut_short_and_worse_is_undone(self):
        # The weight falls in every step, and with it the loss of training; validated, less is worse.
        schedule, weights, model = SGDRScheduler(**SCHEDULE), BatchEndWeights(), one_weight()
        model.compile(model.optimizer, lambda y, prediction: (1 - 2 * y) * prediction)
        fit(model, schedule, weights, epochs=5, validation_data=(X, Y + 1))
        assert_same_arrays(model.get_weights(), weights.weights[14])
        assert not np.array_equal(weights.weights[14][0], weights.weights[24][0])

    def test_a_last_cycle_cut_short_but_better_is_kept(self):
        schedule, weights, model = SGDRScheduler(**SCHEDULE), BatchEndWeights(), one_weight()
        fit(model, schedule, weights, epochs=5, validation_data=(X, Y))
        assert_same_arrays(model.get_weights(), weights.weights[24])

    @pytest.mark.parametrize(("asked", "epochs"), [(False, 5), (True, 6)])
    def test_nothing_is_undone_unless_asked_or_when_training_ends_with_a_cycle(self, asked, epochs):
        schedule, weights, model = SGDRScheduler(**SCHEDULE, restore_weights=asked), BatchEndWeights(), one_weight()
        model.compile(model.optimizer, lambda y, prediction: (1 - 2 * y) * prediction)
        fit(model, schedule, weights, epochs=epochs, validation_data=(X, Y + 1))
        assert_same_arrays(model.get_weights(), weights.weights[5 * epochs - 1])

    def test_cycles_fitted_to_the_budget_end_at_min_lr_with_the_last_step(self):
        schedule, spy, weights = SGDRScheduler(**SCHEDULE, fit_budget=True), RateSpy(), BatchEndWeights()
        model = one_weight()
        fit(model, schedule, spy, weights, epochs=5)  # cycles of 1 and 2 epochs, stretched to 2 and 3
        edges = fitted_edges(25, cycle_length=1, mult_factor=1.5, steps_per_epoch=5)
        assert edges.tolist() == [0, 10, 25]
        assert spy.fits[0] == expected(range(25), total_steps=25).astype("float32").tolist()
        assert spy.fits[0][10] == np.float32(0.4 * 0.9)
        assert spy.fits[0][-1] == pytest.approx(0.01, abs=0.005)
        assert_same_arrays(schedule.cycle_end_weights, weights.weights[24])
        assert_same_arrays(model.get_weights(), weights.weights[24])

    def test_the_rate_is_in_the_history(self):
        history = fit(one_weight(), SGDRScheduler(**SCHEDULE), epochs=4).history
        np.testing.assert_array_equal(history["learning_rate"], expected([4, 9, 14, 19]))

    def test_several_steps_an_execution_share_the_first_ones_rate(self):
        schedule, spy = SGDRScheduler(**SCHEDULE), RateSpy()
        fit(one_weight(steps_per_execution=2), schedule, spy, epochs=3)
        begins = [epoch * 5 + step for epoch in range(3) for step in (0, 2, 4)]
        assert schedule.history["step"] == begins
        assert spy.fits[0] == expected(begins).astype("float32").tolist()

    def test_data_of_unknown_size_move_by_epochs_first_and_by_steps_then(self):
        import tensorflow as tf

        def batches():
            for _ in range(5):
                yield X[:4], Y[:4]

        specification = (tf.TensorSpec((4, 1)), tf.TensorSpec((4, 1)))
        unknown = tf.data.Dataset.from_generator(batches, output_signature=specification)
        assert int(unknown.cardinality()) < 0
        schedule, spy, weights = SGDRScheduler(**SCHEDULE), RateSpy(), BatchEndWeights()
        fit(one_weight(), schedule, spy, weights, x=unknown, y=None, batch_size=None)
        assert spy.fits[0][:5] == [np.float32(0.4)] * 5
        assert spy.fits[0][5:] == expected(range(5, 30)).astype("float32").tolist()
        assert_same_arrays(schedule.cycle_end_weights, weights.weights[29])

    def test_data_of_unknown_size_with_its_steps_told_are_as_good_as_known(self):
        import tensorflow as tf

        repeated = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).filter(lambda x, y: True)
        schedule, spy = SGDRScheduler(**SCHEDULE, steps_per_epoch=5), RateSpy()
        fit(one_weight(), schedule, spy, x=repeated, y=None, batch_size=None)
        assert spy.fits[0] == expected(range(30)).astype("float32").tolist()

    def test_a_pydataset_counts_as_arrays_do(self):
        spy = RateSpy()
        fit(one_weight(), SGDRScheduler(**SCHEDULE), spy, x=InBatches(), y=None, batch_size=None)
        assert spy.fits[0] == expected(range(30)).astype("float32").tolist()

    def test_endless_data_count_by_steps_per_epoch(self):
        import tensorflow as tf

        endless, spy = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat(), RateSpy()
        fit(one_weight(), SGDRScheduler(**SCHEDULE), spy, x=endless, y=None, batch_size=None, steps_per_epoch=3)
        assert spy.fits[0] == expected(range(18), steps_per_epoch=3).astype("float32").tolist()

    def test_the_end_of_a_cycle_is_judged_by_the_same_loss_as_the_end_of_training(self):
        # With `validation_freq=2` the cycle's end (epoch 3) has no `val_loss`; a training loss must not be compared
        # with the `val_loss` of the last epoch.
        schedule, weights, model = SGDRScheduler(**SCHEDULE), BatchEndWeights(), one_weight()
        # Validation always gets better, but is a thousand larger.
        model.compile(model.optimizer, lambda y, prediction: prediction + 1000 * y)
        fit(model, schedule, weights, epochs=4, validation_data=(X, Y + 1), validation_freq=2)
        assert_same_arrays(model.get_weights(), weights.weights[19])

    def test_a_model_compiled_with_a_schedule_is_refused(self):
        with pytest.raises(ValueError, match=r"compiled with a number.*Received: learning_rate="):
            fit(one_weight(keras.optimizers.schedules.CosineDecay(0.1, 100)), SGDRScheduler(**SCHEDULE))

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("min_lr", -1),
            ("max_lr", 0),
            ("cycle_length", 0),
            ("mult_factor", 0.5),
            ("lr_decay", 2),
            ("steps_per_epoch", 0),
            ("momentum", 0.9),
            ("momentum", (0.9,)),
            ("momentum", ("low", "high")),
            ("tail_average", None),
            ("tail_average", "0.1"),
            ("num_snapshots", None),
            ("num_snapshots", math.inf),
        ],
    )
    def test_bad_arguments_are_refused_at_once(self, argument, value):
        with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: "):
            SGDRScheduler(**{**SCHEDULE, argument: value})

    def test_it_comes_from_the_hyperparameters_of_a_trial(self):
        import keras_tuner as kt

        hp = kt.HyperParameters()
        hp.values = {"units": 3, "autolr/min_lr": 0.01, "autolr/max_lr": 0.4, "cycle_length": 1, "mult_factor": 1.5}
        schedule = SGDRScheduler.from_hyperparameters(hp, lr_decay=0.9)
        assert {name: getattr(schedule.schedule, name) for name in SCHEDULE} == SCHEDULE
        assert schedule.schedule.fit_budget
        assert not SGDRScheduler.from_hyperparameters(hp, fit_budget=False).schedule.fit_budget
        assert schedule.schedule.warmup == 0.1
        assert SGDRScheduler.from_hyperparameters(hp, fit_budget=False).schedule.warmup == 0
        assert SGDRScheduler.from_hyperparameters(hp, shape="one_cycle").schedule.warmup == 0
        assert SGDRScheduler.from_hyperparameters(hp, warmup=0).schedule.warmup == 0
        assert SGDRScheduler.from_hyperparameters(hp, max_lr=0.3).schedule.max_lr == 0.3

    @pytest.mark.parametrize("wrong", [{"autolr/min_lr": 0.1}, [], None])
    def test_what_are_no_hyperparameters_are_refused(self, wrong):
        with pytest.raises(
            ValueError, match=r"^Argument `hp` must be the `HyperParameters` of .*Received: hp=.*Take one"
        ):
            SGDRScheduler.from_hyperparameters(wrong)

    def test_hyperparameters_without_bounds_are_refused(self):
        import keras_tuner as kt

        hp = kt.HyperParameters()
        hp.values = {"units": 3}
        with pytest.raises(ValueError, match=r"^Argument `hp` must hold the bounds.*Received: hp.values=.*units"):
            SGDRScheduler.from_hyperparameters(hp)
        assert SGDRScheduler.from_hyperparameters(hp, min_lr=0.1, max_lr=1.0).schedule.max_lr == 1.0


class TestCycleEarlyStopping:
    def test_it_judges_the_ends_of_cycles_only(self):
        # Cycles end with epochs 1, 3 and 6; the loss validated gets worse in every epoch.
        schedule, weights, model = SGDRScheduler(**SCHEDULE), BatchEndWeights(), one_weight()
        model.compile(model.optimizer, lambda y, prediction: (1 - 2 * y) * prediction)
        stop = CycleEarlyStopping(schedule, patience=2)
        history = fit(model, schedule, stop, weights, epochs=20, validation_data=(X, Y + 1))
        assert len(history.history["loss"]) == 6
        assert_same_arrays(model.get_weights(), weights.weights[4])

    def test_it_needs_a_scheduler(self):
        with pytest.raises(ValueError, match=r"^Argument `scheduler` must .*Received: scheduler=None"):
            fit(one_weight(), CycleEarlyStopping())


def test_a_finder_that_has_ended_keeps_no_copy_of_the_model():
    def states():
        gc.collect()
        return {id(it) for it in gc.get_objects() if isinstance(it, ModelState)}

    before, model, finder = states(), one_weight(), LRFinder(num_steps=10)
    model.fit(np.ones((40, 1)), np.ones((40, 1)), batch_size=4, epochs=9, verbose=0, callbacks=[finder])
    assert len(finder.result) > 0
    assert states() <= before


def test_a_preview_shows_the_schedule_of_a_training():
    ax = SGDRScheduler(**SCHEDULE).preview(4, steps_per_epoch=5)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), expected(range(20)))
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0, 1, 3])


def test_a_sweep_of_so_many_steps_at_a_time_that_few_points_are_left_says_so():
    model = one_weight(steps_per_execution=4)
    with pytest.warns(AutoLRWarning, match=r"Of `num_steps=20` the range test makes 5 points.*once in 4 steps"):
        fit(model, LRFinder(num_steps=20), epochs=20)
