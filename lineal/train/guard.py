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


class Guard:
    """Decides whether an optimiser step may happen.

    folder: where refused batches go, one folder per step (None: nowhere). limit: refusals in a row that end
    the run. in_a_row: refusals since the last accepted step; save it in checkpoints, so that a resumed run
    ends where the uninterrupted one does. refused: refusals so far, for the log.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT, in_a_row: int = 0) -> None:
        self.folder, self.limit, self.in_a_row = folder, limit, in_a_row
        self.refused = 0
        self._step = 0
        self._batch: Callable[[], Mapping[str, Tensor]] | None = None

    def watch(self, step: int, batch: Callable[[], Mapping[str, Tensor]] | None = None) -> None:
        """Say which step follows, and how to get the tensors of its batch if it must be saved."""
        self._step, self._batch = step, batch

    def finite(self, grad_norm: Tensor | float | int, **others: Tensor | float | int) -> bool:
        """True when all numbers are finite; otherwise the optimiser step must be skipped.

        grad_norm: of all gradients together, finite only if each of them is. others: the loss and whatever
        else must be finite. One transfer to the host. Raises NonFiniteError at the `limit`-th refusal in a
        row.
        """
        numbers = to_host({**others, "grad_norm": grad_norm})
        bad = [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
        if not bad:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        self.refused += 1
        saved = self._save(numbers)
        said = f"step {self._step}: {', '.join(bad)}"
        where = f"; its batch is in {saved}" if saved else ""
        if self.in_a_row >= self.limit:
            raise NonFiniteError(
                f"{said}, refused {self.in_a_row} times in a row{where}. The weights are as before the first "
                "of them. Lower the learning rate, clip gradients (--max-grad-norm), or use --dtype float32."
            )
        warn(f"{said}; the step is refused and the weights stay as they were{where}.")
        return False

    def _save(self, numbers: Mapping[str, float]) -> Path | None:
        if self.folder is None or self._batch is None:
            return None
        path = self.folder / f"step-{self._step}"
        if path.exists():
            return path
        if self.folder.is_dir() and len(list(self.folder.glob("step-*"))) >= SAVED:
            return None
        try:
            contents = {
                "batch.safetensors": tensor_chunks(self._batch()),
                "values.json": [encode_line(numbers)],
            }
            write_folder(path, contents, {"step": self._step})
        except (OSError, CheckpointError) as error:
            # The refusal is what matters; a full disk must not hide it.
            warn(f"step {self._step}: the refused batch could not be saved ({error}).")
            return None
        return path
