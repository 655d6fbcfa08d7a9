"""Label and field selectors, as text and as objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgehive.kube.refs import is_dns_subdomain
from edgehive.kube.status import bad_request
