"""What is known of data before anything is trained on them."""

from __future__ import annotations

import numpy as np
import pytest

from autolr.data import first_batch, samples_to_train


def test_a_share_for_validation_is_rounded_as_keras_does():
    assert samples_to_train(np.zeros(10), 0.25) == 7


@pytest.mark.parametrize("texts", [np.array(["a"]), np.array([b"a"]), np.array(["a"], object)])
def test_texts_are_known_in_each_type_of_numpys(texts):
    assert first_batch(texts)[0].dtype == "string"


def test_a_batch_has_its_weights():
    assert [it.shape for it in first_batch(np.zeros((8, 6)), np.zeros(8), np.ones(8), batch_size=4)] == [
        (4, 6),
        (4,),
        (4,),
    ]
