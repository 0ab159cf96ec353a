"""Methods of the user's own in place of Keras Tuner's or Keras's: trials that Keras Tuner trains are trained here."""

from __future__ import annotations

import warnings

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from helpers import RateSpy, compiled, plain

import autolr
from autolr import compat
from autolr.optimizers import keeps_its_optimizer, several_optimizers, with_number_as_rate
from autolr.records import TrialRecord

OPTIONS = {"max_trials": 1, "range_test_min_steps": 2}


def search(tuner, *data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuner.search(*data, epochs=2, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    return trial, [str(it.message) for it in caught if issubclass(it.category, autolr.AutoLRWarning)]


class ScoresItself(kt.RandomSearch):
    def _build_and_fit_model(self, trial, *args, **kwargs):
        model = self._try_build(trial.hyperparameters)
        self.hypermodel.fit(trial.hyperparameters, model, *args, **kwargs)
        return {"zeal": 2.0}


class AddsScores(autolr.RandomSearch):
    def _build_and_fit_model(self, trial, *args, **kwargs):
        super()._build_and_fit_model(trial, *args, **kwargs)
        return {"zeal": 2.0}


class Logs(autolr.RandomSearch):
    def on_epoch_end(self, trial, model, epoch, logs=None):
        self.latest = epoch


def test_an_on_epoch_end_that_only_logs_still_has_its_objective_checked(tmp_path, data):
    tuner = Logs(lambda hp: plain(), objective=kt.Objective("val_los", "min"), directory=tmp_path, **OPTIONS)
    with pytest.raises(kt.errors.FatalValueError, match="objective='val_los'"):
        tuner.search(*data, epochs=3, verbose=0)
    assert tuner.latest == 0


class Updates(autolr.RandomSearch):
    def on_epoch_end(self, trial, model, epoch, logs=None):
        self.oracle.update_trial(trial.trial_id, {"zeal": 1.0 + epoch}, step=epoch)


def with_fit_of_its_own():
    def fit(hp, model, *args, **kwargs):
        model.fit(*args, **kwargs)
        return {"zeal": 2.0}

    hypermodel = kt.HyperModel()
    hypermodel.build, hypermodel.fit = lambda hp: plain(), fit
    return hypermodel


@pytest.mark.filterwarnings("ignore:.*update_trial")
@pytest.mark.parametrize(
    ("tuner_class", "make"),
    [
        (autolr.with_auto_lr(ScoresItself), lambda: lambda hp: plain()),
        pytest.param(AddsScores, lambda: lambda hp: plain(), marks=pytest.mark.slow),
        pytest.param(Updates, lambda: lambda hp: plain(), marks=pytest.mark.slow),
        (autolr.RandomSearch, with_fit_of_its_own),
    ],
    ids=["in place of ours", "around ours", "epoch by epoch", "of the hypermodel alone"],
)
def test_scores_that_do_not_come_from_fit_are_taken(tmp_path, data, tuner_class, make):
    tuner = tuner_class(make(), objective=kt.Objective("zeal", "max"), directory=tmp_path, **OPTIONS)
    trial, warned = search(tuner, *data)
    assert (trial.status, trial.score) == ("COMPLETED", 2.0)
    assert "autolr/max_lr" in trial.hyperparameters.values
    assert not [text for text in warned if "without AutoLR" in text]
    assert TrialRecord.read(tuner.get_trial_dir(trial.trial_id)).training["fits"] == 1


class SavesItself(kt.RandomSearch):
    def run_trial(self, trial, *args, **kwargs):
        model = self._try_build(trial.hyperparameters)
        history = self.hypermodel.fit(trial.hyperparameters, model, *args, **kwargs)
        model.save_weights(f"{self.get_trial_dir(trial.trial_id)}/own.weights.h5")
        return history

    def load_model(self, trial):
        model = self.hypermodel.build(trial.hyperparameters)
        model.load_weights(f"{self.get_trial_dir(trial.trial_id)}/own.weights.h5")
        return model


def test_a_tuner_that_trains_saves_and_loads_by_itself_is_told_nothing_wrong(tmp_path, data):
    tuner = autolr.with_auto_lr(SavesItself)(lambda hp: plain(), objective="loss", directory=tmp_path, **OPTIONS)
    trial, warned = search(tuner, *data)
    assert "autolr/max_lr" in trial.hyperparameters.values
    assert not [text for text in warned if "without AutoLR" in text or "has kept no weights" in text]
    assert tuner.get_best_models()


def test_a_grid_that_takes_no_new_entries_is_not_said_to_grow(tmp_path, data):
    hp = kt.HyperParameters()
    hp.Choice("units", [4, 8])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The grid gets")
        autolr.GridSearch(
            lambda hp: plain(), "loss", hyperparameters=hp, tune_new_entries=False, directory=tmp_path, project_name="p"
        )


class HoldsItsData(keras.Sequential):
    def fit(self, epochs=1, callbacks=None, verbose=0):
        x, y = np.zeros((32, 6), "float32"), np.zeros(32)
        return super().fit(x, y, epochs=epochs, callbacks=callbacks, verbose=verbose)


class TakesDataAlone(keras.Sequential):
    def fit(self, x, **options):
        return super().fit(x, **options)


class WantsTargets(keras.Sequential):
    def fit(self, x, y, **options):
        return super().fit(x, y, **options)


class TakesLittle(keras.Sequential):
    def fit(self, x, y, epochs=1, callbacks=None):
        return super().fit(x, y, epochs=epochs, callbacks=callbacks, verbose=0)


def test_a_fit_without_data_trains_as_it_would(tmp_path):
    tuner = autolr.RandomSearch(
        lambda hp: compiled(HoldsItsData(plain().layers)), "loss", directory=tmp_path, **OPTIONS
    )
    trial, warned = search(tuner)
    assert trial.status == "COMPLETED"
    assert any("was given no `x`" in text for text in warned)


@pytest.mark.parametrize(
    ("cls", "batched"),
    [(TakesDataAlone, True), (WantsTargets, True), pytest.param(TakesLittle, False, marks=pytest.mark.slow)],
)
def test_a_fit_is_given_what_it_takes_alone(data, cls, batched):
    import tensorflow as tf

    given = [tf.data.Dataset.from_tensor_slices(data).batch(16)] if batched else data
    test = autolr.range_test(compiled(cls(plain().layers)), *given, num_steps=10, burst_steps=0)
    assert len(test) == 10


class BatchesItself(keras.Sequential):
    def fit(self, x, y, batch_size=None, **options):
        import tensorflow as tf

        batches = tf.data.Dataset.from_tensor_slices((x[:16], y[:16])).batch(4).filter(lambda x, y: True)
        return super().fit(batches, **options)


def test_a_fit_that_makes_other_batches_of_unknown_number_trains_to_the_end_of_its_schedule(tmp_path, data):
    hp, spy = kt.HyperParameters(), RateSpy()
    hp.Fixed("cycle_length", 100)
    options = {**OPTIONS, "range_test_steps": 10, "hyperparameters": hp, "directory": tmp_path}
    tuner = autolr.RandomSearch(lambda hp: compiled(BatchesItself(plain().layers)), "loss", **options)
    tuner.search(*data, batch_size=4, epochs=3, callbacks=[spy], verbose=0)
    (rates,) = spy.fits
    low = tuner.get_best_hyperparameters()[0].values["autolr/min_lr"]
    assert len(rates) == 12
    assert rates[-1] < 2 * low


def test_an_optimizer_that_a_step_refers_to_is_left_alone(tmp_path, data):
    def build(hp):
        optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 1.0))

        class Steps(keras.Sequential):
            def train_step(self, batch):
                import tensorflow as tf

                x, y = batch
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(x, y, self(x, training=True))
                optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
                return {"loss": loss}

        model = Steps(plain().layers)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    trial, warned = search(autolr.RandomSearch(build, "loss", directory=tmp_path, **OPTIONS), *data)
    assert trial.status == "COMPLETED"
    assert any("refers to it in a method" in text for text in warned)
    assert "autolr/max_lr" not in trial.hyperparameters.values


