//! The proxy as a whole, against a scripted watcher and stand-in servers on loopback.

mod forwarding;
mod routing;
mod stage;
