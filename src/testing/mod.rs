//! For tests: fuzz targets, and what actors are tested with.

pub mod fuzz;
