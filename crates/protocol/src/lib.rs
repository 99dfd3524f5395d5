//! The JSON-lines protocol of Remuda: messages, framing and handshake as values.
#![forbid(unsafe_code)]
