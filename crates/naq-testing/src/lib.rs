//! The public test kit of naq
