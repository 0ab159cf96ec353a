"""`SGDRScheduler` beyond the plain schedule: shapes, momentum, and every way Keras can count steps."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import RateSpy, assert_same_arrays, compiled, one_weight, rate_of, sequential

from autolr import AutoLRWarning, SGDRScheduler, range_test, sgdr_lr
from autolr.budget import describe, plan
from autolr.cycle_ends import snapshot_paths
from autolr.optimizers import has_rate
from autolr.training_log import TrainingLog
from autolr.trial_values import DEFAULTS

SCHEDULE = {"min_lr": 0.01, "max_lr": 0.4, "cycle_length": 1, "mult_factor": 1.5, "lr_decay": 0.9}
METHOD = {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9}
X, Y = np.ones((20, 1), "float32"), np.zeros((20, 1), "float32")
ON_JAX = keras.backend.backend() == "jax"


def expected(steps, **changes):
    return sgdr_lr(np.asarray(steps), **{**SCHEDULE, "steps_per_epoch": 5, **changes})


def fit(model, *callbacks, epochs=6, x=X, y=Y, batch_size=4, **arguments):
    return model.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=list(callbacks), verbose=0, **arguments)


class Mask(keras.layers.Layer):
    """Holds constants that are infinite, and says whether they are trained."""

    def build(self, shape):
        self.floor = self.add_weight(
            shape=(shape[-1],), initializer=keras.initializers.Constant(-np.inf), trainable=self.trainable
        )

    def call(self, x):
        return keras.ops.maximum(x, self.floor)


@pytest.mark.parametrize(("trained", "kept"), [(False, 2), (True, 0)])
def test_ends_of_cycles_are_kept_with_infinite_constants_but_not_with_such_weights(tmp_path, trained, kept):
    model = keras.Sequential([keras.Input((1,)), Mask(trainable=trained), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    schedule = SGDRScheduler(0.01, 0.1, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
    fit(model, schedule, epochs=2)
    assert len(snapshot_paths(tmp_path)) == kept
    assert (schedule.cycle_end_weights is not None) == (kept > 0)


class BatchEndWeights(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.weights = [0.0]

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(float(self.model.get_weights()[0][0, 0]))


@pytest.mark.parametrize("shape", ["triangular", "triangular2", "one_cycle"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_each_shape_is_trained_with(shape, warmup):
    spy, schedule = RateSpy(), SGDRScheduler(**SCHEDULE, shape=shape, warmup=warmup)
    fit(one_weight(), schedule, spy)
    rates = expected(range(30), shape=shape, warmup=warmup)
    np.testing.assert_array_equal(schedule.history["lr"], rates)
    assert spy.fits[0] == rates.astype("float32").tolist()


def test_a_warm_up_longer_than_the_training_is_refused_before_it():
    with pytest.raises(ValueError, match=r"^Argument `warmup` must be shorter"):
        fit(one_weight(), SGDRScheduler(**SCHEDULE, fit_budget=True, warmup=6))


def test_more_steps_than_a_block():
    schedule = SGDRScheduler(**SCHEDULE)
    model = one_weight(steps_per_execution=50)
    fit(model, schedule, x=np.ones((3000, 1), "float32"), y=np.ones((3000, 1), "float32"), batch_size=1, epochs=2)
    steps = np.arange(0, 6000, 50)
    assert schedule.history["step"] == steps.tolist()
    np.testing.assert_array_equal(schedule.history["lr"], expected(steps, steps_per_epoch=3000))


@pytest.mark.parametrize("several", [2, 5])
def test_under_gradient_accumulation_a_step_is_an_update(several):
    # 10 batches an epoch, so 5 or 2 updates.
    model, schedule, spy = one_weight(), SGDRScheduler(**SCHEDULE), RateSpy()
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=several), lambda y, prediction: prediction)
    fit(model, schedule, spy, batch_size=2)
    updates = 60 // several
    rates = expected(range(updates), steps_per_epoch=10 // several)
    assert schedule.history == {"step": list(range(updates)), "lr": rates.tolist()}
    assert spy.fits[0] == np.repeat(rates.astype("float32"), several).tolist()
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == updates
    np.testing.assert_allclose(model.get_weights()[0][0, 0], -rates.sum(), rtol=1e-4)


def test_an_update_that_straddles_a_restart_belongs_to_the_cycle_it_begins_in():
    model, schedule = one_weight(), SGDRScheduler(**{**SCHEDULE, "mult_factor": 1, "lr_decay": 1.0})
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2), lambda y, prediction: prediction)
    fit(model, schedule, epochs=4)  # 5 batches an epoch: restarts at batches 5, 10 and 15
    at_peak = [step for step, rate in zip(*schedule.history.values(), strict=True) if rate == 0.4]
    assert at_peak == [0, 3, 5, 8]


def test_the_callback_and_the_schedule_train_alike():
    from autolr import SGDRSchedule

    by_callback, in_graph = one_weight(), one_weight(SGDRSchedule(**SCHEDULE, steps_per_epoch=4))
    fit(by_callback, SGDRScheduler(**SCHEDULE), batch_size=6)
    fit(in_graph, batch_size=6)  # 6, 6, 6 and 2: a partial batch is a step
    np.testing.assert_allclose(by_callback.get_weights()[0], in_graph.get_weights()[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("epochs", "options", "warned"),
    [
        (2, {"cycle_length": 3}, True),
        (3, {"cycle_length": 3}, False),
        (4, {"cycle_length": 3}, False),  # within the second: its first end is kept
        (2, {"cycle_length": 3, "fit_budget": True}, False),
        (2, {"cycle_length": 2, "warmup": 1}, True),  # whole epochs of warm-up go before
        (3, {"cycle_length": 2, "warmup": 1}, False),
    ],
)
def test_a_training_that_ends_within_the_first_cycle_is_warned_of(epochs, options, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(one_weight(), SGDRScheduler(0.01, 0.4, **options), epochs=epochs)
    told = [str(it.message) for it in caught if "within the first cycle" in str(it.message)]
    assert len(told) == warned
    assert all("after 2 of 3 epochs" in text and "`fit_budget=True`" in text for text in told)


@pytest.mark.skipif(ON_JAX, reason="makes its data with TensorFlow")
def test_data_of_unknown_size_resumed():
    import tensorflow as tf

    specification = (tf.TensorSpec((4, 1)), tf.TensorSpec((4, 1)))
    unknown = tf.data.Dataset.from_generator(lambda: ((X[:4], Y[:4]) for _ in range(5)), output_signature=specification)
    schedule, spy = SGDRScheduler(**SCHEDULE), RateSpy()
    fit(one_weight(), schedule, spy, x=unknown, y=None, batch_size=None, initial_epoch=2)
    # It stands still within the epoch in which steps are counted: the middle of the second cycle, epochs 1 and 2.
    still = expected(2, steps_per_epoch=1)
    np.testing.assert_array_equal(schedule.history["lr"], [*[still] * 5, *expected(range(15, 30))])
    assert schedule.history["step"] == list(range(10, 30))
    assert spy.fits[0] == np.asarray(schedule.history["lr"], "float32").tolist()


@pytest.mark.skipif(ON_JAX, reason="makes its data with TensorFlow")
def test_each_step_is_in_the_history_once_where_a_size_and_updates_of_several_batches_are_new():
    import tensorflow as tf

    specification = (tf.TensorSpec((4, 1)), tf.TensorSpec((4, 1)))
    unknown = tf.data.Dataset.from_generator(lambda: ((X[:4], Y[:4]) for _ in range(6)), output_signature=specification)
    model, schedule = one_weight(), SGDRScheduler(**SCHEDULE)
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2), lambda y, prediction: prediction)
    fit(model, schedule, x=unknown, y=None, batch_size=None, epochs=3)
    assert schedule.history["step"] == list(range(9))
    still = expected(0, steps_per_epoch=1)
    np.testing.assert_array_equal(schedule.history["lr"], [*[still] * 3, *expected(range(3, 9), steps_per_epoch=3)])


class TestMomentum:
    pytestmark = pytest.mark.skipif(ON_JAX, reason="not supported: docs/compatibility.md")

    def test_it_moves_against_the_rate_and_is_trained_with(self):
        model, weights, momenta = one_weight(), BatchEndWeights(), []
        model.compile(keras.optimizers.SGD(0.5, momentum=0.3), lambda y, prediction: prediction)
        schedule = SGDRScheduler(0.01, 0.4, cycle_length=4, shape="one_cycle", momentum=(0.5, 0.9))
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: momenta.append(
                float(keras.ops.convert_to_numpy(model.optimizer.momentum))
            )
        )
        fit(model, schedule, weights, note, epochs=4)
        np.testing.assert_allclose([momenta[0], momenta[9], momenta[18]], [0.9, 0.5, 0.9], atol=1e-6)
        velocity, weight, by_hand = 0.0, 0.0, [0.0]
        for momentum, rate in zip(momenta, schedule.history["lr"], strict=True):
            velocity = momentum * velocity - rate
            by_hand.append(weight := weight + velocity)
        np.testing.assert_allclose(weights.weights, by_hand, rtol=1e-4)

    @pytest.mark.parametrize(("optimizer", "name"), [("adam", "beta_1"), ("nadam", "beta_1"), ("rmsprop", "momentum")])
    def test_the_optimizers_own_is_back_afterwards_and_in_what_is_saved_meanwhile(self, optimizer, name, tmp_path):
        model = one_weight()
        optimizer = keras.optimizers.get({"class_name": optimizer, "config": {name: 0.7}})
        model.compile(optimizer, "mse")
        file = tmp_path / "model.keras"
        save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.save(file))
        before = len(optimizer.variables)
        fit(model, SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle"), save, epochs=2)
        assert getattr(optimizer, name) == 0.7
        loaded = keras.models.load_model(file)
        assert getattr(loaded.optimizer, name) == 0.7
        assert_same_arrays(
            [keras.ops.convert_to_numpy(v) for v in loaded.optimizer.variables],
            [keras.ops.convert_to_numpy(v) for v in optimizer.variables],
        )
        assert len(optimizer.variables) > before  # built meanwhile
        fit(model, epochs=1)

    def test_an_optimizer_with_both_kinds_has_both_back(self):
        class Both(keras.optimizers.SGD):
            beta_1 = 0.8

            def get_config(self):
                return {**super().get_config(), "beta_1": self.beta_1}

        model = one_weight()
        model.compile(Both(0.1, momentum=0.7), "mse")
        seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: configs.append(model.optimizer.get_config()))
        configs = []
        fit(model, SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle"), seen, epochs=2)
        assert {(config["momentum"], config["beta_1"]) for config in configs} == {(0.7, 0.8)}

    @pytest.mark.parametrize("within", ["a range test", pytest.param("a new trace", marks=pytest.mark.slow)])
    def test_it_goes_on_after_a_training_within_the_training(self, within):
        model, seen = one_weight(), []
        model.compile(keras.optimizers.SGD(0.5, momentum=0.3), "mse")

        class Within(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1 and within == "a range test":
                    range_test(self.model, X, Y, num_steps=3, burst_steps=0, batch_size=len(X))
                elif epoch == 1:
                    self.model.make_train_function(force=True)

            def on_train_batch_end(self, batch, logs=None):
                seen.append(float(keras.ops.convert_to_numpy(self.model.optimizer.momentum)))

        schedule = SGDRScheduler(0.01, 0.4, cycle_length=4, shape="one_cycle", momentum=(0.5, 0.9))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutoLRWarning)  # of the range test
            fit(model, schedule, Within(), epochs=4)
        height = (np.array(schedule.history["lr"]) - 0.01) / 0.39
        np.testing.assert_allclose(seen, 0.9 - 0.4 * height, atol=0.02)
        assert model.optimizer.momentum == 0.3

    @pytest.mark.slow
    def test_where_a_callback_trains_at_every_step_it_is_given_up_and_said_so(self):
        model = one_weight()
        model.compile(keras.optimizers.SGD(0.5, momentum=0.3), "mse")
        trains = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: model.train_on_batch(X, Y))
        schedule = SGDRScheduler(0.01, 0.4, cycle_length=4, shape="one_cycle")
        with pytest.warns(AutoLRWarning, match="the rate moves alone"):
            fit(model, schedule, trains, epochs=4)
        assert model.optimizer.momentum == 0.3

    def test_a_number_of_numpys_is_moved_too(self):
        model, seen = one_weight(), []
        model.compile(keras.optimizers.Adam(beta_1=np.float32(0.7)), "mse")
        spy = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(
                float(keras.ops.convert_to_numpy(model.optimizer.beta_1))
            )
        )
        fit(model, SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle", momentum=(0.5, 0.9)), spy, epochs=2)
        assert max(seen) - min(seen) > 0.3
        assert model.optimizer.beta_1 == np.float32(0.7)

    def test_without_momentum_there_is_none_to_move(self):
        model, schedule = one_weight(), SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle")
        seen = []
        spy = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(model.optimizer.momentum)
        )
        fit(model, schedule, spy, epochs=2)
        assert set(seen) == {0.0}
        assert type(seen[0]) is float

    def test_an_interrupted_training_is_cleaned_up_by_the_next(self):
        model = one_weight()
        model.compile(keras.optimizers.SGD(0.5, momentum=0.3), lambda y, prediction: prediction)
        schedule = SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle")

        def interrupt(epoch, logs):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(model, schedule, keras.callbacks.LambdaCallback(on_epoch_end=interrupt))
        before = len(model.optimizer.variables)
        another = SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle")
        with pytest.raises(KeyboardInterrupt):
            fit(model, another, keras.callbacks.LambdaCallback(on_epoch_end=interrupt))
        assert len(model.optimizer.variables) == before
        fit(model, SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle"), epochs=2)
        assert model.optimizer.momentum == 0.3

    @pytest.mark.parametrize("whole", [True, False])
    def test_the_next_training_has_the_optimizers_own_without_a_scheduler_too(self, whole):
        model = one_weight()
        model.compile(keras.optimizers.SGD(0.5, momentum=0.3), lambda y, prediction: prediction)

        def interrupt(batch, logs):
            raise KeyboardInterrupt

        schedule = SGDRScheduler(0.01, 0.4, cycle_length=2, shape="one_cycle")
        with pytest.raises(KeyboardInterrupt):
            fit(model, schedule, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
        rate, velocity = rate_of(model), float(np.array(model.optimizer.variables[-1]).item())
        before = model.get_weights()[0].item()
        if whole:
            model.fit(X, Y, batch_size=len(X), verbose=0)
        else:
            model.train_on_batch(X, Y)
        assert model.optimizer.momentum == 0.3
        assert model.get_weights()[0].item() == pytest.approx(before + 0.3 * velocity - rate, rel=1e-5)
        model.fit(X, Y, epochs=2, callbacks=[schedule], verbose=0)  # nothing stands in the way of another
        assert model.optimizer.momentum == 0.3

    @pytest.mark.parametrize("wrong", [(0.9, 0.8), (-0.1, 0.5), (0.5, 1.0)])
    def test_bad_ones_are_refused(self, wrong):
        with pytest.raises(ValueError, match=r"^Argument `momentum` must .*Received: momentum="):
            SGDRScheduler(**SCHEDULE, momentum=wrong)


def test_an_optimizers_own_average_is_not_undone(data):
    x, y = data
    worse = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_loss=epoch))
    ends = []
    for restore in (True, False):  # the second cycle is cut off, and worse than the first one's end
        keras.utils.set_random_seed(0)
        model = compiled(sequential(), keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
        schedule = SGDRScheduler(0.01, 0.1, cycle_length=1, mult_factor=3, restore_weights=restore)
        model.fit(x, y, epochs=3, batch_size=12, callbacks=[worse, schedule], verbose=0)
        ends.append(model.get_weights())
    assert_same_arrays(*ends)


@pytest.mark.parametrize("schedule_first", [True, False])
def test_weights_that_early_stopping_has_restored_are_not_undone(data, schedule_first):
    """The best epoch lies inside the second cycle, and training goes on for two worse ones."""
    x, y = data
    losses, seen = [5.0, 4.0, 1.0, 6.0, 7.0], []
    model = compiled(sequential(), keras.optimizers.SGD(0.1))

    def as_told(epoch, logs):
        logs["val_loss"] = losses[epoch]
        seen.append(model.get_weights())

    schedule = SGDRScheduler(0.01, 0.1, cycle_length=2, mult_factor=4)
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    own = [schedule, stop] if schedule_first else [stop, schedule]
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=as_told), *own]
    model.fit(x, y, epochs=10, batch_size=12, callbacks=callbacks, verbose=0)
    assert len(seen) == 5
    assert_same_arrays(model.get_weights(), seen[2])


def test_a_snapshot_that_cannot_be_written_costs_no_training(tmp_path):
    in_the_way = tmp_path / "cycles"
    in_the_way.write_text("a file, not a folder")
    schedule = SGDRScheduler(**SCHEDULE, snapshot_folder=in_the_way)
    with pytest.warns(AutoLRWarning, match=r"cycle 1 could not be kept .*Training goes on"):
        fit(one_weight(), schedule)
    assert schedule.history["step"]


def test_the_rate_stays_after_training_as_it_was():
    model = one_weight()
    schedule = SGDRScheduler(**SCHEDULE)
    fit(model, schedule)
    assert rate_of(model) == np.float32(schedule.history["lr"][-1])


@pytest.mark.parametrize("known", [True, False])
def test_an_epoch_that_is_no_multiple_of_an_execution_ends_with_its_last_batch(known):
    """16 batches, of which Keras announces 18 in executions of three."""

    def batches():
        for _ in range(16):
            yield X[:4], Y[:4]

    tensorflow = pytest.importorskip("tensorflow")
    signature = (tensorflow.TensorSpec((4, 1)), tensorflow.TensorSpec((4, 1)))
    data = tensorflow.data.Dataset.from_generator(batches, output_signature=signature)
    if known:
        data = data.apply(tensorflow.data.experimental.assert_cardinality(16))
    kept = []
    schedule = SGDRScheduler(**SCHEDULE)
    log = TrainingLog(plan(METHOD, {"epochs": 3}, 16), kept.append)
    model = one_weight(steps_per_execution=3)
    model.fit(data, epochs=3, callbacks=[schedule, log], verbose=0)
    assert [epoch["step"] for epoch in kept[-1]["epochs"]] == [16, 32, 48]
    assert kept[-1]["steps"] == 48 == int(model.optimizer.iterations)
    assert kept[-1]["rates"]["step"] == [16 * epoch + done for epoch in range(3) for done in (3, 6, 9, 12, 15, 16)]
    assert kept[-1]["losses"]["step"][-1] <= 48
    assert schedule.history["step"] == [16 * epoch + step for epoch in range(3) for step in range(0, 16, 3)]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        lambda: keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9),
        pytest.param(lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.123), marks=pytest.mark.slow),
    ],
)
def test_another_callback_that_sets_the_rate_is_warned_of_once(other, first, recwarn):
    schedule = SGDRScheduler(**SCHEDULE)
    both = [other(), schedule] if first else [schedule, other()]
    for _ in range(2):
        fit(one_weight(), *both)
    assert sum("Something else sets the learning rate" in str(warning.message) for warning in recwarn) == 1
    assert schedule.history["lr"] == expected(range(30)).tolist()  # and it has no effect


class SetsEachStep(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.123

    def on_train_batch_end(self, batch, logs=None):  # needs results at once
        pass


@pytest.mark.parametrize(
    ("first", "said"), [(True, "has no effect, unless"), (False, "behind `SGDRScheduler` decides")]
)
def test_a_callback_that_sets_the_rate_within_the_step_is_told_apart(first, said, recwarn):
    schedule, spy = SGDRScheduler(**SCHEDULE), RateSpy()
    fit(one_weight(), *([SetsEachStep(), schedule] if first else [schedule, SetsEachStep()]), spy)
    told = [str(warning.message) for warning in recwarn if "Something else" in str(warning.message)]
    assert len(told) == 1
    assert said in told[0]
    trained = schedule.history["lr"] if first else [0.123] * 30
    np.testing.assert_allclose(spy.fits[0], trained, rtol=1e-6)


def test_nobody_is_suspected_where_the_schedule_is_alone(recwarn):
    for model, options in (
        (one_weight(), {}),
        (one_weight(steps_per_execution=3), {}),
        (compiled(sequential(), keras.optimizers.Adam(gradient_accumulation_steps=2)), {}),
    ):
        x, y = (X, Y) if model.input_shape[-1] == 1 else (np.ones((20, 6), "float32"), np.zeros(20))
        fit(model, SGDRScheduler(**SCHEDULE), x=x, y=y, **options)
    assert not [warning for warning in recwarn if "Something else" in str(warning.message)]


def test_steps_per_epoch_may_be_any_number_that_is_whole():
    for told in (4.0, np.uint8(4)):
        schedule = SGDRScheduler(**{**SCHEDULE, "cycle_length": 1}, steps_per_epoch=told)
        one_weight().fit(np.ones((16, 1)), np.ones((16, 1)), batch_size=4, epochs=2, verbose=0, callbacks=[schedule])
        assert schedule.history["step"] == list(range(8))
        assert schedule.history["lr"][4] == pytest.approx(schedule.schedule.peak(1))


@pytest.mark.filterwarnings("ignore:.*input ran out of data")
def test_epochs_much_shorter_than_announced_are_told_of():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((np.ones((12, 1)), np.ones((12, 1)))).batch(4)
    with pytest.warns(
        AutoLRWarning, match=r"An epoch had 3 batches, not the 10 that its .*announced.*come down"
    ) as caught:
        one_weight().fit(data, steps_per_epoch=10, epochs=3, verbose=0, callbacks=[SGDRScheduler(**SCHEDULE)])
    assert len([it for it in caught if issubclass(it.category, AutoLRWarning)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoLRWarning)
        one_weight().fit(data, epochs=3, verbose=0, callbacks=[SGDRScheduler(**SCHEDULE)])


def test_steps_per_epoch_that_keras_counts_otherwise_are_refused():
    schedule = SGDRScheduler(**SCHEDULE, steps_per_epoch=5)
    message = r"`steps_per_epoch` must be the optimizer steps of an epoch, 4 here. Received: steps_per_epoch=5. Leave"
    with pytest.raises(ValueError, match=message):
        fit(one_weight(), schedule, x=np.ones((16, 1)), y=np.ones((16, 1)), batch_size=4)


@pytest.mark.parametrize("told", [2, 3, None])
def test_under_accumulation_either_whole_number_of_updates_will_do(told):
    """Five batches in twos are two updates and a half: Keras's own count holds."""
    model = one_weight(learning_rate=0.5)
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2), "mse")
    schedule = SGDRScheduler(**SCHEDULE, steps_per_epoch=told)
    x = np.ones((20, 1), "float32")
    model.fit(x, x, batch_size=4, epochs=4, verbose=0, callbacks=[schedule])
    assert schedule.history["step"] == list(range(10))


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "3"])
def test_a_preview_needs_epochs(epochs):
    with pytest.raises(ValueError, match=r"`epochs` must be a .*Received: epochs="):
        SGDRScheduler(**SCHEDULE).preview(epochs)


