"""Nothing that is not finite ever reaches the weights.

An optimiser step whose loss or gradient norm is nan or infinite is refused, its batch is saved for
inspection, and the run ends with NonFiniteError after a few refusals in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from lineal.errors import CheckpointError, NonFiniteError
from lineal.train.checkpoint import tensor_chunks
from lineal.train.console import warn
from lineal.train.manifest import write_folder
from lineal.train.metrics import encode_line, to_host

LIMIT = 3
SAVED = 8
"""Most refused batches kept in a run folder; later ones are counted but not saved."""


def finite(*values: Tensor | float) -> bool:
    """Whether every number is finite, with one transfer to the host.

    The norm of all gradients is finite only if each of them is, so a loss and a norm decide for a whole step.
    """
    return all(map(math.isfinite, to_host({str(i): value for i, value in enumerate(values)}).values()))


class Guard:
    """Decides whether an optimiser step may happen.

    folder: where refused batches go, one folder per step. limit: refusals in a row that end the run.
    in_a_row: refusals since the last accepted step; save it in checkpoints so that a resumed run ends where
    the uninterrupted one does.
    """

    def __init__(self, folder: Path, limit: int = LIMIT, in_a_row: int = 0) -> None:
        self.folder, self.limit, self.in_a_row = folder, limit, in_a_row

    def accepts(
        self,
        step: int,
        values: Mapping[str, Tensor | float],
        batch: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> bool:
        """True when all values are finite; otherwise the step must be skipped.

        values: what must be finite, by name (loss, grad_norm, ...). batch: gives the tensors to save, called
        only on refusal. Raises NonFiniteError at the `limit`-th refusal in a row.
        """
        numbers = to_host(values)
        bad = {name: value for name, value in numbers.items() if not math.isfinite(value)}
        if not bad:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        saved = self._save(step, numbers, batch)
        said = ", ".join(f"{name} is {value}" for name, value in bad.items())
        where = f"; its batch is in {saved}" if saved else ""
        if self.in_a_row >= self.limit:
            raise NonFiniteError(
                f"step {step}: {said}, refused {self.in_a_row} times in a row{where}. The weights are as "
                "before the first of them. Lower the learning rate, clip gradients (--max-grad-norm), or use "
                "--dtype float32."
            )
        warn(f"step {step}: {said}; the step is refused and the weights stay as they were{where}.")
        return False

    def _save(
        self, step: int, numbers: Mapping[str, float], batch: Callable[[], Mapping[str, Tensor]] | None
    ) -> Path | None:
        path = self.folder / f"step-{step}"
        kept = len(list(self.folder.glob("step-*"))) if self.folder.is_dir() else 0
        if path.exists():
            return path
        if batch is None or kept >= SAVED:
            return None
        try:
            contents = {"batch.safetensors": tensor_chunks(batch()), "values.json": [encode_line(numbers)]}
            write_folder(path, contents, {"step": step})
        except (OSError, CheckpointError) as error:
            # The refusal is what matters; a full disk must not hide it.
            warn(f"step {step}: the refused batch could not be saved ({error}).")
            return None
        return path
