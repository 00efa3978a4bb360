"""How the two domains look: season, light, air and sensor.

Urban tiles show a green summer through haze, rural ones a dry autumn in clear air, taken by another sensor. Colors of
different classes overlap on purpose, within a domain (asphalt and paved yards, fallow fields and bare ground) and across
domains (rural gravel and urban roofs), so that a network has to look at texture and surroundings.

No outside source: the palettes are this project's own.
"""

from dataclasses import dataclass

from segda.datasets.landscape.geometry import Domain

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How a domain looks: RGB colors in 0..255 before light, air and sensor; a tuple of colors is a choice.

    Attributes:
        meadow: open background.
        yard: paved background.
        asphalt: paved roads.
        track: dirt roads.
        water: rivers, lakes and ponds.
        barren: bare ground.
        canopy: tree crowns.
        crops: fields.
        roofs: roofs.
        sun_elevation: range in degrees.
        sun_azimuth: direction that shadows fall to, range in degrees from +x (right) towards +y (down).
        haze: range of the share of light that comes from the air instead of the ground.
        air: color of that light.
        gain: sensor's gain of each channel.
        gamma: exponent on intensity in 0..1.
        blur_px: standard deviation of the point spread function in pixels.
        noise: standard deviation of the sensor noise in grey levels.
    """

    meadow: tuple[Color, ...]
    yard: tuple[Color, ...]
    asphalt: tuple[Color, ...]
    track: tuple[Color, ...]
    water: tuple[Color, ...]
    barren: tuple[Color, ...]
    canopy: tuple[Color, ...]
    crops: tuple[Color, ...]
    roofs: tuple[Color, ...]
    sun_elevation: tuple[float, float]
    sun_azimuth: tuple[float, float]
    haze: tuple[float, float]
    air: Color
    gain: Color
    gamma: float
    blur_px: float
    noise: float


LOOKS: dict[Domain, Look] = {
    "urban": Look(
        meadow=((96, 114, 70), (108, 120, 80), (122, 120, 90)),
        yard=((136, 134, 130), (122, 122, 122), (152, 146, 136)),
        asphalt=((98, 100, 104), (110, 110, 112), (122, 121, 120)),
        track=((150, 132, 108),),
        water=((58, 80, 74), (66, 84, 88), (74, 88, 66)),
        barren=((170, 142, 110), (182, 160, 132), (150, 124, 98)),
        canopy=((50, 76, 44), (58, 84, 50), (64, 82, 54)),
        crops=((88, 126, 62), (112, 138, 74), (134, 134, 84), (140, 118, 86)),
        roofs=((184, 182, 178), (150, 150, 152), (202, 203, 204), (96, 124, 164), (156, 94, 76), (118, 112, 108)),
        sun_elevation=(48, 60),
        sun_azimuth=(-150, -110),
        haze=(0.08, 0.22),
        air=(172, 184, 200),
        gain=(0.96, 0.99, 1.04),
        gamma=1.0,
        blur_px=0.55,
        noise=3.0,
    ),
    "rural": Look(
        meadow=((140, 136, 86), (126, 128, 80), (150, 138, 98)),
        yard=((176, 164, 142), (160, 148, 128), (184, 176, 160)),
        asphalt=((182, 176, 164), (150, 148, 142), (130, 126, 120)),
        track=((164, 138, 104), (178, 156, 124)),
        water=((84, 88, 66), (56, 70, 84), (74, 92, 92)),
        barren=((178, 170, 160), (190, 178, 160), (160, 146, 128)),
        canopy=((74, 78, 44), (86, 80, 46), (62, 74, 46)),
        crops=((154, 134, 94), (120, 96, 70), (118, 136, 62), (188, 168, 106), (142, 146, 84)),
        roofs=((146, 84, 66), (112, 108, 106), (176, 160, 138), (128, 92, 80)),
        sun_elevation=(38, 50),
        sun_azimuth=(-70, -30),
        haze=(0.0, 0.06),
        air=(196, 196, 192),
        gain=(1.05, 1.0, 0.9),
        gamma=1.06,
        blur_px=0.8,
        noise=4.5,
    ),
}
