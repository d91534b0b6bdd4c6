"""The average of weights where the model lives."""

from torch import nn

from gwg_dist.callbacks.averaging import Pairs


def test_the_average_comes_to_the_device_of_the_model() -> None:
    """Lightning makes it before a strategy moves the model; "meta" stands for a GPU."""
    average, model = nn.Linear(2, 3), nn.Linear(2, 3, device="meta")
    pairs = Pairs.of(average, model)
    assert {tensor.device.type for tensor in pairs.averages} == {"meta"}
    assert next(iter(average.parameters())) is pairs.averages[0]
