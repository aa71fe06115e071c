"""Cutting a detection into pieces of one length, as the published autodecoder wants them (28.8 ks)."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from lexray.array_types import Float64s, Int64s
from lexray.errors import RefusedInput
from lexray.events.eventlist import Background, EventList, GoodTimeIntervals


@dataclass(frozen=True)
class Segmentation:
    """How detections are cut.

    Attributes
    ----------
    length : float
        Of a segment, in seconds; the last one of a detection is what is left.
    clock : str
        'wall': seconds since the detection's first good time; 'good': seconds of good time, gaps not counted.
    """

    length: float
    clock: Literal["good", "wall"] = "wall"


def cut(events: EventList, by: Segmentation) -> list[EventList]:
    """Segments of a detection, in time; each photon and each good second in exactly one of them.

    A segment's id is the detection's with ``:s`` and its number behind it, counted from 0 on the chosen clock, so that
    segments in which nothing was observed leave their numbers out. Its `t_ref` is its own first good time.

    Parameters
    ----------
    events : EventList
    by : Segmentation

    Raises
    ------
    RefusedInput
        'too_many_segments' where there are more than 100,000.
    """
    edges = _edges(events.gti, by)
    bounds = _bounds(events.time, edges, events.gti)
    background = events.background
    background_bounds = None if background is None else _bounds(background.time, edges, events.gti)
    segments = []
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        gti = events.gti.intersect(GoodTimeIntervals([low], [high]))
        if not len(gti):
            continue
        zero = float(gti.start[0])
        inside = slice(bounds[number], bounds[number + 1])
        own_background = None
        if background is not None and background_bounds is not None:
            there = slice(background_bounds[number], background_bounds[number + 1])
            own_background = Background(background.time[there] - zero, background.energy[there], background.scale)
        segments.append(
            replace(
                events,
                detection_id=f"{events.detection_id}:s{number:04d}",
                time=events.time[inside] - zero,
                energy=events.energy[inside],
                gti=gti.shift(-zero),
                exposure=events.exposure * gti.ontime / events.gti.ontime,
                t_ref=events.t_ref + zero,
                t_ref_mjd=events.t_ref_mjd + zero / 86400.0,
                background=own_background,
            )
        )
    return segments


def _edges(gti: GoodTimeIntervals, by: Segmentation) -> Float64s:
    """Bounds of the segments in seconds since `t_ref`; the last is the end of the last good time."""
    end = float(gti.stop[-1])
    total = end if by.clock == "wall" else gti.ontime
    # A remainder of rounding errors is no segment.
    number = np.ceil(total / by.length * (1 - 1e-12))
    if number > 100_000:  # a damaged file, or a length that was meant in other units
        raise RefusedInput(
            "too_many_segments", f"{total:.4g} s are {number:.0f} segments of {by.length:g} s: make them longer"
        )
    inner = np.arange(1, number) * by.length
    return np.concatenate([[0.0], inner if by.clock == "wall" else gti.time_at(inner), [end]])


def _bounds(time: Float64s, edges: Float64s, gti: GoodTimeIntervals) -> Int64s:
    """Index of the first event of each segment, and behind the last one.

    An event on an edge is the later segment's where that one observes from there on, else, at the end of a good time,
    the earlier one's.
    """
    i = np.searchsorted(gti.start, edges, side="right") - 1
    observes = (i >= 0) & (edges < gti.stop[np.maximum(i, 0)])
    before, behind = (np.searchsorted(time, edges, side=side) for side in ("left", "right"))
    bounds = np.where(observes, before, behind)
    bounds[0], bounds[-1] = 0, len(time)
    return bounds
