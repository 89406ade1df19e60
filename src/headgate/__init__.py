"""Headgate: a self-hosted gate to MiniMax's text models. Start reading in edge/exchange.py."""

__version__ = "0.1.0"
