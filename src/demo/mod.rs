//! A whole cluster on this machine, to try things on and to test with.
