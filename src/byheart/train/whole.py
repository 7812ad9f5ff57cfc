"""The model and its loss as one module, for what brings a module's weights together before its forward pass."""

from __future__ import annotations

from typing import Any

import torch

from byheart.models.writer import Rows, Writer
from byheart.train.answers import judged, losses_of


class Whole(torch.nn.Module):
    """The model and what is computed with it, as one module.

    Its own weights (embeddings, output layer) are whole from the start of its forward pass to the end of its backward
    pass, so that the loss may use the output layer's weight by itself; the layers' are whole while a layer runs.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.model = writer.model
        self._writer = writer

    def forward(self, rows: Rows) -> tuple[Any, torch.Tensor]:
        """Return the sum of the losses, and of each token its loss; without gradients, whether it is likeliest."""
        return losses_of(self._writer, rows) if torch.is_grad_enabled() else judged(self._writer, rows)
