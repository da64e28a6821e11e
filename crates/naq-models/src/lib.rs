//! The data of naq: jobs, results, errors, states, retry policy and the wire format
