"""What an engine's work costs."""


def cost_per_1000(n_rows: int, *used: tuple[float | None, float]) -> dict[str, float]:
    """The metric ``cost_per_1000`` in the prices' currency; none where no price is given or nothing was made.

    Parameters
    ----------
    n_rows : int
        Rows that were made.
    *used : tuple of (float or None, float)
        Price of a unit, such as a million tokens or an hour, and the units that were used.
    """
    if not n_rows or all(price is None for price, _ in used):
        return {}
    return {"cost_per_1000": 1000 * sum((price or 0.0) * amount for price, amount in used) / n_rows}
