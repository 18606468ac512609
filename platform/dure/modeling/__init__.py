"""Models: loading a checkpoint or its miniature, special tokens, adapters, precision, export."""