def test_an_epoch_without_steps_cannot_be_previewed():
    with pytest.raises(ValueError, match=r"^Argument `steps_per_epoch` must"):
        SGDRScheduler(**SCHEDULE).preview(3, steps_per_epoch=0)


class StopAt(keras.callbacks.Callback):
    """Stops at a step, counted from 0; before that it may spoil the weights."""

    def __init__(self, step, weight=None):
        super().__init__()
        self.step, self.weight, self.seen = step, weight, 0

    def on_train_batch_end(self, batch, logs=None):
        if self.seen == self.step:
            if self.weight is not None:
                self.model.set_weights([np.full((1, 1), self.weight, "float32")])
            self.model.stop_training = True
        self.seen += 1


@pytest.mark.parametrize(("step", "ends"), [(9, [1, 2]), (8, [1]), (5, [1]), (4, [1]), (3, [])])
def test_a_cycle_cut_short_has_no_end(step, ends, tmp_path):
    """Cycles of an epoch, of five steps each; the loss is the weight, which only falls, so nothing is put back."""
    schedule = SGDRScheduler(0.01, 0.1, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
    fit(one_weight(), schedule, StopAt(step))
    assert [path.name for path in snapshot_paths(tmp_path)] == [f"cycle-{n:04d}.weights.h5" for n in ends]


@pytest.mark.parametrize("weight", [100.0, np.nan])
def test_an_end_is_put_back_if_training_breaks_off_worse(weight):
    """In the second epoch, which would have ended the second cycle."""
    model, schedule = one_weight(), SGDRScheduler(0.01, 0.1, cycle_length=1, mult_factor=1)
    fit(model, schedule, StopAt(7, weight), validation_data=(X, Y))
    assert_same_arrays(model.get_weights(), schedule.cycle_end_weights)
    assert -1 < model.get_weights()[0][0, 0] < 0


def test_the_end_of_a_training_that_has_become_nan_is_not_kept(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.set_weights([np.full((1, 1), np.nan, "float32")])

    schedule = SGDRScheduler(0.01, 0.1, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
    model = one_weight()
    fit(model, Break(), schedule, epochs=3)
    assert len(snapshot_paths(tmp_path)) == 1
    assert np.isfinite(schedule.cycle_end_weights[0]).all()
    assert_same_arrays(model.get_weights(), schedule.cycle_end_weights)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "cycle-best.weights.h5").write_text("mine")
    fit(one_weight(), SGDRScheduler(**SCHEDULE, snapshot_folder=tmp_path, num_snapshots=1), epochs=2)
    assert [path.name for path in snapshot_paths(tmp_path)] == ["cycle-0001.weights.h5"]
    assert (tmp_path / "cycle-best.weights.h5").read_text() == "mine"


@pytest.mark.parametrize("floats", ["float16", "bfloat16", "float32", "float64"])
def test_a_rate_of_few_digits_is_nobody_elses(floats):
    before = keras.config.floatx()
    keras.config.set_floatx(floats)
    try:
        model = one_weight(learning_rate=0.01)
        assert has_rate(model.optimizer, 0.01)
        assert not has_rate(model.optimizer, 0.02)
        model.optimizer.learning_rate = 1e-7  # a range test's first: in half precision hardly a number
        assert has_rate(model.optimizer, 1e-7)
        model.optimizer.learning_rate = 1e-42  # below what even single precision can hold
        assert has_rate(model.optimizer, 1e-42)
        model.optimizer.learning_rate = 0.01
        with warnings.catch_warnings():
            warnings.simplefilter("error", AutoLRWarning)
            schedule = SGDRScheduler(**SCHEDULE)
            fit(model, schedule, epochs=3)
        assert not has_rate(model.optimizer, 0.4)
        assert has_rate(model.optimizer, schedule.history["lr"][-1])
    finally:
        keras.config.set_floatx(before)


def test_one_epoch_is_told_in_the_singular():
    told = [describe(plan(DEFAULTS, {"epochs": epochs}, len(X) // 4)) for epochs in (1, 2)]
    assert told == ["schedule: 1 cycle of 1 epoch", "schedule: 1 cycle of 2 epochs"]


@pytest.mark.parametrize("warmup", [0, 0.1])
def test_a_training_of_no_epochs_is_none(warmup):
    one_weight().fit(X, Y, epochs=0, callbacks=[SGDRScheduler(0.01, 0.1, warmup=warmup, fit_budget=True)], verbose=0)


def test_a_scheduler_shows_its_schedule():
    assert repr(SGDRScheduler(0.01, 0.5, cycle_length=3)).startswith(
        "<SGDRScheduler: Schedule(min_lr=0.01, max_lr=0.5, c"
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="`tf.data`")
@pytest.mark.parametrize(("batches", "unknown"), [(8, False), (8, True), (10, True)])
def test_updates_skipped_to_scale_the_loss_are_no_missing_batches(batches, unknown):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    samples = 32 * batches
    x, y = rng.normal(size=(samples, 6)).astype("float32"), rng.normal(size=(samples, 1)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    # So large a scale that the first updates are not finite.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127)
    model.compile(optimizer, lambda y, prediction: (y - prediction) ** 2, steps_per_execution=4)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    schedule = SGDRScheduler(1e-4, 1e-2, cycle_length=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoLRWarning)
        model.fit(data.filter(lambda *_: True) if unknown else data, epochs=2, verbose=0, callbacks=[schedule])
    assert int(optimizer.iterations) < 2 * batches
    assert schedule.history["step"] == [first + n for first in (0, batches) for n in range(0, batches, 4)]


def test_an_optimizer_for_constant_rates_and_several_of_them_are_told_of(data):
    class Adversaries(keras.Sequential):
        def compile(self, *args, **options):
            super().compile(*args, **options)
            self.other = keras.optimizers.SGD(0.1)

    with pytest.warns(AutoLRWarning, match="has optimizers of its own.*sets the rate of the one it is compiled with"):
        compiled(Adversaries(sequential().layers)).fit(*data, verbose=0, callbacks=[SGDRScheduler(0.001, 0.01)])
    if hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        model = compiled(sequential(), keras.optimizers.ScheduleFreeAdamW(0.001))
        with pytest.warns(AutoLRWarning, match="ScheduleFreeAdamW is made for a constant rate.*Train at a constant"):
            model.fit(*data, verbose=0, callbacks=[SGDRScheduler(0.001, 0.01)])


def test_a_rate_set_between_two_trainings_is_nobody_elses():
    model, schedule = one_weight(), SGDRScheduler(0.01, 0.5, fit_budget=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoLRWarning)
        for rate in (0.1, 0.2):
            model.optimizer.learning_rate = rate
            model.fit(np.ones((8, 1)), np.zeros(8), batch_size=1, epochs=1, verbose=0, callbacks=[schedule])


@pytest.mark.parametrize("folder", ["gs://bucket/run", Path("s3://bucket/run")])
def test_a_remote_folder_for_snapshots_is_refused(folder):
    with pytest.raises(ValueError, match=r"`snapshot_folder` must be a folder of this machine.*(gs|s3)://?bucket/run"):
        SGDRScheduler(0.1, 0.5, snapshot_folder=folder)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none")
@pytest.mark.parametrize("scaled", [False, True])
def test_a_model_with_several_optimizers_is_told_what_serves_it(scaled):
    several = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD(0.1))
    several = keras.optimizers.LossScaleOptimizer(several) if scaled else several
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(several, "mse")
    with pytest.raises(ValueError, match=r"a single optimizer.*`autolr.range_test` and the tuners take several"):
        model.fit(np.ones((4, 1)), np.ones((4, 1)), callbacks=[SGDRScheduler(0.1, 0.5)], verbose=0)
