//! Shared-memory rings between two processes.
#![allow(unsafe_code)]
