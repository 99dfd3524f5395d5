"""All rows, in the order of the page."""

from script import rows_counts, rows_growth, rows_map, rows_programs, rows_serve, rows_shm
from script.features import Features


def rows(places, plan):
    has = Features(places.remuda)
    return [
        *rows_map.rows(places, plan),
        *rows_serve.rows(places, has),
        *rows_shm.rows(places, has),
        *rows_programs.rows(places),
        *rows_growth.rows(places),
        *rows_counts.rows(places, has),
    ]
