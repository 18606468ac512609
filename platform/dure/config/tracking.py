"""Where an experiment's numbers go beside its own folder."""

from __future__ import annotations

from dure.config.scalars import Address, Bool, Text
from dure.config.section import Section


class WandbConfig(Section):
    """Tracking with Weights & Biases."""

    enabled: Bool = False
    """Send configuration, metrics and system figures to W&B; offline when there is no key or network."""
    project: Text = "dure"
    """W&B project."""
    entity: Text | None = None
    """W&B user or team."""


class MlflowConfig(Section):
    """Tracking with MLflow."""

    uri: Address | None = None
    """Tracking server (``http://host:5000``) or store; ``MLFLOW_TRACKING_URI``, else the folder ``mlruns`` beside the run."""
    experiment: Text = "dure"
    """MLflow experiment that the runs are in."""
