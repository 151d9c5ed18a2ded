"""What a run on an environment will be made of, for print before it begins."""

from __future__ import annotations

from lineal.models.control import ControlConfig, FlatPolicy


def layers(shape: ControlConfig) -> str:
    """The sizes of a policy's layers: 4 -> 64 -> 64."""
    shown = " x ".join(map(str, shape.image)) if shape.image else str(shape.features)
    filters = [f"{many} filters of {side} by {stride}" for many, side, stride in shape.convolutions]
    return " -> ".join([shown, *filters, *map(str, shape.hidden)])


def mebibytes(policy: FlatPolicy, steps: int) -> float:
    """The memory of an iteration of that many steps, beside torch's own.

    The policy's numbers with gradient and Adam's two means, and what is known of each step. Perceptrons hold each
    observation three times and all layers with their slopes; pictures are held once, a byte per pixel, and only those of one
    micro-batch are inside the network.
    """
    shape, known = policy.config, policy.actions.outputs + 16
    number, learned = policy.theta.element_size(), 4 * policy.theta.numel()
    if not shape.image:
        each = 3 * shape.features + 4 * sum(shape.hidden) + known
        return (steps * each + learned) * number / 2**20
    planes = zip(shape.convolutions, shape.convolution_shape.planes, strict=True)
    inner = 2 * sum(filters * height * width for (filters, _, _), (height, width) in planes)
    inside = min(steps, policy.at_once or steps) * (shape.features + inner)
    return (steps * shape.features + (steps * known + inside + learned) * number) / 2**20
