"""Where runs happen: clusters, machines, and experiments as Ray Train jobs."""

from dure.imports import import_fast

import_fast()  # A worker of Ray begins with this room.
