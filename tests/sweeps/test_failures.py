"""What is done about failures."""

import pytest

from segda.gradients import images_at_once, micro_batches
from sweeps.execution.micro_batches import smaller_micro_batch
from sweeps.failures import MAX_PAUSE_SECONDS, POLICIES, FailureClass


def test_every_class_of_failure_has_a_policy():
    assert set(POLICIES) == set(FailureClass)


def test_the_sampler_hears_of_what_the_configuration_did_and_not_of_what_the_machines_did():
    blamed = {failure for failure, policy in POLICIES.items() if policy.blames_configuration}
    assert {FailureClass.OUT_OF_MEMORY, FailureClass.DIVERGED, FailureClass.INVALID} < blamed
    assert blamed.isdisjoint(
        {
            *(FailureClass.WORKER_LOST, FailureClass.NODE_LOST, FailureClass.DEVICE_LOST, FailureClass.PREEMPTED),
            *(FailureClass.DATA, FailureClass.DISK, FailureClass.STORAGE),
        }
    )


def test_where_the_machines_are_to_blame_people_are_told_what_to_do():
    told = {failure for failure, policy in POLICIES.items() if policy.remedy}
    assert told == {failure for failure, policy in POLICIES.items() if not policy.blames_configuration}


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
@pytest.mark.parametrize("processes", [1, 2])
def test_micro_batches_shrink_to_the_smallest_that_training_accepts(make_spec, batch_size, processes):
    if batch_size % processes or batch_size // processes < 2:
        return
    config = make_spec().train_config({"batch_size": batch_size}, seed=0)
    present = None
    while (smaller := smaller_micro_batch(batch_size, present, processes=processes)) is not None:
        assert smaller < (present or batch_size // processes)
        assert images_at_once(config, micro_batch=smaller, processes=processes) == smaller
        present = smaller
    assert (present or batch_size // processes) == micro_batches(batch_size, processes=processes)[0]


def test_a_micro_batch_is_a_part_of_a_process_s_share():
    assert smaller_micro_batch(16, None, processes=2) == 4
    assert smaller_micro_batch(16, 4, processes=2) == 2  # both processes together have four images at once
    assert smaller_micro_batch(16, 2, processes=2) is None
    assert smaller_micro_batch(4, None, processes=2) is None


def test_where_halves_are_too_small_the_floor_is_tried():
    assert smaller_micro_batch(12, 6) == 4
    assert smaller_micro_batch(20, 5) == 4
