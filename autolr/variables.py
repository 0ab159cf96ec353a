"""Variables read and set without what takes longest where Keras does so."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def assign(variable: Any, value: Any) -> None:
    """Give a variable a number or an array of its shape and type, as its `assign` does, but quicker on TensorFlow.

    There that converts the value twice and makes an object of the result, which for one number takes as long as a layer
    of a small model. A learning rate is set in each step.
    """
    resource = _resource_of(variable)
    if resource is None:
        variable.assign(value)
        return
    import tensorflow as tf

    tf.raw_ops.AssignVariableOp(resource=resource.handle, value=tf.constant(value, resource.dtype), validate_shape=True)


def array_of(variable: Any) -> np.ndarray[Any, Any]:
    """The value of a variable, a copy: on a CPU a backend may hand out a view of the memory the next step writes to.

    What Keras's public `convert_to_numpy` does first takes longer than a small variable.
    """
    resource = _resource_of(variable)
    if resource is None:
        return np.array(keras.ops.convert_to_numpy(variable))
    return np.asarray(resource.value().numpy())  # `numpy` copies


def _resource_of(variable: Any) -> Any:
    """TensorFlow's variable within one of Keras's; None if there is none, or one for each replica of a strategy."""
    if keras.backend.backend() != "tensorflow" or getattr(type(variable), "assign", None) is not keras.Variable.assign:
        return None
    import tensorflow as tf

    its = variable.value
    return its if isinstance(its, tf.Variable) and not isinstance(its, tf.distribute.DistributedValues) else None
