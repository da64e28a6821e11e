//! Logging for naq: formats, files, and the fields that tie a line to its job
