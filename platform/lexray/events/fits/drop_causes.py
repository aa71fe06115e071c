"""Why an event of a file is left out."""

#: Why an ingest leaves an event out. One that has several causes is counted under the first.
CAUSES = (
    "invalid_time",
    "grade",
    "flag",
    "status",
    "invalid_energy",
    "overflow",
    "outside_gti",
    "outside_band",
    "outside_sources",
    "too_few",
)
