"""sanactl: composable checkpoint surgery for SANA text-to-image models (SANA-1.5, ICML 2025)."""

from sanactl.version import __version__ as __version__
