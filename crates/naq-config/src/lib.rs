//! The typed configuration of naq: defaults, layers, validation
