"""Model families: the contract that each keeps, and what the engine does with any of them."""

from dure.family.contract import Family, Features, NoOptions, Role, Rows
from dure.family.loading import family_of_old, load_family

__all__ = ["Family", "Features", "NoOptions", "Role", "Rows", "family_of_old", "load_family"]
