//! What a worker process in Rust needs, and no more.
