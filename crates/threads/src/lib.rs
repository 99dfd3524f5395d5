//! A manager thread and its workers, with a stop that cannot deadlock.
