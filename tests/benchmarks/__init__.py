"""Measurements that stand behind the figures in the documentation; each runs as one script."""
