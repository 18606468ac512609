"""Trained models over HTTP: replicas on Ray Serve, and before them one front that checks, batches and measures."""
