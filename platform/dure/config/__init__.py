"""What to run and where: typed sections, read from YAML and checked before anything starts."""

from dure.config.json_schema import json_schema
from dure.config.library import available
from dure.config.loading import dump_yaml, load_experiment, load_profile, load_study
from dure.config.rehearsal import rehearsal_of
from dure.config.schema import Experiment, Profile
from dure.config.studies import BatchStudy, Study

__all__ = [
    "BatchStudy",
    "Experiment",
    "Profile",
    "Study",
    "available",
    "dump_yaml",
    "json_schema",
    "load_experiment",
    "load_profile",
    "load_study",
    "rehearsal_of",
]
