"""Makes `wire_support` and `mqtt_world` importable; a broker for those who ask."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def world():
    from mqtt_world import World

    return World()
