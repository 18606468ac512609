"""Every scenario of the sample corpus, one module per part of life."""

from __future__ import annotations

from dure.data.samples.scenario import Scenario
from dure.data.samples.scenarios.among_friends import FRIENDLY
from dure.data.samples.scenarios.at_the_door import NEARBY
from dure.data.samples.scenarios.in_town import TOWN
from dure.data.samples.scenarios.with_superiors import DUTIES

SCENARIOS: tuple[Scenario, ...] = (*FRIENDLY, *NEARBY, *TOWN, *DUTIES)
