"""Arrow schemas of every table, with units in the fields' metadata. What is written is checked against them.

`part` is the hive partition column of every partitioned table: it stands in the path, not in the files' rows.
"""

import pyarrow as pa

from lexray.errors import LexrayError, first_line

#: Version of all schemas below. A table written by a newer one is refused, one by an older one read as `migrated` says.
#: Version 2 added events.counts_per_frame, 3 the provenance columns of literature, summaries and text_embeddings, 4
#: latents.flags and what `rates` says of anomalies.
SCHEMA_VERSION = 4


def documented_field(
    name: str, kind: pa.DataType, meaning: str = "", unit: str = "", *, required: bool = False
) -> pa.Field:
    """A column with its meaning and its unit in the metadata."""
    metadata = {key: value for key, value in (("unit", unit), ("meaning", meaning)) if value}
    return pa.field(name, kind, nullable=not required, metadata=metadata or None)


_string, _i4, _i8, _f4, _f8 = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64()
_f4s, _f8s, _strings = pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.string())
#: How far a detection is like those that an autodecoder was trained on.
_LIKE_TRAINING = (
    documented_field("anomaly", _f4, "how improbable photons and representation are; null where not estimated", "nat"),
    documented_field("p_value", _f4, "share of simulated detections that are as anomalous; null where not estimated"),
    documented_field(
        "flags",
        _strings,
        "unlike the training: counts_unseen, times_unseen, energies_unseen, anomalous; null: unknown",
    ),
)


EVENTS = pa.schema(
    [
        documented_field("detection_id", _string, "mission, observation, instrument, source, segment", required=True),
        documented_field("source_id", _string, required=True),
        documented_field("mission", _string),
        documented_field("instrument", _string),
        documented_field("obs_id", _string),
        documented_field("object", _string, "the header's OBJECT; of an imager, its pointing's target"),
        documented_field("ra", _f8, "right ascension, ICRS; null if unknown", "deg"),
        documented_field("dec", _f8, "declination, ICRS; null if unknown", "deg"),
        documented_field("t_ref", _f8, "start of the first good time, in the mission's own seconds", "s"),
        documented_field("t_ref_mjd", _f8, "the same instant as MJD in `timesys`", "d"),
        documented_field("timesys", _string, "TT, TDB …"),
        documented_field("timeref", _string, "'local' or 'barycentred'"),
        documented_field("ontime", _f8, "sum of the good-time intervals", "s"),
        documented_field("exposure", _f8, "ontime × live fraction", "s"),
        documented_field("frame_time", _f4, "null where events are not framed", "s"),
        documented_field(
            "counts_per_frame", _f4, "mean events a frame, all energies; null where events are not framed", "ct"
        ),
        documented_field("area", _f4s, "effective area a band; null if unknown", "cm2"),
        documented_field("bands", _f4s, "edges of the energy bands, one more than there are bands", "keV"),
        documented_field("gti_start", _f8s, "since t_ref", "s"),
        documented_field("gti_stop", _f8s, "since t_ref", "s"),
        documented_field("time", _f8s, "arrival times since t_ref, sorted", "s"),
        documented_field("energy", _f4s, "", "keV"),
        documented_field("n_events", _i4),
        documented_field("bkg_time", _f8s, "background region's arrival times since t_ref; null if there is none", "s"),
        documented_field("bkg_energy", _f4s, "", "keV"),
        documented_field("bkg_scale", _f4, "background's area × exposure over the source's; null if there is none"),
        documented_field("flags", _strings, "whole_field, pile_up, overflow, exposure_mismatch …"),
        documented_field("file", _string),
        documented_field("sha256", _string, "of the file"),
    ]
)


QUARANTINE = pa.schema(
    [
        documented_field("file", _string, required=True),
        documented_field("stage", _string, "job that refused it"),
        documented_field("reason", _string, "a short code"),
        documented_field("detail", _string),
    ]
)

LITERATURE = pa.schema(
    [
        documented_field("source_id", _string, "the events table's where matched, else the paper's own", required=True),
        documented_field("bibcode", _string),
        documented_field("arxiv", _string),
        documented_field("year", _i4),
        documented_field("title", _string),
        documented_field("abstract", _string),
        documented_field("body", _string, "null if not had"),
        documented_field("n_objects", _i4, "how many objects the paper treats; null if unknown"),
        documented_field("n_citations", _i4),
        documented_field("n_mentions", _i4, "how often the paper speaks of the object; null if unknown"),
        documented_field(
            "separation", _f8, "between the paper's object and the source, proper motion undone", "arcsec"
        ),
        documented_field("matched_by", _string, "'name', 'position', or null where no detection matches"),
        documented_field(
            "error_source", _f8, "radius that holds the X-ray position with a probability of 95 %", "arcsec"
        ),
        documented_field(
            "error_object", _f8, "radius that holds the object's position with a probability of 95 %", "arcsec"
        ),
        documented_field("proper_motion", _f8, "the object's shift between its epoch and the observation's", "arcsec"),
        documented_field("p_chance", _f8, "probability that an unrelated object lies as near"),
        documented_field("object", _string, "what the catalogue calls the object that the paper was found by"),
        documented_field("identifiers", _strings, "all names by which catalogues know that object"),
        documented_field("found_by", _string, "'file', 'simbad' or 'ads'"),
    ]
)

