import copy

import numpy as np
import torch
from torch import nn

from segda.methods.teacher import make_teacher, move_teacher


def segmenter() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


def trained(network: nn.Module, number: int) -> None:
    """Change weights, and by a forward pass the statistics."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        network.train()(5 + 3 * torch.randn(8, 3, 6, 6, generator=generator))


def moved(teacher: nn.Module, network: nn.Module, count: int, *, alpha: float) -> list[dict[str, np.ndarray]]:
    """Train and move in turns; return the segmenter's states, float64."""
    states = []
    for number in range(count):
        trained(network, number)
        states.append({name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()})
        move_teacher(teacher, network, moves=torch.tensor(number), alpha=alpha)
        states[-1] = {name: value.copy() for name, value in states[-1].items()}
    return states


def test_a_teacher_is_a_frozen_copy_that_shares_nothing():
    network = segmenter()
    teacher = make_teacher(network)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())
    before = copy.deepcopy(teacher.state_dict())
    trained(network, 0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_first_move_is_a_copy_of_weights_statistics_and_counts():
    network = segmenter()
    teacher = make_teacher(network)
    trained(network, 0)
    move_teacher(teacher, network, moves=torch.tensor(0), alpha=0.99)
    for name, value in network.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value), name
    image = torch.randn(2, 3, 5, 5)
    assert torch.equal(teacher(image), network.eval()(image))


def test_weights_and_statistics_follow_the_warmed_up_average():
    network = segmenter()
    teacher = make_teacher(network)
    states = moved(teacher, network, 8, alpha=0.75)
    for name, value in teacher.state_dict().items():
        expected = np.zeros_like(states[0][name])
        for t, state in enumerate(states):
            share = min(1 - 1 / (t + 1), 0.75)
            expected = share * expected + (1 - share) * state[name]
        if name.endswith("num_batches_tracked"):
            assert value.item() == 8
        else:
            np.testing.assert_allclose(value.numpy(), expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_until_alpha_is_reached_a_teacher_is_the_mean_of_all_segmenters():
    network = segmenter()
    teacher = make_teacher(network)
    states = moved(teacher, network, 5, alpha=0.99)
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        expected = np.mean([state[name] for state in states], axis=0)
        np.testing.assert_allclose(teacher.state_dict()[name].numpy(), expected, rtol=2e-5, atol=1e-6)


def test_a_teacher_whose_statistics_stayed_behind_would_see_other_images():
    """Averaging parameters alone leaves running statistics at 0 and 1: the output is then far from any segmenter's."""
    network = segmenter()
    teacher, forgetful = make_teacher(network), make_teacher(network)
    moved(teacher, network, 20, alpha=0.5)
    forgetful.load_state_dict(
        dict(teacher.state_dict()) | {"1.running_mean": torch.zeros(4), "1.running_var": torch.ones(4)}
    )
    image = 5 + 3 * torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(99))
    normalized = [nn.Sequential(*list(net)[:2])(image) for net in (teacher, forgetful)]
    assert normalized[0].std() < 4 * list(teacher)[1].weight.abs().max()
    assert normalized[1].std() > 3 * normalized[0].std()


def test_a_move_leaves_no_graph_and_no_gradient():
    network = segmenter()
    teacher = make_teacher(network)
    trained(network, 0)
    move_teacher(teacher, network, moves=torch.tensor(3), alpha=0.9)
    assert all(value.grad_fn is None for value in [*teacher.parameters(), *teacher.buffers()])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
