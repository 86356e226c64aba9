//! The life of a block after it was written.
