"""Two dimensions out of many, files for a projector, and embeddings of models filled by word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lineal.errors import DataError, UsageError
from lineal.representations.embedding import embedding_layer, fill_embedding
from lineal.representations.projection import principal_components, project, write_projector
from lineal.representations.vectors import Vectors


def some(count: int = 40, dimensions: int = 6) -> Vectors:
    matrix = np.random.default_rng(0).standard_normal((count, dimensions)).astype(np.float32)
    return Vectors([f"w{i}" for i in range(count)], matrix)


def test_components_are_those_of_the_covariance() -> None:
    rows = np.random.default_rng(1).standard_normal((50, 5)) * [5, 3, 1, 1, 0.1]
    scores, share = principal_components(rows)
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), values[:2])
    np.testing.assert_allclose(share, values[:2] / values.sum())
    assert abs(scores[:, 0] @ scores[:, 1]) < 1e-9
    again, _ = principal_components(rows[::-1])
    np.testing.assert_allclose(again[::-1], scores, atol=1e-9)


def test_components_are_scikit_learns_but_for_their_sign() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    rows = np.random.default_rng(1).standard_normal((30, 8))
    theirs = decomposition.PCA(2).fit_transform(rows)
    np.testing.assert_allclose(np.abs(principal_components(rows)[0]), np.abs(theirs), atol=1e-9)


def test_fewer_dimensions_than_two_and_equal_rows_have_a_map() -> None:
    assert (project(np.ones((4, 1), np.float32))[:, 1] == 0).all()
    assert (project(np.ones((4, 3), np.float32)) == 0).all()
    with pytest.raises(DataError, match="2 words make no map"):
        project(np.ones((2, 3), np.float32))
    with pytest.raises(UsageError, match="method='lda'"):
        project(np.ones((3, 3), np.float32), "lda")


@pytest.mark.parametrize(
    ("method", "module"), [("tsne", "sklearn"), pytest.param("umap", "umap", marks=pytest.mark.slow)]
)
def test_maps_of_neighbours_keep_clusters_apart(method: str, module: str) -> None:
    pytest.importorskip(module)
    draws = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8) * 10, 20, axis=0)
    places = project((centres + draws.standard_normal(centres.shape) * 0.3).astype(np.float32), method)
    middles = places.reshape(3, 20, 2).mean(axis=1)
    inside = np.linalg.norm(places.reshape(3, 20, 2) - middles[:, None], axis=-1).max()
    assert min(np.linalg.norm(middles[i] - middles[j]) for i in range(3) for j in range(i)) > inside


def test_a_projector_gets_two_files(tmp_path: Path) -> None:
    vectors = some(3, 2)
    write_projector(tmp_path, vectors, {"count": [5, 6, 7]})
    rows = [line.split("\t") for line in (tmp_path / "vectors.tsv").read_text().splitlines()]
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), vectors.matrix)
    assert (tmp_path / "metadata.tsv").read_text() == "word\tcount\nw0\t5\nw1\t6\nw2\t7\n"
    write_projector(tmp_path, vectors)
    assert (tmp_path / "metadata.tsv").read_text() == "w0\nw1\nw2\n"
    with pytest.raises(DataError, match="tab or a line break"):
        write_projector(tmp_path, Vectors(["a\tb"], np.ones((1, 2), np.float32)))
    with pytest.raises(DataError, match="2 values for 3 words"):
        write_projector(tmp_path, vectors, {"count": [1, 2]})


def test_a_layer_is_a_look_up_of_words() -> None:
    vectors = some()
    layer = embedding_layer(vectors)
    assert torch.equal(layer(torch.tensor([3, 0])), torch.from_numpy(vectors.matrix[[3, 0]]))
    assert layer.weight.requires_grad
    frozen = embedding_layer(vectors, ["w1", "other", "w2"], freeze=True)
    assert not frozen.weight.requires_grad
    assert torch.equal(frozen.weight[2], torch.from_numpy(vectors["w2"]))
    assert torch.equal(frozen.weight, embedding_layer(vectors, ["w1", "other", "w2"]).weight)
    other = [embedding_layer(vectors, ["other"] * 2000 + ["w1"], seed=seed).weight[:2000] for seed in (0, 1)]
    assert not torch.equal(*other)
    np.testing.assert_allclose(other[0].std(dim=0).detach(), vectors.matrix.std(axis=0), rtol=0.1)


def test_a_model_s_embedding_is_filled_by_word() -> None:
    vectors = some()
    layer = nn.Embedding(5, 6)
    before = layer.weight.detach().clone()
    filled = fill_embedding(layer, vectors, ["\u0120w1", "\u2581W2", "ing", "w3"])
    assert filled.found == 3 and filled.missing == ("ing",)
    assert torch.equal(layer.weight[[0, 1, 3]], torch.from_numpy(vectors.matrix[[1, 2, 3]]))
    assert torch.equal(layer.weight[[2, 4]], before[[2, 4]])
    with pytest.raises(UsageError, match="7 dimensions and the vectors 6"):
        fill_embedding(nn.Embedding(5, 7), vectors, ["w1"])
    with pytest.raises(UsageError, match="1 rows for 2 tokens"):
        fill_embedding(nn.Embedding(1, 6), vectors, ["w1", "w2"])
    with pytest.raises(DataError, match="None of the tokens"):
        fill_embedding(layer, vectors, ["x"])
