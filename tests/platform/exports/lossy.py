"""A family that loses something of its model when it saves it."""

import copy

import torch

from trainables.transfer import Transfer


class Lossy(Transfer):
    """Forgets the head."""

    def export(self, model, tokenizer, folder):
        """Save a copy whose head is noise."""
        broken = copy.deepcopy(model)
        torch.manual_seed(1)
        torch.nn.init.normal_(broken.classifier.weight)
        super().export(broken, tokenizer, folder)
