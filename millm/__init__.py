"""miLLM: get, load, try and serve language models from one process.

The folder is the diagram; `CONTRIBUTING.md` holds the map. Importing anything here does nothing.
"""

__version__ = "0.1.0"
