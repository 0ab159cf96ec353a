"""What messages say of what was received, and of errors."""

from __future__ import annotations

import numpy as np
import pytest

import autolr
from autolr.errors import MAX_SHOWN, in_brief


def test_of_tensorflows_errors_the_sentence_that_matters_is_told():
    import tensorflow as tf

    @tf.function
    def loss(labels):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.zeros((1, 2)))

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        loss(tf.constant([2]))
    text = in_brief(caught.value)
    assert text.startswith("InvalidArgumentError: Received a label value of 2 which is outside the valid range")
    assert len(text.splitlines()) == 1
    graph = "Graph execution error:\n\nDetected at node loss\n  File a.py\n\nIt is wrong.\n\t [[{{node loss}}]] [Op:f]"
    assert in_brief(ValueError(graph)) == "ValueError: It is wrong."


def test_others_are_told_as_they_are_but_for_very_long_ones():
    assert in_brief(KeyError("a")) == "KeyError: 'a'"
    assert in_brief(ValueError()) == "ValueError: "
    assert len(in_brief(ValueError("long " * 1000))) < MAX_SHOWN + 30


@pytest.mark.parametrize("value", [True, np.True_, "0.1", None, float("nan")])
def test_what_is_no_number_is_no_rate(value):
    with pytest.raises(ValueError, match=r"must .*Received: "):
        autolr.SGDRScheduler(min_lr=value, max_lr=2.0)
    with pytest.raises(ValueError, match=r"`start_lr` must be a finite, positive number\. Received: "):
        autolr.LRFinder(start_lr=value)
