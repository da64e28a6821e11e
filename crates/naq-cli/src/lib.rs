//! Every command of the naq binary, as a library and as the binary itself
