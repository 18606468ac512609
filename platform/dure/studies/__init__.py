"""Running studies on Ray Tune: one adapter, and the strategies."""

from dure.imports import import_fast

import_fast()  # A worker of Ray begins with this room.