def test_an_optimizer_that_only_the_making_of_a_model_refers_to_is_none_of_its_own():
    choices = {"adam": keras.optimizers.Adam(), "sgd": keras.optimizers.SGD()}
    only = keras.optimizers.SGD(0.1)

    class Made(keras.Sequential):
        def __init__(self, layers):
            super().__init__(layers)
            self.compile(only, "mse")

        def train_step(self, batch):
            return super().train_step(batch) if choices else {}

    model = Made(plain().layers)
    assert not several_optimizers(model)
    assert not keeps_its_optimizer(model)


class Forgetful(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.01, power=1, **options):
        super().__init__(learning_rate, **options)
        self.power = power


def test_an_optimizer_whose_config_is_not_enough_is_not_copied():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 1.0)
    with pytest.raises(ValueError, match=r"`Forgetful` must hold all .*Received: power=7, which .* as 1\. Let its"):
        with_number_as_rate(Forgetful(schedule, power=7))
    assert with_number_as_rate(Forgetful(schedule)).power == 1


def test_a_schedule_without_a_config_is_replaced_all_the_same(tmp_path, data):
    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1 + keras.ops.cast(step, "float32"))

    built = []

    def build(hp):
        built.append(plain(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(Halving(), momentum=0.9))))
        return built[-1]

    tuner = autolr.RandomSearch(build, "loss", directory=tmp_path, **OPTIONS)
    trial, warned = search(tuner, *data)
    assert trial.hyperparameters.values["autolr/max_lr"] > 0
    assert not any("could not be prepared" in text for text in warned)
    assert built[-1].optimizer.inner_optimizer.momentum == 0.9
    model, rate = plain(keras.optimizers.SGD(Halving())), Halving()
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    autolr.range_test(model, *data, num_steps=10, burst_steps=0, verbose=0)
    assert compat.learning_rate_source(model.optimizer) is rate


