"""Every scenario of the sample corpus, one module per part of life."""

from __future__ import annotations

from trainables.samples.scenario import Scenario
from trainables.samples.scenarios.among_friends import FRIENDLY
from trainables.samples.scenarios.at_the_door import NEARBY
from trainables.samples.scenarios.in_town import TOWN
from trainables.samples.scenarios.with_superiors import DUTIES

SCENARIOS: tuple[Scenario, ...] = (*FRIENDLY, *NEARBY, *TOWN, *DUTIES)
