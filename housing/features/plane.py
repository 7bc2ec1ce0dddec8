"""Degrees as km on a plane, so that distances between places are plain geometry."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

KM_PER_DEGREE = 111.2  # of latitude


def to_km(degrees: NDArray[np.float64], latitude: float) -> NDArray[np.float64]:
    """Give places (latitude, longitude in degrees, last axis) in km north and east.

    The plane touches the globe at `latitude`: good to 1 % over a few hundred km, and a tree asks only for an order.
    """
    return degrees * _km_per_degree(float(latitude))


@lru_cache(maxsize=64)  # making the array again would be a part of each prediction that can be felt
def _km_per_degree(latitude: float) -> NDArray[np.float64]:
    scale = np.array([KM_PER_DEGREE, KM_PER_DEGREE * math.cos(math.radians(latitude))])
    scale.flags.writeable = False
    return scale
