"""Recordings of events as bytes of files."""

import numpy as np

from bootstrap_core.data.events.recordings import Events


def bs2(events: Events) -> bytes:
    """Return events as the bytes of a `.bs2` or `.bin` file, of 40 bits each."""
    words = np.stack([events.x, events.y, events.p << 7 | events.t >> 16, events.t >> 8 & 255, events.t & 255], 1)
    return words.astype(np.uint8).tobytes()
