"""Linear algebra over parameters: flat vectors, conjugate gradient, and products with the Fisher matrix.

The Fisher matrix F of a policy is the Hessian of the mean KL(old || new) at new == old. It has as many rows
as there are parameters, so it is never formed: only products F v are. Two ways give the same numbers:

- `kl_fisher_product`, double backward: F v = ∇(∇KL · v). For any differentiable KL, chunked or checkpointed.
- `gauss_newton_product`: F v = Jᵀ M J v with J the Jacobian of what the policy puts out (its logits) and M
  the Fisher matrix of that output alone. Exact too, as ∇KL vanishes at old, and cheaper: on a small decoder,
  with kept graphs, 1.1 to 1.4 forward-and-backward passes per product, against 1.7 to 2.4.

Both take micro-batches as closures whose shares add up to the mean over all counted steps, so no product
depends on how the steps were cut. Closures run under the mathematical attention kernel: the fused ones have
no second derivative. Neither way works through `torch.compile` or through sharded parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from lineal.errors import LinealError

Product = Callable[[Tensor], Tensor]
"""vector -> matrix @ vector."""
Metric = Callable[[Sequence[Tensor]], list[Tensor]]
"""M of Jᵀ M J: tangents of the outputs -> cotangents of the outputs."""
Linearised = Callable[[list[Tensor]], Sequence[Tensor]]

KEEP_BYTES = 2 << 30
"""Graphs kept between products by default; the micro-batches beyond it are recomputed in every product."""


def flatten(tensors: Sequence[Tensor]) -> Float[Tensor, " N"]:
    """The tensors' numbers one after another, as one new vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten_like(vector: Float[Tensor, " N"], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `flatten`: pieces of `vector` in the shapes and dtypes of `tensors`."""
    size = sum(tensor.numel() for tensor in tensors)
    if vector.numel() != size:
        raise LinealError(
            f"a vector of {vector.numel()} numbers cannot fill tensors of {size} numbers: "
            "flatten the same tensors that it is put back into."
        )
    pieces = vector.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in zip(pieces, tensors)]


def flat_gradient(parts: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor]) -> Float[Tensor, " N"]:
    """Gradient of the sum of the micro-batches' scalars, as one vector; `.grad` is not touched."""
    chosen = list(parameters)
    total = torch.zeros_like(flatten(chosen), requires_grad=False)
    for part in parts:
        total += flatten(grad(part(), chosen, materialize_grads=True))
    return total


