"""Faults injected into real studies: what is left must be what an undisturbed study leaves."""
