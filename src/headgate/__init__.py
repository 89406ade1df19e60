"""Headgate is a self-hosted LLM gateway for MiniMax's models. Start reading in edge/exchange.py."""

try:
    from headgate._version import version as __version__
except ImportError:  # a checkout that was never installed
    __version__ = "0.1.0"

__all__ = ["__version__"]
