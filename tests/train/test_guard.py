"""A step that is not finite never happens, is never silent, and never goes on for long."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from lineal.errors import NonFiniteError
from lineal.train.guard import SAVED, Guard

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["number", "tensor"])
def test_a_bad_number_refuses_the_step_and_says_so(tmp_path, capsys, bad, kind):
    guard = Guard(tmp_path / "refused")
    guard.watch(7, lambda: {"token_BT": torch.arange(6).view(2, 3)})
    assert guard.finite(kind(1.0), loss=kind(2.0))
    assert not guard.finite(kind(1.0), loss=kind(bad))
    said = capsys.readouterr().err
    assert (
        f"step 7: loss is {bad}" in said and "weights stay as they were" in said and "grad_norm" not in said
    )
    folder = tmp_path / "refused" / "step-7"
    assert str(folder) in said
    assert torch.equal(load_file(folder / "batch.safetensors")["token_BT"], torch.arange(6).view(2, 3))
    assert json.loads((folder / "values.json").read_text()) == {
        "loss": None,
        "grad_norm": 1.0,
        "non_finite": True,
    }


@pytest.mark.parametrize("bad", BAD)
def test_weights_never_become_non_finite(tmp_path, bad):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    guard = Guard(tmp_path)
    for step, scale in enumerate([1.0, bad, 1.0, bad, bad, 1.0]):
        optimizer.zero_grad()
        loss = (weight * torch.tensor([scale, 1.0, 1.0])).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
        guard.watch(step)
        if guard.finite(norm, loss=loss):
            optimizer.step()
        assert weight.isfinite().all()
    assert guard.refused == 3 and guard.in_a_row == 0


def test_three_in_a_row_end_the_run(tmp_path):
    guard = Guard(tmp_path)
    guard.watch(4, lambda: {"x": torch.ones(1)})
    assert not guard.finite(math.nan)
    assert not guard.finite(math.nan)
    with pytest.raises(NonFiniteError) as caught:
        guard.finite(math.inf)
    said = str(caught.value)
    assert "step 4: grad_norm is inf, refused 3 times in a row" in said and str(tmp_path / "step-4") in said
    assert "Lower the learning rate" in said and NonFiniteError.exit_code == 1


def test_the_count_goes_on_after_a_resume(tmp_path):
    guard = Guard(tmp_path)
    guard.finite(math.nan)
    guard.finite(math.nan)
    resumed = Guard(tmp_path, in_a_row=guard.in_a_row)
    with pytest.raises(NonFiniteError):
        resumed.finite(math.nan)


def test_a_good_step_starts_the_count_again(tmp_path):
    guard = Guard(tmp_path, limit=2)
    for norm in [math.nan, 1.0, math.nan, 1.0]:
        guard.finite(norm)
    assert guard.in_a_row == 0


def test_only_a_few_batches_are_kept(tmp_path):
    guard = Guard(tmp_path, limit=99)
    for step in range(SAVED + 5):
        guard.watch(step, lambda: {"x": torch.ones(1)})
        guard.finite(math.nan)
        guard.finite(math.nan)
    assert len(list(tmp_path.iterdir())) == SAVED
    assert guard.refused == 2 * (SAVED + 5)


def test_a_full_disk_does_not_hide_the_refusal(tmp_path, capsys, faulty):
    guard = Guard(tmp_path / "refused")
    guard.watch(1, lambda: {"x": torch.ones(1)})
    with faulty(fail_at=3, error=28, forever=True):
        assert not guard.finite(math.nan)
    said = capsys.readouterr().err
    assert "could not be saved" in said and "the step is refused" in said


def test_nowhere_to_save_is_fine(capsys):
    guard = Guard()
    guard.watch(1, lambda: pytest.fail("the batch is not needed"))
    assert not guard.finite(math.nan)
    assert "the step is refused" in capsys.readouterr().err
