"""sanactl: composable checkpoint surgery for SANA text-to-image models (SANA-1.5, ICML 2025)."""

__version__ = "0.1.0"