def conjugate_gradient(
    matvec: Product, b: Float[Tensor, " N"], iterations: int = 10, tolerance: float = 1e-10
) -> tuple[Float[Tensor, " N"], float]:
    """Solve A x = b for a symmetric positive definite A known by its products; returns (x, ‖b - A x‖ / ‖b‖).

    Hestenes and Stiefel (1952), from x = 0. Stops after `iterations` products, at a relative residual of
    `tolerance`, or at a direction whose curvature p'A p is not positive or not finite: x is then what was
    reached before it. The residual is the recurrence's own, which costs no product.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction = b.clone()
    size = float(torch.dot(b, b))
    square, target = size, tolerance**2 * size
    for _ in range(iterations):
        if not square > target:
            break
        image = matvec(direction)
        curvature = float(torch.dot(direction, image))
        if not 0 < curvature < float("inf"):
            break
        x.add_(direction, alpha=square / curvature)
        residual.sub_(image, alpha=square / curvature)
        previous, square = square, float(torch.dot(residual, residual))
        direction.mul_(square / previous).add_(residual)
    return x, (square / size) ** 0.5 if size > 0 else 0.0


def dense_matrix(matvec: Product, like: Float[Tensor, " N"]) -> Float[Tensor, "N N"]:
    """The matrix itself, one product per column: for small ones only. Made symmetric, as rounding is not."""
    identity = torch.eye(len(like), dtype=like.dtype, device=like.device)
    columns = torch.stack([matvec(basis) for basis in identity])
    return (columns + columns.T) / 2


def kl_fisher_product(
    kls: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor], *, keep_bytes: int = KEEP_BYTES
) -> Product:
    """v -> F v by double backward, F v = ∇(∇KL · v)  (Pearlmutter, 1994).

    kls: each gives one micro-batch's share of the mean KL(old || new), already weighted, so that the shares
    add up to the mean over all counted steps; `old` may be the policy's own detached distribution.
    keep_bytes: first-order graphs are kept between products up to this much memory (0 keeps none); a
    micro-batch that is not kept pays a forward and a backward more in every product.
    """
    chosen = list(parameters)

    def linearise(kl: Callable[[], Tensor]) -> Linearised:
        slopes = grad(kl(), chosen, create_graph=True, materialize_grads=True)
        live = [i for i, slope in enumerate(slopes) if slope.requires_grad]

        def product(vectors: list[Tensor]) -> Sequence[Tensor]:
            along = [vectors[i] for i in live]
            if not live:
                return [torch.zeros_like(parameter) for parameter in chosen]
            return grad([slopes[i] for i in live], chosen, along, retain_graph=True, materialize_grads=True)

        return product

    return _summed(kls, linearise, chosen, keep_bytes)


def gauss_newton_product(
    parts: Sequence[Callable[[], tuple[Sequence[Tensor], Metric]]],
    parameters: Sequence[Tensor],
    *,
    keep_bytes: int = KEEP_BYTES,
) -> Product:
    """v -> Jᵀ M J v, the Fisher product of a policy whose output's own Fisher matrix M is known.

    parts: each gives one micro-batch's outputs (with their graph; a parameter may itself be an output) and
    their
    metric: `softmax_metric`, `gaussian_metric` or `head_metric`. It carries the steps' weights, which over
    all micro-batches add up to 1.
    keep_bytes: as for `kl_fisher_product`. J v is the derivative of Jᵀ u by u, so reverse mode does it all.
    """
    chosen = list(parameters)

    def linearise(part: Callable[[], tuple[Sequence[Tensor], Metric]]) -> Linearised:
        outputs, metric = part()
        outputs = list(outputs)
        duals = [torch.zeros_like(output).requires_grad_() for output in outputs]
        pulled = grad(outputs, chosen, duals, create_graph=True, materialize_grads=True)
        live = [i for i, pull in enumerate(pulled) if pull.requires_grad]

        def product(vectors: list[Tensor]) -> Sequence[Tensor]:
            if not live:
                return [torch.zeros_like(parameter) for parameter in chosen]
            moved, along = [pulled[i] for i in live], [vectors[i] for i in live]
            tangents = grad(moved, duals, along, retain_graph=True, materialize_grads=True)
            return grad(outputs, chosen, metric(tangents), retain_graph=True, materialize_grads=True)

        return product

    return _summed(parts, linearise, chosen, keep_bytes)


def softmax_metric(logits_NV: Float[Tensor, "N V"], weight_N: Float[Tensor, " N"]) -> Metric:
    """M of a softmax policy whose outputs are its logits: (M t)_n = weight_n (diag(p_n) - p_n p_n') t_n."""
    p_NV = torch.softmax(logits_NV.detach(), -1)

    def metric(tangents: Sequence[Tensor]) -> list[Tensor]:
        moved_NV = p_NV * tangents[0]
        return [weight_N[:, None] * (moved_NV - p_NV * moved_NV.sum(-1, keepdim=True))]

    return metric


def gaussian_metric(log_std_NA: Float[Tensor, "N A"], weight_N: Float[Tensor, " N"]) -> Metric:
    """M of a diagonal Gaussian with outputs (mean_NA, log_std_NA): 1/σ² for the mean, 2 for log σ."""
    precision_NA = torch.exp(-2 * log_std_NA.detach())

    def metric(tangents: Sequence[Tensor]) -> list[Tensor]:
        return [weight_N[:, None] * precision_NA * tangents[0], 2 * weight_N[:, None] * tangents[1]]

    return metric


def head_metric(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    weight_N: Float[Tensor, " N"],
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Metric:
    """M of a softmax policy with outputs (hidden_ND, weight_VD) and logits hidden · weight' / temperature.

    The logits' metric pulled back through the output layer, `chunk` steps at a time (by default as many as
    make 2^25 logits), so [N, V] is never held. Give the outputs (hidden_ND,) alone where the output layer's
    weight is not among the parameters.
    """
    hidden_ND, weight_VD = hidden_ND.detach(), weight_VD.detach()
    chunk = chunk or max(1, (1 << 25) // len(weight_VD))

    def metric(tangents: Sequence[Tensor]) -> list[Tensor]:
        back = [torch.zeros_like(tangent) for tangent in tangents]
        for start in range(0, len(hidden_ND), chunk):
            rows = slice(start, start + chunk)
            logits_NV = hidden_ND[rows] @ weight_VD.T / temperature
            tangent_NV = tangents[0][rows] @ weight_VD.T
            if len(tangents) == 2:
                tangent_NV = tangent_NV + hidden_ND[rows] @ tangents[1].T
            # Once 1/temperature for the tangent, once for the way back.
            scale_N = weight_N[rows] / temperature**2
            cotangent_NV = softmax_metric(logits_NV, scale_N)([tangent_NV])[0]
            back[0][rows] = cotangent_NV @ weight_VD
            if len(tangents) == 2:
                back[1] += cotangent_NV.T @ hidden_ND[rows]
        return back

    return metric


def _summed(
    parts: Sequence[Callable], linearise: Callable[..., Linearised], parameters: list[Tensor], keep_bytes: int
) -> Product:
    kept: dict[int, Linearised] = {}
    room = [float(keep_bytes)]
    versions = [parameter._version for parameter in parameters]

    def product(vector: Tensor) -> Tensor:
        if versions != [parameter._version for parameter in parameters]:
            raise LinealError(
                "the parameters have moved since this Fisher product was made, and the graphs it kept are "
                "of the old ones: make a new product for each step."
            )
        total = torch.zeros_like(vector)
        vectors = unflatten_like(vector, parameters)
        for index, part in enumerate(parts):
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                one = kept.get(index)
                if one is None and room[0] > 0:
                    with _measured(parameters) as used:
                        one = linearise(part)
                    room[0] -= used[0]
                    if room[0] >= 0:
                        kept[index] = one
                elif one is None:
                    one = linearise(part)
                total += flatten(one(vectors)).to(total.dtype)
        return total

    return product


@contextmanager
def _measured(parameters: Sequence[Tensor]) -> Iterator[list[int]]:
    """Counts the bytes that autograd saves inside the block, each storage once, parameters not counted."""
    used = [0]
    seen = {parameter.untyped_storage().data_ptr() for parameter in parameters}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            used[0] += storage.nbytes()
        # With its history, a node's own output would hold the node: a cycle that is never collected.
        return tensor.detach()

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield used
