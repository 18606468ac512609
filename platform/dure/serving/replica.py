"""What Ray Serve runs several of: a process with the models, which predicts one batch after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from dure.config.families import trusting
from dure.config.schema import Profile
from dure.errors import DureError, UserError
from dure.serving.predictor import Answer, Predictor, Row

logger = logging.getLogger(__name__)


class Replica:
    """The models of runs in a process of their own.

    Ray Serve would start a replica whose constructor raises again and again, and report the reason as a traceback; so a
    model that cannot be loaded is remembered here, for :meth:`loaded` to report. ``folder`` is the working folder of
    the command, where the user's own modules lie.
    """

    def __init__(
        self, runs: Sequence[str], profile: Profile, batch_size: int, trust_code: bool, folder: str
    ) -> None:
        self._error: DureError | None = None
        if Path(folder).is_dir():
            os.chdir(folder)
        try:
            with trusting(trust_code):
                self._predictor = Predictor([Path(run) for run in runs], profile, batch_size, logger.info)
        except DureError as error:
            self._error = error

    def loaded(self) -> DureError | None:
        """Return why the models could not be loaded, or None when they are."""
        return self._error

    def predict(self, requests: Sequence[Sequence[Row]]) -> list[Answer | UserError]:
        """Predict the rows of several requests in one batch.

        Raises:
            DureError: This replica could not load the models, as when the folder was removed meanwhile.
        """
        if self._error is not None:
            raise self._error
        return self._predictor.predict(requests)
