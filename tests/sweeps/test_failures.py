"""What is done about failures."""

import pytest

from sweeps.execution.failures import MAX_PAUSE_SECONDS, POLICIES, smaller_micro_batch
from sweeps.trial import FailureClass


def test_every_class_of_failure_has_a_policy():
    assert set(POLICIES) == set(FailureClass)


def test_the_sampler_hears_of_what_the_configuration_did_and_not_of_what_the_machines_did():
    blamed = {failure for failure, policy in POLICIES.items() if policy.blames_configuration}
    assert {FailureClass.OUT_OF_MEMORY, FailureClass.DIVERGED, FailureClass.INVALID} < blamed
    assert blamed.isdisjoint(
        {
            *(FailureClass.WORKER_LOST, FailureClass.NODE_LOST, FailureClass.DEVICE_LOST, FailureClass.PREEMPTED),
            *(FailureClass.DATA, FailureClass.STORAGE),
        }
    )


def test_a_preempted_trial_is_tried_again_for_ever_and_at_once():
    policy = POLICIES[FailureClass.PREEMPTED]
    assert policy.retries is None
    assert policy.pause(100) == 0


def test_pauses_grow_to_a_limit():
    pauses = [POLICIES[FailureClass.WORKER_LOST].pause(failures) for failures in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[1]
    assert pauses[-1] == MAX_PAUSE_SECONDS


@pytest.mark.parametrize("batch_size", range(2, 33))
def test_micro_batches_shrink_to_two_images_and_always_divide_the_batch(batch_size):
    present = None
    while (smaller := smaller_micro_batch(batch_size, present)) is not None:
        assert batch_size % smaller == 0
        assert smaller >= 2
        assert smaller <= (present or batch_size) // 2
        present = smaller


def test_a_micro_batch_is_a_part_of_a_process_s_share():
    assert smaller_micro_batch(16, None, processes=2) == 4
    assert smaller_micro_batch(4, None, processes=2) is None