SUMMARIES = pa.schema(
    [
        documented_field("source_id", _string, required=True),
        documented_field("summary", _string, "names, coordinates and survey numbers masked: what is embedded"),
        documented_field("summary_unmasked", _string, "the same for people"),
        documented_field("facts", _string, "the structured answer as JSON"),
        documented_field("bibcodes", _strings),
        documented_field("grounded", _f4, "share of the numbers and named classes that were found in the papers"),
        documented_field("findings", _strings, "what was not found in them"),
        documented_field("n_papers", _i4, "papers that it rests on"),
        documented_field("n_papers_left_out", _i4, "papers on the source that it does not rest on"),
        documented_field("engine", _string),
        documented_field("engine_version", _string),
        documented_field("model", _string),
        documented_field("revision", _string, "of the model: the hub's commit or the weights' sha256"),
        documented_field("sampling", _string, "temperature, seed and the like as JSON"),
        documented_field("prompt_sha256", _string, "of the prompts' templates"),
        documented_field("tokens_in", _i4, "of all prompts"),
        documented_field("tokens_out", _i4, "of all answers"),
        documented_field("attempts", _i4, "runs that have tried"),
        documented_field("status", _string, "'ok', 'ungrounded' or 'failed'"),
        documented_field("reason", _string, "why it failed"),
        documented_field("detail", _string, "the same for people"),
        documented_field("key", _string, "hash of all that the row was made of"),
    ]
)

RATES = pa.schema(
    [
        documented_field("detection_id", _string, required=True),
        documented_field("band", pa.int8(), required=True),
        documented_field("t", _f4s, "bin centres since t_ref", "s"),
        documented_field("rate", _f4s, "", "ct/s"),
        documented_field(
            "lower", _f4s, "the rate lies above with a probability of 84 %; null where not estimated", "ct/s"
        ),
        documented_field(
            "upper", _f4s, "the rate lies below with a probability of 84 %; null where not estimated", "ct/s"
        ),
        *_LIKE_TRAINING,
    ]
)


def text_embeddings(dimension: int) -> pa.Schema:
    """Schema of the `text_embeddings` table for vectors of `dimension` numbers."""
    return pa.schema(
        [
            documented_field("source_id", _string, required=True),
            documented_field("model", _string),
            _vector("embedding", dimension),
            documented_field("truncated", pa.bool_(), "the text is longer than the model takes"),
            documented_field("engine", _string),
            documented_field("engine_version", _string),
            documented_field("revision", _string, "of the model: the hub's commit or the weights' sha256"),
            documented_field("key", _string, "hash of all that the row was made of"),
        ]
    )


def latents(dimension: int) -> pa.Schema:
    """Schema of the `latents` table for representations of `dimension` numbers."""
    return pa.schema(
        [
            documented_field("detection_id", _string, required=True),
            documented_field("source_id", _string, required=True),
            documented_field("model", _string),
            _vector("latent", dimension),
            documented_field("log_rate", _f4s, "mean log count rate a band", "log(ct/s)"),
            documented_field(
                "latent_var", _f4s, "variance of each number by the chance of counting; null where not estimated"
            ),
            documented_field("nll", _f4, "negative log-likelihood", "nat"),
            documented_field("n_steps", _i4, "optimiser steps of the fit"),
            *_LIKE_TRAINING,
        ]
    )


def embeddings(dimension: int) -> pa.Schema:
    """Schema of the `embeddings` table: unit vectors of `dimension` numbers in the shared space."""
    return pa.schema(
        [
            documented_field("id", _string, "detection_id or source_id", required=True),
            documented_field("source_id", _string, required=True),
            documented_field("modality", _string, "'xray' or 'text'", required=True),
            _vector("embedding", dimension),
        ]
    )


def migrated(name: str, written: pa.Schema) -> pa.Schema:
    """Schema to read a table of an older version with: columns that it does not have yet are null."""
    now = {"events": EVENTS, "literature": LITERATURE, "summaries": SUMMARIES, "rates": RATES}.get(name)
    if name == "text_embeddings":
        now = text_embeddings(written.field("embedding").type.list_size)
    if name == "latents":
        now = latents(written.field("latent").type.list_size)
    return written if now is None else pa.unify_schemas([written, now])


def _vector(name: str, dimension: int) -> pa.Field:
    return documented_field(name, pa.list_(pa.float32(), dimension))


def check(rows: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """`rows` with exactly the columns, order and types of `schema`; absent nullable columns become null.

    Raises
    ------
    LexrayError
        If a column is unknown, a required one is missing or null, or a type cannot be converted without loss.
    """
    if unknown := [name for name in rows.column_names if name not in schema.names]:
        raise LexrayError(f"{where}: columns that the table does not have: {', '.join(unknown)}")
    return pa.Table.from_arrays([_checked(rows, field, where) for field in schema], schema=schema)


def _checked(rows: pa.Table, field: pa.Field, where: str) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        if not field.nullable:
            raise LexrayError(f"{where}: the required column '{field.name}' is missing")
        return pa.nulls(rows.num_rows, field.type)
    column = rows[field.name]
    if not field.nullable and column.null_count:
        raise LexrayError(f"{where}: the required column '{field.name}' has {column.null_count} nulls")
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise LexrayError(
            f"{where}: column '{field.name}' is {column.type}, not {field.type}: {first_line(error)}"
        ) from None
