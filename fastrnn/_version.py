"""The version, for whoever must not import the compiled part."""

__version__ = "0.1.0"
