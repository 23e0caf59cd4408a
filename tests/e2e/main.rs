//! End-to-end tests: one file for each hazard family.
