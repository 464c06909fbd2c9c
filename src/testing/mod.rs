//! For tests of actors.
