"""The simulator is a program of its own (`run.py`); its modules are found beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
