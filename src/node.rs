//! Assembles the parts into a running watcher or proxy.
