"""Style without learning: labelled source images get the look of unlabelled target images before they are augmented.

A new one is a file and a line here.
"""

from segda.catalog import Catalog, subclass_of
from segda.transforms.styles.amplitude import AmplitudeMix, FdaStyle
from segda.transforms.styles.base import NoStyle, Style, StyleConfig, TransferConfig
from segda.transforms.styles.covariance import Covariance
from segda.transforms.styles.histogram import Histogram
from segda.transforms.styles.statistics import ChannelStatistics, Lab

STYLES: Catalog[type[Style]] = Catalog(
    "style",
    group="segda.styles",
    built_in={
        "none": NoStyle,
        "channel_statistics": ChannelStatistics,
        "lab": Lab,
        "histogram": Histogram,
        "covariance": Covariance,
        "fda": FdaStyle,
        "amplitude_mix": AmplitudeMix,
    },
    check=subclass_of(Style, config=TransferConfig),
)

# What a configuration that names no style means.
NO_STYLE = "none"

__all__ = ["NO_STYLE", "STYLES", "Style", "StyleConfig", "TransferConfig", "build_style"]


def build_style(settings: StyleConfig) -> Style | None:
    """Return a style step ready to be applied, or None where images keep their look.

    Args:
        settings: of a style in `STYLES`.

    Raises:
        ConfigError: the name is unknown.
    """
    return STYLES[settings.name](settings) if isinstance(settings, TransferConfig) else None
