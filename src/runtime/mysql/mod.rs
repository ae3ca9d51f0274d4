//! Database servers: probes and steps over `mysql_async`, one query layer per flavour.