class Loops(keras.Model):
    """Trains in a loop of its own, without Keras's training step."""

    def __init__(self):
        super().__init__()
        self.top = keras.layers.Dense(3)

    def call(self, x):
        return self.top(x)

    def fit(self, x, y, *, batch_size=16, epochs=1, callbacks=(), verbose=0):
        told = keras.callbacks.CallbackList(
            list(callbacks), model=self, add_history=True, epochs=epochs, steps=len(x) // batch_size
        )
        self.stop_training = False
        told.on_train_begin()
        for epoch in range(epochs):
            told.on_epoch_begin(epoch)
            for begin in range(0, len(x), batch_size):
                told.on_train_batch_begin(begin // batch_size)
                with tf.GradientTape() as tape:
                    end = begin + batch_size
                    loss = self.compute_loss(y=y[begin:end], y_pred=self(x[begin:end]))
                variables = self.trainable_variables
                self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
                told.on_train_batch_end(begin // batch_size, {"loss": float(loss)})
                if self.stop_training:
                    break
            told.on_epoch_end(epoch, {"loss": float(loss)})
            if self.stop_training:
                break
        told.on_train_end()
        return self.history


def looping():
    model = Loops()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_a_model_that_trains_in_a_loop_of_its_own_is_put_back(tmp_path, data):
    x, y = data
    model = looping()
    model(x[:1])
    model.optimizer.build(model.trainable_variables)
    before = [np.array(it) for it in (*model.variables, *model.optimizer.variables)]
    test = autolr.range_test(model, x, y, batch_size=16, num_steps=20, verbose=0)
    assert test.steps_spent > 40
    after = [np.array(it) for it in (*model.variables, *model.optimizer.variables)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))

    def build(hp):
        model = looping()
        model(x[:1])
        return model

    begun, ended = [], []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            begun.append(int(self.model.optimizer.iterations))

        def on_train_end(self, logs=None):
            ended.append(int(self.model.optimizer.iterations))

        def __deepcopy__(self, memo):
            return self

    tuner = autolr.RandomSearch(build, "loss", directory=tmp_path, max_trials=1)
    tuner.search(x, y, epochs=40, batch_size=16, callbacks=[Look()], verbose=0)
    assert TrialRecord.read(tuner.get_trial_dir("0")).source == "range test"
    assert (begun, ended) == ([0], [40 * -(-len(x) // 16)]), "not a step is left of the range test"


@pytest.mark.parametrize("built", [True, False])
def test_what_a_fit_trains_before_it_comes_to_keras_own_is_put_back(data, built):
    class Warms(keras.Sequential):
        def fit(self, x, y, **arguments):
            for _ in range(3):
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(y=y[:16], y_pred=self(x[:16]))
                variables = self.trainable_variables
                self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return super().fit(x, y, **arguments)

    model = compiled(Warms([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]), metrics=[])
    if built:
        model.optimizer.build(model.trainable_variables)
    before = [np.array(it) for it in (*model.variables, *model.optimizer.variables)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        autolr.range_test(model, *data, num_steps=10, burst_steps=0, verbose=0)
    after = [np.array(it) for it in (*model.variables, *model.optimizer.variables)]
    slots = after[len(before) :]  # none of before, if the optimizer was not built
    assert bool(slots) != built
    assert not any(slot.any() for slot in slots)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=False))


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_a_loop_of_its_own_that_fails_in_its_first_step_is_put_back(data, error):
    class Fails(Loops):
        def compute_loss(self, *args, **kwargs):
            if int(self.optimizer.iterations):
                raise error
            return super().compute_loss(*args, **kwargs)

        def fit(self, x, y, *, batch_size=16, epochs=1, callbacks=()):
            return super().fit(x, y, batch_size=batch_size, epochs=epochs)  # none is told of the first step

    model = Fails()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(data[0][:1])
    before = model.get_weights()
    with pytest.raises(type(error)):
        autolr.range_test(model, *data, batch_size=16, verbose=0)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_a_loop_that_tells_no_callback_is_refused_and_put_back(data):
    class Silent(Loops):
        def fit(self, x, y, *, batch_size=16, epochs=1, callbacks=()):
            return super().fit(x, y, batch_size=batch_size, epochs=epochs)

    model = Silent()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(data[0][:1])
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="calls neither"):
        autolr.range_test(model, *data, batch_size=16, verbose=0)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_an_own_fit_beside_an_own_training_step_may_train_what_only_that_step_knows(tmp_path, data):
    class Headed(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.head = keras.layers.Dense(4), keras.layers.Dense(3)

        def call(self, x):
            return self.body(x)

        def train_step(self, batch):
            x, y = batch
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(
                    keras.losses.sparse_categorical_crossentropy(y, self.head(self.body(x)), from_logits=True)
                )
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        def fit(self, *args, **options):
            return super().fit(*args, **options)

    def build(hp):
        model = Headed()
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        model(data[0][:1])  # builds the body alone
        return model

    trial, warned = search(autolr.RandomSearch(build, "loss", directory=tmp_path, **OPTIONS), *data)
    assert trial.status == "COMPLETED"
    assert not any("failed" in text or "could not be prepared" in text for text in warned)


def test_an_own_fit_may_unfreeze_layers(tmp_path, data):
    class Unfreezes(keras.Sequential):
        def fit(self, *args, **options):
            self.layers[0].trainable = True
            return super().fit(*args, **options)

    def build(hp):
        hidden = keras.layers.Dense(4, trainable=False)
        return compiled(Unfreezes([keras.Input((6,)), hidden, keras.layers.Dense(3, activation="softmax")]), metrics=[])

    trial, warned = search(autolr.RandomSearch(build, "loss", directory=tmp_path, **OPTIONS), *data)
    assert trial.status == "COMPLETED"
    assert not any("failed" in text for text in warned)


class ReadsItsRate(keras.optimizers.SGD):
    def get_config(self):
        return {**super().get_config(), "learning_rate": self._learning_rate.get_config()}


def test_a_config_that_reads_what_the_optimizer_was_given_is_read_as_it_is():
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert compat.config_without_rate(ReadsItsRate(rate))["learning_rate"]["initial_learning_rate"] == 0.1


def test_a_model_that_trains_in_a_loop_of_its_own_must_be_built(data):
    with pytest.raises(RuntimeError, match=r"must be built before, .*It has been trained now"):
        autolr.range_test(looping(), *data, verbose=0)


@pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")
def test_a_loaded_models_optimizer_goes_on_though_its_rate_was_a_schedule(tmp_path, data):
    loaded = plain(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9))
    loaded.fit(*data, verbose=0)
    loaded.save(tmp_path / "loaded.keras")
    begun = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            optimizer = self.model.optimizer
            slots = [np.array(it) for it in optimizer.variables if it.ndim]
            begun.append((int(optimizer.iterations), slots))

    def build(hp):
        return keras.models.load_model(tmp_path / "loaded.keras")

    for kind in (kt.RandomSearch, autolr.RandomSearch):
        tuner = kind(build, "loss", max_trials=1, directory=tmp_path, project_name=kind.__module__)
        tuner.search(*data, callbacks=[Look()], verbose=0)
    (steps, slots), (ours, our_slots) = begun
    assert steps == ours > 0
    assert len(slots) == len(our_slots) == 2
    assert all(np.array_equal(one, other) and one.any() for one, other in zip(slots, our_slots, strict=True))


def test_a_function_as_rate_is_replaced_without_a_word_of_keras():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compat.config_without_rate(keras.optimizers.SGD(lambda: 0.1, momentum=0.9))["momentum"] == 0.9
