"""Instruction fine-tuning of decoder-only models."""
