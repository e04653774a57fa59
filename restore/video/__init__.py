"""Video through a runner, frame by frame, by PyAV: times, colours, sound and subtitles kept."""

from .files import VIDEO_SUFFIXES, is_video
from .restoring import RestoredVideo, VideoOptions, VideoWarning, plan_video, restore_video

__all__ = [
    "VIDEO_SUFFIXES",
    "RestoredVideo",
    "VideoOptions",
    "VideoWarning",
    "is_video",
    "plan_video",
    "restore_video",
]
