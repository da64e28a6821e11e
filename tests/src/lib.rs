//! What the whole-system tests share: servers, binaries, directories.
