"""``python -m edgehive``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - from a checkout nothing else has looked at it
    sys.exit("edgehive: error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])

from edgehive.cli.main import main

sys.exit(main())
