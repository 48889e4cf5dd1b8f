"""How every listener of the page is attached."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# concurrency_limit: the lanes of the manager are the limit; gradio's own default is one at a time
QUIET: Mapping[str, Any] = MappingProxyType(
    {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
)
