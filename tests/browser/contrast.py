"""How well colours stand out on both of the book's pages, by the WCAG formula."""

import numpy as np
from matplotlib.colors import to_rgb

PAGES = {"light": "#ffffff", "dark": "#121212"}


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, (L1 + 0.05) / (L2 + 0.05) with L the relative luminance (WCAG 2.2)."""
    channels = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((light + 0.05) / (dark + 0.05))
