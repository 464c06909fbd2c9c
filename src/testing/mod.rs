//! (being written)

pub mod fuzz;
