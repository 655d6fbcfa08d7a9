"""``python -m edgehive``."""

import sys

from edgehive.cli.main import main

sys.exit(main())
