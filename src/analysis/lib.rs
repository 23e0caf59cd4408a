//! Events in, answers out: reads memspy's logs and computes what the reports say. Prints nothing.
#![forbid(unsafe_code)]
