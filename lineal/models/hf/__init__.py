"""Hugging Face model folders, read and written by file layout; transformers itself is not needed."""

from lineal.models.hf.files import read_tensors
from lineal.models.hf.folder import load_config, load_model, save_model

__all__ = ["load_config", "load_model", "read_tensors", "save_model"]
