"""How hard the property tests try.

What it is: `effort`, the settings of a property test, `time_enough`, a mark for it, and the profile
`fuzz`, with which `make fuzz` makes all of them try `TIMES` as hard.

What it assumes and guarantees: that a busy machine is no failure, so there are no deadlines.

What it does not know: what the tests are about.
"""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

PATIENT: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
_NORMAL: Final = 100
"""What Hypothesis tries if nothing is said."""
_TIMEOUT_S: Final = 300

# pytest chooses it with --hypothesis-profile=fuzz, for which tests/conftest.py imports this module.
settings.register_profile("fuzz", max_examples=int(os.environ.get("TIMES", "10")) * _NORMAL)


def effort(examples: int) -> settings:
    """Settings for so many examples, or for as many times more as the profile says."""
    return settings(max_examples=examples * _times(), deadline=None, suppress_health_check=PATIENT)


def time_enough() -> pytest.MarkDecorator:
    """A mark for tests that try hard, with the time that they may take on a busy machine."""
    return pytest.mark.timeout(_TIMEOUT_S * _times())


def _times() -> int:
    return max(1, settings().max_examples // _NORMAL)
