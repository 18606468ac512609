"""What to run and where: typed sections, read from YAML and checked before anything starts."""

from dure.config.library import available
from dure.config.loading import dump_yaml, load_experiment, load_profile
from dure.config.rehearsal import rehearsal_of
from dure.config.schema import Experiment, Profile

__all__ = [
    "Experiment",
    "Profile",
    "available",
    "dump_yaml",
    "load_experiment",
    "load_profile",
    "rehearsal_of",
]
