//! A simulated disk that fails, loses power and lies.

pub mod simulated;
